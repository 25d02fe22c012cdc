"""Augmentation: examples are changed as electron microscopes change sections, and turned."""
