"""Gaussians and mixtures fitted to images, and exact samples of them without D x D matrices."""
