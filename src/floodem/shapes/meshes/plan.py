"""What is to be meshed: an open segmentation and options come in, a plan of the work goes out.

It holds all that `floodem.shapes.meshes.job` needs to know before the stages begin, and
what tells this work from other work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from floodem.errors import DependencyError, GeometryError, LabelError, OptionError
from floodem.geometry import Box, VoxelSize
from floodem.shapes.files import FORMATS
from floodem.shapes.meshes.blocks import FRAGMENT_COLUMNS, block_edge
from floodem.shapes.meshes.gathering import FACES, OBJECT, VOXELS, Blocks, Pieces
from floodem.shapes.meshes.marching import SHAPES_EXTRA
from floodem.shapes.meshes.options import MeshOptions
from floodem.shapes.meshes.packs import read_table
from floodem.shapes.meshes.simplification import default_error_nm
from floodem.shapes.source import LabelSource, require_voxel_size
from floodem.volumes.volume import Volume

MESHING_VERSION = 1
"""Changes when the same labels and options give other files."""

_LIBRARIES = ("zmesh", "pyfqmr", "DracoPy")

_FACES_A_TASK = 200_000
"""A few seconds of work: little is lost by a kill, and several processes end together."""

_NAMED_IDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshPlan:
    """All that the stages need to know; see `MeshOptions` for the values."""

    source: LabelSource
    options: MeshOptions
    region: Box
    voxel_size: VoxelSize
    max_error_nm: float
    block_edge: int

    @property
    def identity(self) -> dict[str, Any]:
        """What the files depend on, as JSON values."""
        ids = self.options.ids
        return {
            "meshing": MESHING_VERSION,
            "libraries": {name: _version(name) for name in _LIBRARIES},
            "region": str(self.region),
            "voxel_size_zyx_nm": list(self.voxel_size.zyx_nm),
            "max_error_nm": self.max_error_nm,
            "block_edge": self.block_edge,
            "ids": None if ids is None else [str(label) for label in sorted(set(ids))],
            "channel": self.source.channel,
            "axes": self.source.axes,
            "min_voxels": self.options.min_voxels,
            "file_format": self.options.file_format,
        }


def with_format(options: MeshOptions, destination: str | Path) -> tuple[MeshOptions, bool]:
    """Take the format from the destination's ending; tell whether it is one file.

    Raises
    ------
    OptionError
        When it is one file for several objects, or of another format.
    """
    ending = Path(str(destination)).suffix.removeprefix(".").lower()
    if ending not in FORMATS or Path(str(destination)).is_dir():
        return options, False
    if options.file_format not in {None, ending}:
        raise OptionError(
            f"{destination} would be {ending} and not {options.file_format}: leave --format "
            "(file_format) out, or name the file otherwise"
        )
    if options.ids is None or len(set(options.ids)) != 1:
        raise OptionError(
            f"{destination} is one file and holds one object: name it with --ids (ids), or give a "
            f"folder and --format {ending} (file_format)"
        )
    return replace(options, file_format=ending), True


def make_plan(volume: Volume, source: LabelSource, options: MeshOptions) -> MeshPlan:
    """Check an open segmentation against the options, and fill in what they leave open.

    Raises
    ------
    LabelError
        When the volume holds no integers.
    OptionError
        When the voxel size is unknown.
    GeometryError
        When the box is not in the volume.
    """
    if volume.dtype.kind not in "ui":
        raise LabelError(
            f"{volume.uri} holds {volume.dtype} values, which are no labels: "
            "give a volume of unsigned integers, 0 for background"
        )
    voxel_size = require_voxel_size(volume, options.voxel_size)
    region = options.box or volume.box
    if not volume.box.contains(region) or region.size == 0:
        raise GeometryError(f"box {region} is not inside {volume.uri}, which holds {volume.box}")
    return MeshPlan(
        source=source,
        options=options,
        region=region,
        voxel_size=voxel_size,
        max_error_nm=options.max_error_nm or default_error_nm(voxel_size),
        block_edge=options.block_edge or block_edge(region),
    )


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        raise DependencyError(
            f"making meshes needs {library}, which is not installed here: "
            f"pip install {SHAPES_EXTRA!r}"
        ) from None


def pieces_of(blocks: Blocks, plan: MeshPlan) -> Pieces:
    """Return where the pieces of all objects are, by id, then block.

    Raises
    ------
    LabelError
        When none of the ids that were asked for is there.
    """
    tables = [np.zeros((0, 4 + FRAGMENT_COLUMNS), np.uint64)]
    for number in range(len(blocks.cores())):
        table = read_table(blocks.path(number), columns=FRAGMENT_COLUMNS)
        tables.append(np.insert(table, 1, number, axis=1))
    pieces = np.concatenate(tables)
    if plan.options.ids is not None and len(pieces) == 0:
        raise LabelError(
            f"{plan.source.uri} has none of the ids {some_of(plan.options.ids)} in {plan.region}: "
            "check them"
        )
    # Blocks are in order, and the sort is stable.
    pieces = pieces[np.argsort(pieces[:, OBJECT], kind="stable")]
    _, where = np.unique(pieces[:, OBJECT], return_inverse=True)
    voxels = np.bincount(where, weights=pieces[:, VOXELS]).astype(np.int64)
    is_kept = (voxels[where] >= max(plan.options.min_voxels, 1)) & (pieces[:, FACES] > 0)
    return pieces[is_kept]


def in_groups(pieces: Pieces) -> list[tuple[int, Pieces]]:
    """Cut the pieces into parts of whole objects with about the same number of faces."""
    if len(pieces) == 0:
        return []
    _, first, where = np.unique(pieces[:, OBJECT], return_index=True, return_inverse=True)
    faces = np.bincount(where, weights=pieces[:, FACES])
    group = ((np.cumsum(faces) - faces) // _FACES_A_TASK).astype(np.int64)
    starts = first[np.flatnonzero(np.diff(group, prepend=-1))]
    return list(enumerate(np.split(pieces, starts[1:])))


def some_of(ids: Sequence[int]) -> str:
    """Return ids for a message: the first few, and how many more there are."""
    shown = ", ".join(str(label) for label in ids[:_NAMED_IDS])
    return shown if len(ids) <= _NAMED_IDS else f"{shown} and {len(ids) - _NAMED_IDS} more"
