"""Denoisers: networks with their preconditioning, and those known in closed form."""
