"""Numbers for each object: voxels, volume, surface, box, centroid; block by block."""
