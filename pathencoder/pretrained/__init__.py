"""Find, load, convert and save weights: catalogue, Hub, folders, key names."""
