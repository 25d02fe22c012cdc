"""How large a scene will be: its inputs in, sizes to be told before anything is written out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from floodem.counting import counted
from floodem.geometry import Box, Zyx
from floodem.viewer.layers import Kind
from floodem.viewer.scenes.client import client_bytes
from floodem.viewer.scenes.inputs import Input
from floodem.viewer.scenes.options import NONE, SceneOptions
from floodem.volumes.conversion.pyramid import level_factors
from floodem.volumes.pyramid_geometry import level_box

LABEL_BYTES = 0.25
"""Of a voxel in compressed blocks; FIB-25 and SNEMI3D, segmented densely, take 0.07 to 0.2."""

SHAPE_BYTES = 1.0
"""Of meshes and skeletons for each voxel; those two take 0.5 to 0.8."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedVolume:
    """One volume of a scene to be.

    Attributes
    ----------
    name, kind, box
        As of the input.
    factors
        Of the coarser levels, against the finest.
    voxels
        Over all levels.
    expected_bytes
        With shapes.
    has_shapes
        Whether meshes or skeletons are computed.
    """

    name: str
    kind: Kind
    box: Box
    dtype: str
    factors: tuple[Zyx, ...]
    voxels: int
    expected_bytes: int
    has_shapes: bool

    def __str__(self) -> str:
        z, y, x = self.box.shape
        shapes = ", with shapes" if self.has_shapes else ""
        return (
            f"{self.name}: {z} x {y} x {x} {self.dtype} in "
            f"{counted(1 + len(self.factors), 'level')}{shapes}, "
            f"about {_words(self.expected_bytes)}"
        )


@dataclass(frozen=True, slots=True)
class ScenePlan:
    """What is going to be written."""

    volumes: Sequence[PlannedVolume]
    client_bytes: int

    @property
    def voxels(self) -> int:
        """Over all volumes and levels."""
        return sum(volume.voxels for volume in self.volumes)

    @property
    def expected_bytes(self) -> int:
        """On disk; labels and shapes are estimated."""
        return self.client_bytes + sum(volume.expected_bytes for volume in self.volumes)

    def __str__(self) -> str:
        return (
            f"{self.voxels / 1e6:.1f} million voxels in {counted(len(self.volumes), 'volume')}, "
            "about "
            f"{_words(self.expected_bytes)}"
        )


def plan_scene(inputs: Sequence[Input], options: SceneOptions) -> ScenePlan:
    """Tell how large a scene will be.

    Raises
    ------
    OptionError
        When a volume has not so many levels.
    DependencyError
        When the viewer that is to be put in is not installed.
    """
    return ScenePlan(
        [_planned(one, options) for one in inputs], client_bytes() if options.has_client else 0
    )


def count_of(pyramid: int | Literal["auto"]) -> int | None:
    """Return how many coarser levels are asked for, or None for as many as it takes."""
    return None if pyramid == "auto" else pyramid


def _planned(one: Input, options: SceneOptions) -> PlannedVolume:
    factors = level_factors(one.box.shape, one.voxel_size, count=count_of(options.pyramid))
    voxels = sum(level_box(one.box, level).size for level in ((1, 1, 1), *factors))
    has_shapes = one.kind is Kind.SEGMENTATION and any(
        str(options.shapes_of(one.name, what=what)) != NONE for what in ("meshes", "skeletons")
    )
    each = LABEL_BYTES if one.kind is Kind.SEGMENTATION else float(one.dtype.itemsize)
    shapes = SHAPE_BYTES * one.box.size if has_shapes else 0.0
    return PlannedVolume(
        name=one.name,
        kind=one.kind,
        box=one.box,
        dtype=one.dtype.name,
        factors=factors,
        voxels=voxels,
        expected_bytes=math.ceil(voxels * each + shapes),
        has_shapes=has_shapes,
    )


def _words(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 10**9 else f"{max(count, 10**5) / 1e6:.1f} MB"
