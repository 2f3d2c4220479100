"""All runs as tables."""
