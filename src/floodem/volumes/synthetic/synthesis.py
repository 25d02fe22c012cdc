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
from floodem.volumes.synthetic.noise import Singles
from floodem.volumes.synthetic.options import SyntheticOptions
from floodem.volumes.synthetic.painting import MEMBRANE_DEPTH, Painter, membrane_profile
from floodem.volumes.synthetic.territory import Territory, territory
from floodem.volumes.synthetic.tubes import Tubes

Labels = np.ndarray[Any, np.dtype[np.unsignedinteger[Any]]]


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


@functools.lru_cache(maxsize=4)
def tubes_of(options: SyntheticOptions) -> Tubes:
    """Return the neurites of a volume; made once."""
    return Tubes(options)


def label_dtype(options: SyntheticOptions) -> np.dtype[Any]:
    """Return the type that holds all numbers of a volume: uint32 where it can."""
    largest = tubes_of(options).forest.nodes + 1
    return np.dtype(np.uint32 if largest < 2**32 else np.uint64)


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
    whole = options.box
    box = whole if box is None else box
    if not whole.contains(box) or box.size == 0:
        raise GeometryError(
            f"box {box} is empty or not inside the synthetic volume, which is {whole} (z,y,x): "
            "choose a box in it"
        )
    found = territory(tubes_of(options), box)
    inner = box.slices(origin=found.box.start)
    owners = found.points.labels[found.owner]
    labels = np.where(found.surface_nm < options.gap_nm / 2, 0, owners)
    image = _paint(options, found, owners)
    return Synthetic(
        image=np.ascontiguousarray(image[inner]),
        labels=labels[inner].astype(label_dtype(options)),
    )


def _paint(
    options: SyntheticOptions, found: Territory, owners: np.ndarray[Any, np.dtype[np.int64]]
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    painter = Painter(options)
    grey: Singles = painter.cytoplasm(found.box, owners.astype(np.uint64))
    dark = membrane_profile(
        found.surface_nm,
        found.steepness,
        width_nm=options.membrane_nm,
        section_nm=options.voxel_size.z_nm,
    )
    grey -= np.float32(MEMBRANE_DEPTH) * dark
    grey += painter.noise(found.box)
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8)
