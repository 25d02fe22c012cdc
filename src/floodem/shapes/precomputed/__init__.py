"""Neuroglancer's precomputed formats for shapes: meshes, their shards, segment properties."""
