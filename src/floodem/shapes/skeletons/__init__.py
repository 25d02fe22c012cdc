"""Skeletons: the midlines of objects, from labels to files and back."""
