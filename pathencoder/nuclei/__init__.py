"""Nuclei without a label: the network, its training, and what is made of its maps."""
