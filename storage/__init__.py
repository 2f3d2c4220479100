"""Storage: artifacts on any filesystem, each addressed by the hash of the recipe that makes it."""
