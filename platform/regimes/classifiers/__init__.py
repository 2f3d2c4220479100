"""Classifiers trained on real and generated images: sets, networks, training and scores."""
