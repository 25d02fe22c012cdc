"""Many skeletons as one table: ids and skeletons in, voxels of nodes and lengths of edges out.

Positions in nanometres become voxels of the segmentation here. Nodes outside the box that is
scored are left out, with their edges, and counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from floodem.errors import GeometryError, LabelError
from floodem.geometry import Box, VoxelSize, Zyx
from floodem.shapes.skeletons.skeleton import Skeleton

NumberedSkeleton = tuple[int, Skeleton]

_ROUNDING = float(np.finfo(np.float32).eps)
"""What a position in 32 bits may be off, as a share of it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SkeletonNodes:
    """The nodes and edges of all skeletons inside a box.

    Attributes
    ----------
    ids
        Of the skeletons that have a node there, in the order they came.
    voxels
        Voxel of each node, z, y, x in the volume's frame; skeletons one after the other.
    skeleton_of
        For each node the row of its skeleton in `ids`, ascending.
    edges
        Pairs of rows of `voxels`, each of one skeleton.
    lengths_nm
        Of each edge.
    outside
        How many nodes were left out.
    voxel_size
        What made voxels of nanometres.
    """

    ids: tuple[int, ...]
    voxels: Int64[np.ndarray, "nodes 3"]
    skeleton_of: Int64[np.ndarray, "nodes"]
    edges: Int64[np.ndarray, "edges 2"]
    lengths_nm: Float64[np.ndarray, "edges"]
    outside: int
    voxel_size: VoxelSize

    def __len__(self) -> int:
        return len(self.voxels)

    @property
    def edge_skeletons(self) -> Int64[np.ndarray, "edges"]:
        """For each edge the row of its skeleton in `ids`."""
        rows: Int64[np.ndarray, "edges"] = self.skeleton_of[self.edges[:, 0]]
        return rows

    def voxel(self, node: int) -> Zyx:
        """Return the voxel of a node, z, y, x."""
        z, y, x = self.voxels[node].tolist()
        return (z, y, x)


def gather_nodes(
    skeletons: Iterable[NumberedSkeleton], *, box: Box, voxel_size: VoxelSize
) -> SkeletonNodes:
    """Put skeletons into one table.

    Parameters
    ----------
    skeletons
        Ids, each once, and skeletons in nanometres: voxel v covers [v, v + 1) times the
        voxel's edge, the volume's offset included.
    box
        Nodes whose voxels are not in it are left out.
    voxel_size
        Of the segmentation.

    Raises
    ------
    GeometryError
        When no node lies in the box, or a position is not finite.
    LabelError
        When an id comes twice, or no node or no edge is left.
    """
    ids: list[int] = []
    parts: list[tuple[Any, Any, Any]] = []
    first = outside = 0
    for number, skeleton in skeletons:
        voxels, edges, lengths = _inside(skeleton, box=box, voxel_size=voxel_size)
        outside += len(skeleton) - len(voxels)
        if len(voxels):
            ids.append(int(number))
            parts.append((voxels, edges + first, lengths))
            first += len(voxels)
    if len(set(ids)) != len(ids):
        raise LabelError("two skeletons have one id: give each its own")
    if not parts and not outside:
        raise LabelError("there is no skeleton with a node: give skeletons of the truth")
    if not parts:
        raise GeometryError(
            f"none of the skeletons' {outside} nodes lies in {box} (z,y,x) with voxels of "
            f"{voxel_size} nm: check their unit, and the voxel size and offset of the segmentation"
        )
    voxels, edges, lengths = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    if not lengths.sum():
        raise LabelError(
            f"no edge of the skeletons lies in {box} (z,y,x): choose a larger box, or skeletons "
            "with edges"
        )
    return SkeletonNodes(
        ids=tuple(ids),
        voxels=voxels,
        skeleton_of=np.repeat(np.arange(len(parts)), [len(part[0]) for part in parts]),
        edges=edges,
        lengths_nm=lengths,
        outside=outside,
        voxel_size=voxel_size,
    )


def _inside(skeleton: Skeleton, *, box: Box, voxel_size: VoxelSize) -> tuple[Any, Any, Any]:
    """Return the voxels of the nodes in a box, and edges between those with their lengths."""
    positions = skeleton.vertices_zyx_nm.astype(np.float64)
    if not np.isfinite(positions).all():
        raise GeometryError("a skeleton has a position that is not finite: mend its file")
    steps = positions / np.array(voxel_size.zyx_nm)
    # Tools put nodes on the faces where voxels begin; in 32 bits half of them are a bit below.
    places = np.floor(steps + np.abs(steps) * _ROUNDING)
    # Compared as floats, which hold what no voxel's number can be.
    is_inside = ((places >= box.start) & (places < box.stop)).all(axis=1)
    row_of = np.cumsum(is_inside) - 1
    ends = skeleton.edges.astype(np.int64)
    is_kept = is_inside[ends].all(axis=1) & (ends[:, 0] != ends[:, 1])
    ends = _each_once(ends[is_kept], nodes=len(positions))
    steps = positions[ends[:, 0]] - positions[ends[:, 1]]
    return (
        places[is_inside].astype(np.int64),
        row_of[ends].reshape(-1, 2),
        np.sqrt((steps**2).sum(axis=1)),
    )


def _each_once(ends: Any, *, nodes: int) -> Any:
    """Return edges without those that come again, whichever way round; the order stays."""
    keys = ends.min(axis=1) * nodes + ends.max(axis=1)
    _, first = np.unique(keys, return_index=True)
    return ends if len(first) == len(ends) else ends[np.sort(first)]
