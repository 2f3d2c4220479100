"""Samplers: from noise to images."""
