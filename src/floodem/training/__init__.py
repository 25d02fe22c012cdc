"""Training: an image and its labels become a network, scored by flooding held-out data."""
