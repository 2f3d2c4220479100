"""The grid of models that the memorization job trains, samples and compares."""
