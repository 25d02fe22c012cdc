"""A slow, obvious twin of `face_peaks`, written from the published description."""

from __future__ import annotations

import itertools


def face_peaks(logits, deltas, threshold):
    """All voxels of the six faces, one by one; the first maximum in C order wins."""
    center = [size // 2 for size in logits.shape]
    found = []
    for axis in range(3):
        if deltas[axis] == 0:
            continue
        for side in (-deltas[axis], deltas[axis]):
            ranges = [range(-d, d + 1) for d in deltas]
            ranges[axis] = range(side, side + 1)
            best = None
            for offset in itertools.product(*ranges):
                value = float(logits[tuple(c + o for c, o in zip(center, offset, strict=True))])
                if best is None or value > best[0]:
                    best = (value, offset)
            if best[0] >= threshold and best not in found:
                found.append(best)
    return sorted(found, reverse=True)
