"""Scores: pure functions on arrays. Each comes with its interval, its null and its per-item values."""
