"""Four experiments with exact answers."""
