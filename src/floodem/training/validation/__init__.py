"""Held-out data, flooded while training goes on: weights in, rows of the validation curve out."""
