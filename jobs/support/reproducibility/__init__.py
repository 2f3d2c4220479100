"""Whether sample sets agree."""
