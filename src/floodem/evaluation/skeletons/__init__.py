"""Scores along skeletons of the truth: how far one gets along a neuron without a mistake."""
