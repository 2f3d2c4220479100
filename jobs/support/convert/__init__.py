"""EDM's files, from ours."""
