"""Shapes of objects: label volumes come in, meshes, skeletons and measures go out."""
