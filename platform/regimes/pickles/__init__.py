"""Pickles read as inert data: an interpreter that can execute nothing, and what it may make."""
