"""Volumes in chunks: zarr 2 and 3, n5 and precomputed, through tensorstore."""
