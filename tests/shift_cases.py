"""Tissue with planted shifts: what tests of shifts between sections are made from."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

ROOM = 40
"""How far sections may be shifted before the tissue ends."""


def tissue(depth: int, *, edge: int, seed: int = 0, noise: float = 8.0) -> np.ndarray:
    """Return cells with dark membranes that change slowly from section to section (float)."""
    rng = np.random.default_rng(seed)
    shape = (depth, edge + 2 * ROOM, edge + 2 * ROOM)
    field = ndimage.gaussian_filter(rng.normal(size=shape), (3, 6, 6), mode="wrap")
    field /= field.std()
    image = 200 - 150 * np.exp(-((field / 0.25) ** 2))
    return image + rng.normal(0, noise, shape)


def cut(canvas: np.ndarray, shifts_yx: list[tuple[int, int]]) -> np.ndarray:
    """Return sections (uint8) whose tissue lies so many voxels farther along y and x."""
    sections = []
    for section, (y, x) in zip(canvas, shifts_yx, strict=True):
        ends = zip((y, x), section.shape, strict=True)
        rows, columns = (slice(ROOM - at, length - ROOM - at) for at, length in ends)
        sections.append(section[rows, columns])
    return np.clip(np.round(sections), 0, 255).astype(np.uint8)


def sheared(section: np.ndarray, *, most: int) -> np.ndarray:
    """Return a section whose lower half is shifted along x, more and more, up to `most`."""
    rows = np.arange(section.shape[0])
    shift = np.clip(rows / section.shape[0] * 2 - 1, 0, 1) * most
    y, x = np.mgrid[: section.shape[0], : section.shape[1]].astype(float)
    moved = ndimage.map_coordinates(
        section.astype(float), [y, x - shift[:, None]], order=1, mode="nearest"
    )
    return moved.round().astype(np.uint8)
