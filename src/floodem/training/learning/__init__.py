"""Learning: a batch of fields of view in, better weights out."""
