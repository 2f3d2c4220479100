"""Which generated images copy training images."""
