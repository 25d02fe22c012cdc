"""Voxels, sums of positions, boxes and crossings of objects, one voxel after the other."""

from __future__ import annotations

from collections import defaultdict


def count(labels, offset, directions):
    """A row for each id: voxels, sums, first, last, crossings of each group of directions."""
    rows = defaultdict(lambda: [0, [0, 0, 0], [10**9] * 3, [-(10**9)] * 3, [0] * len(directions)])
    shape = labels.shape
    for z in range(shape[0]):
        for y in range(shape[1]):
            for x in range(shape[2]):
                label = int(labels[z, y, x])
                if label:
                    row = rows[label]
                    row[0] += 1
                    for axis, index in enumerate((z, y, x)):
                        at = index + offset[axis]
                        row[1][axis] += at
                        row[2][axis] = min(row[2][axis], at)
                        row[3][axis] = max(row[3][axis], at)
                for number, group in enumerate(directions):
                    for dz, dy, dx in group:
                        there = (z + dz, y + dy, x + dx)
                        if all(0 <= a < n for a, n in zip(there, shape, strict=True)):
                            other = int(labels[there])
                            if other != label:
                                for one in (label, other):
                                    if one:
                                        rows[one][4][number] += 1
    return dict(sorted(rows.items()))
