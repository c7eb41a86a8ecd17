"""What image files hold: their kind, pages, colours, bit depth and scale, and what is refused."""
