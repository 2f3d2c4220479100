"""Studies: which scores answer a question, and what follows from them. Pure functions on features."""
