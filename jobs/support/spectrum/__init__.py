"""Spectra beside those of a Gaussian mixture."""
