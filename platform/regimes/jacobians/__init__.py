"""Jacobians of denoisers: their products, their singular values, and what their rank is."""
