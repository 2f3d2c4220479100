"""Training: the loss, the loop over an ensemble, and bit-exact resume."""
