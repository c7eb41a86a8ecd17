"""The label-free training of the nuclei network, which `pathencoder nuclei --adapt` runs."""
