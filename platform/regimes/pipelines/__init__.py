"""Pretrained diffusers pipelines, sampled by schedulers that are chosen by name."""
