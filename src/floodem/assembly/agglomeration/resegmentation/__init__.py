"""Two segments flooded again from both sides: decision points in, scores out."""
