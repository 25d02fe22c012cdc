"""Volumes in files that hold one array, or a few: npy, npz, NIfTI, MRC, DM."""
