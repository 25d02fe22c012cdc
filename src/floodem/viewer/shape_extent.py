"""Where shapes lie that are shown without a volume: a folder in, objects and their box out.

A folder of meshes or skeletons says nothing of itself as a whole; a look at some
objects tells where to look.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from floodem.errors import VolumeFormatError
from floodem.geometry import Box
from floodem.viewer.object_folders import Shape, ShapeFolder

_LOOKED_AT = 200
"""Objects whose sizes are compared: reading them takes a moment at most."""

Corners = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, slots=True)
class ShapeExtent:
    """Some large objects and the box around them, in whole nanometres."""

    ids: tuple[int, ...]
    box_nm: Box


def extent_of(folder: ShapeFolder, *, count: int) -> ShapeExtent | None:
    """Choose the largest of the first objects in a folder.

    Parameters
    ----------
    count
        How many to choose.

    Returns
    -------
    extent
        None where the folder is empty, or of a format whose files do not tell.

    Raises
    ------
    VolumeFormatError, StorageError
        When a file is damaged or cannot be read.
    """
    look = {Shape.MESH: _meshes, Shape.SKELETON: _skeletons}.get(folder.shape)
    if look is None:
        return None
    found = sorted(look(folder.path), key=lambda one: -one[1])[:count]
    if not found:
        return None
    low = np.min([low for _, _, (low, _) in found], axis=0)
    high = np.max([high for _, _, (_, high) in found], axis=0)
    z0, y0, x0 = (math.floor(edge) for edge in low)
    z1, y1, x1 = (math.ceil(edge) for edge in high)
    return ShapeExtent(tuple(label for label, _, _ in found), Box((z0, y0, x0), (z1, y1, x1)))


def _meshes(folder: Path) -> Iterator[tuple[int, int, Corners]]:
    from floodem.shapes.precomputed.reading import MeshFolder

    try:
        meshes = MeshFolder(folder)
    except VolumeFormatError:
        return  # of one level: positions stand in the fragments alone
    for label in itertools.islice(meshes.ids(), _LOOKED_AT):
        manifest = meshes.manifest(label)
        finest = manifest.levels[0]
        if finest.total_bytes == 0:
            continue
        edges, origin = np.array(manifest.cell_edges_xyz_nm), np.array(manifest.grid_origin_xyz_nm)
        filled = finest.cells_xyz[finest.sizes > 0].astype(np.float64)
        low, high = origin + filled.min(axis=0) * edges, origin + (filled.max(axis=0) + 1) * edges
        yield label, finest.total_bytes, (low[::-1], high[::-1])


def _skeletons(folder: Path) -> Iterator[tuple[int, int, Corners]]:
    from floodem.shapes.skeletons.folder import SkeletonFolder

    skeletons = SkeletonFolder(folder)
    for label in skeletons.ids()[:_LOOKED_AT]:
        skeleton = skeletons.read(label)
        if skeleton is not None and len(skeleton.vertices_zyx_nm):
            places = skeleton.vertices_zyx_nm
            yield label, len(places), (places.min(axis=0), places.max(axis=0))
