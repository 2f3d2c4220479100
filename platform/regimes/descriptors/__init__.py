"""Descriptors: functions from uint8 images to unit vectors; similarity is a dot product."""
