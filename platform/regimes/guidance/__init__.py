"""Particle guidance: samples of a batch that keep away from each other."""
