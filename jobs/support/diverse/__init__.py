"""Which samples lie outside the real images."""
