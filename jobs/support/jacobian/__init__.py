"""In how many directions a denoiser moves."""
