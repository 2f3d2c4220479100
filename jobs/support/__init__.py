"""What all jobs share: command line, progress, the grid of recipes, and the result folder."""
