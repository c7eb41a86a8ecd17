"""Image files: their kind, pages, colours, bit depth and scale, and what is not supported."""
