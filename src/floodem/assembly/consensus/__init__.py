"""What two segmentations agree on: every pair of their objects becomes a segment of its own."""
