"""Toys: diffusion of points in one or two dimensions, where the right answer is known exactly."""
