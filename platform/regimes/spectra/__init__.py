"""Gram and covariance matrices of large sets: eigenvalues, principal images, and laws of random matrices."""
