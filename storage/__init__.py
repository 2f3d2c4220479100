"""Storage: artifacts on any filesystem. An artifact is what a recipe makes; its address is the recipe's hash."""
