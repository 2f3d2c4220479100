"""What generated images are worth to a classifier."""
