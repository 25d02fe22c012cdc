"""Skeletons in Neuroglancer's precomputed format: a skeleton in, bytes out, and back.

Positions are stored as x, y, z. Files and shards of many skeletons are
`floodem.shapes.precomputed`'s; reading a whole folder `floodem.shapes.skeletons.folder`'s.

References
----------
google/neuroglancer, src/datasource/precomputed/skeletons.md.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from floodem.errors import VolumeFormatError
from floodem.shapes.precomputed.infos import IDENTITY, RADIUS, SkeletonInfo, VertexAttribute
from floodem.shapes.skeletons.skeleton import Skeleton
from floodem.volumes.damage import damaged

Positions = np.ndarray[Any, np.dtype[np.float32]]

_HEADER_BYTES = 8
_BYTES_PER_VERTEX = 12
_BYTES_PER_EDGE = 8

INFO = SkeletonInfo()
"""What `encode_skeleton` writes: nanometres, and the radius at each vertex."""


def encode_skeleton(skeleton: Skeleton) -> bytes:
    """Return what a precomputed file of one skeleton holds, with the attribute ``radius``."""
    counts = np.array([len(skeleton), len(skeleton.edges)], "<u4")
    parts = (
        counts,
        skeleton.vertices_zyx_nm[:, ::-1].astype("<f4"),
        skeleton.edges.astype("<u4"),
        skeleton.radii_nm.astype("<f4"),
    )
    return b"".join(part.tobytes() for part in parts)


def decode_skeleton(data: bytes, *, info: SkeletonInfo = INFO, uri: object) -> Skeleton:
    """Read a skeleton that `encode_skeleton` or another program encoded.

    Parameters
    ----------
    info
        Of the folder: which attributes there are, and what turns stored positions
        into nanometres. Without an attribute ``radius`` radii are 0.
    uri
        Where the bytes are from, for messages.

    Raises
    ------
    VolumeFormatError
        When the bytes are not one skeleton with these attributes.
    """
    if len(data) < _HEADER_BYTES:
        raise _damaged(uri, f"it has {len(data)} bytes and its header {_HEADER_BYTES}")
    vertices, edges = (int(count) for count in np.frombuffer(data, "<u4", count=2))
    per_vertex = sum(_bytes_of(one) for one in info.vertex_attributes)
    needed = _HEADER_BYTES + vertices * (_BYTES_PER_VERTEX + per_vertex) + edges * _BYTES_PER_EDGE
    if len(data) != needed:
        raise _damaged(
            uri, f"{vertices} vertices and {edges} edges take {needed} bytes, not {len(data)}"
        )
    at = _HEADER_BYTES
    stored_xyz = np.frombuffer(data, "<f4", count=3 * vertices, offset=at).reshape(-1, 3)
    at += vertices * _BYTES_PER_VERTEX
    pairs = np.frombuffer(data, "<u4", count=2 * edges, offset=at).reshape(-1, 2)
    at += edges * _BYTES_PER_EDGE
    if pairs.size and int(pairs.max()) >= vertices:
        raise _damaged(uri, f"an edge names vertex {int(pairs.max())} of {vertices}")
    radii = np.zeros(vertices, np.float32)
    for attribute in info.vertex_attributes:
        if attribute == RADIUS:
            radii = np.frombuffer(data, "<f4", count=vertices, offset=at).astype(np.float32)
        at += vertices * _bytes_of(attribute)
    positions = _in_nm(stored_xyz, info)
    if not (np.isfinite(positions).all() and np.isfinite(radii).all()):
        raise _damaged(uri, "a position or radius is not finite")
    return Skeleton(positions[:, ::-1].copy(), pairs.astype(np.uint32), radii)


def _bytes_of(attribute: VertexAttribute) -> int:
    return int(np.dtype(attribute.data_type).itemsize) * attribute.components


def _in_nm(stored_xyz: Positions, info: SkeletonInfo) -> Positions:
    if info.transform == IDENTITY:
        return stored_xyz.astype(np.float32)
    rows = np.array(info.transform).reshape(3, 4)
    with np.errstate(over="ignore", invalid="ignore"):
        positions: Positions = (stored_xyz.astype(np.float64) @ rows[:, :3].T + rows[:, 3]).astype(
            np.float32
        )
    return positions


def _damaged(uri: object, reason: object) -> VolumeFormatError:
    return damaged(uri, kind="a precomputed skeleton", reason=reason)
