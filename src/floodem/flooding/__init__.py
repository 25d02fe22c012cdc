"""Inference: a network, an image and seeds become segments."""
