"""Thresholds from labelled data: a graph and truth in, a rule out."""
