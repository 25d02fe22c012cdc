"""Which voxels hang together: one at a time, each with its 26 neighbours."""

from __future__ import annotations

import itertools

STEPS = [step for step in itertools.product((-1, 0, 1), repeat=3) if any(step)]


def pieces(mask):
    """Sets of voxels (z, y, x) that hang together, in C order of their first voxels."""
    left = {tuple(map(int, voxel)) for voxel in zip(*mask.nonzero(), strict=True)}
    found = []
    while left:
        begun = [min(left)]
        left.remove(begun[0])
        piece = set(begun)
        while begun:
            z, y, x = begun.pop()
            for dz, dy, dx in STEPS:
                near = (z + dz, y + dy, x + dx)
                if near in left:
                    left.remove(near)
                    piece.add(near)
                    begun.append(near)
        found.append(piece)
    return found


def cell_pairs(mask, cell):
    """Pairs of cells that have neighbouring voxels."""
    inside = {tuple(map(int, voxel)) for voxel in zip(*mask.nonzero(), strict=True)}
    pairs = set()
    for z, y, x in inside:
        for dz, dy, dx in STEPS:
            near = (z + dz, y + dy, x + dx)
            if near in inside:
                one, other = (
                    tuple(a // n for a, n in zip(at, cell, strict=True)) for at in ((z, y, x), near)
                )
                if one != other:
                    pairs.add((one, other))
    return pairs
