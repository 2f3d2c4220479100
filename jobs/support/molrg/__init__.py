"""Models of data of known dimension."""
