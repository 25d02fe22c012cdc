"""Places where two segments may belong together: labels in, one point for each pair out."""
