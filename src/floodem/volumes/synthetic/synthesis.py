"""One box of a synthetic volume: options and a box in, image and exact labels out.

The forest says where neurites run, tubes give them radii, territories divide the
voxels, and what is painted over them stays inside its owner. Every step looks at
places, never at other boxes, so that any box can be computed alone.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from floodem.errors import GeometryError
from floodem.geometry import Box
from floodem.volumes.synthetic.glia import Glia
from floodem.volumes.synthetic.noise import Floats, Integers
from floodem.volumes.synthetic.options import SyntheticOptions
from floodem.volumes.synthetic.organelles import Organelles, Scene
from floodem.volumes.synthetic.painting import Painter, membrane_profile
from floodem.volumes.synthetic.sections import Sections
from floodem.volumes.synthetic.territory import Territory, territory
from floodem.volumes.synthetic.tubes import Tubes

Labels = np.ndarray[Any, np.dtype[np.unsignedinteger[Any]]]


_MOST_OF_ROOM = 0.3
"""Of a neurite's half width that label 0 may take, besides the 0.6 that glia may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Synthetic:
    """A box of synthetic electron microscopy.

    Attributes
    ----------
    image
        Grey values, uint8 (z, y, x).
    labels
        Which object each voxel belongs to; 0 is the middle between two.
    """

    image: np.ndarray[Any, np.dtype[np.uint8]]
    labels: Labels


@dataclass(frozen=True, slots=True)
class Tissue:
    """The neurites and the glia of one volume."""

    tubes: Tubes
    glia: Glia


@functools.lru_cache(maxsize=4)
def tissue_of(options: SyntheticOptions) -> Tissue:
    """Return what a volume is made of; made once."""
    tubes = Tubes(options)
    glia = Glia(options, first_label=tubes.forest.nodes + 1)
    return Tissue(tubes, glia)


def label_dtype(options: SyntheticOptions) -> np.dtype[Any]:
    """Return the type that holds all numbers of a volume: uint32 where it can."""
    tissue = tissue_of(options)
    largest = tissue.tubes.forest.nodes + tissue.glia.labels
    return np.dtype(np.uint32 if largest < 2**32 else np.uint64)


def require_part(options: SyntheticOptions, box: Box | None) -> Box:
    """Return the box, or the whole volume where there is none.

    Raises
    ------
    GeometryError
        When the box is empty or not inside the volume.
    """
    box = options.box if box is None else box
    if not options.box.contains(box) or box.size == 0:
        raise GeometryError(
            f"box {box} is empty or not inside the synthetic volume, which is {options.box} "
            "(z,y,x): choose a box in it"
        )
    return box


def synthesize(options: SyntheticOptions, box: Box | None = None) -> Synthetic:
    """Compute a box of a synthetic volume.

    Parameters
    ----------
    box
        In voxels; by default the whole volume.

    Raises
    ------
    GeometryError
        When the box is empty or not inside the volume.
    """
    box = require_part(options, box)
    tissue = tissue_of(options)
    found = territory(tissue.tubes, box)
    inner = box.slices(origin=found.box.start)
    owners = found.points.labels[found.owner]
    spare = found.points.spare_nm.astype(np.float32)[found.owner]
    sheets = tissue.glia.sheets(found.box, spare)
    nodes = _nodes_inside(found)
    # Where a neurite's own points are dense, the bound of the sheets may fail at a node.
    sheets.half_nm[nodes] = np.minimum(sheets.half_nm[nodes], found.surface_nm[nodes] / 2)
    depth = found.surface_nm - sheets.half_nm
    is_glia = depth < 0
    labels = np.where(is_glia, sheets.labels, owners)
    half_gap = np.minimum(np.float32(options.gap_nm / 2), np.float32(_MOST_OF_ROOM) * spare)
    half_gap[nodes] = np.minimum(half_gap[nodes], depth[nodes] / 2)
    labels[np.abs(depth) < half_gap] = 0
    image = _paint(options, found, owners=owners, depth_nm=depth, is_glia=is_glia)
    return Synthetic(
        image=np.ascontiguousarray(image[inner]),
        labels=labels[inner].astype(label_dtype(options)),
    )


def _nodes_inside(found: Territory) -> tuple[Integers, Integers, Integers]:
    """Return the voxels of the neurites' points in a box, as indices (z, y, x)."""
    local = found.points.voxels - found.box.start
    z, y, x = local[((local >= 0) & (local < found.box.shape)).all(axis=1)].T
    return z, y, x


def _paint(
    options: SyntheticOptions,
    found: Territory,
    *,
    owners: Integers,
    depth_nm: Floats,
    is_glia: np.ndarray[Any, np.dtype[np.bool_]],
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    painter = Painter(options)
    grey = painter.cytoplasm(found.box, owners, is_glia=is_glia)
    grey -= Organelles(options).darkness(
        Scene(box=found.box, points=found.points, owners=owners, depth_nm=depth_nm)
    )
    profile = membrane_profile(
        np.abs(depth_nm),
        found.steepness,
        width_nm=options.membrane_nm,
        section_nm=options.voxel_size.z_nm,
    )
    painter.draw_membranes(found.box, grey, profile)
    grey += painter.noise(found.box)
    Sections(options).spoil(found.box, grey)
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8)
