"""A name to weights: catalogue, Hub, folders, key names, and back to a folder."""
