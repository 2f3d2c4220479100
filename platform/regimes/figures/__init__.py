"""Figures: each says one thing, which its title states, and can be read without the text."""
