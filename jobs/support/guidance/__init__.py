"""Samples that repel each other."""
