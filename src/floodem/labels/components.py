"""Objects that hang together: a label array in, one id per connected piece out.

Two voxels belong to one component when a path of neighbours with the same label
joins them: face neighbours (connectivity 6), or edge and corner neighbours as well
(26). Uses connected-components-3d where it is installed and scipy's graph search
over runs of voxels where it is not; both give the same ids.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np

from floodem.errors import GeometryError
from floodem.labels.relabel import label_dtype, relabel
from floodem.labels.runs import Labels, require_labels, runs

Connectivity = Literal[6, 26]

_NEXT_ROWS: dict[Connectivity, tuple[tuple[int, int], ...]] = {
    6: ((0, 1), (1, 0)),
    26: ((0, 1), (1, -1), (1, 0), (1, 1)),
}
"""Steps (z, y) from a row of voxels to those rows that touch it and come later."""


def components(labels: Labels, *, connectivity: Connectivity = 6) -> tuple[Labels, int]:
    """Give every connected piece of every object its own id.

    Parameters
    ----------
    labels
        Label array (z, y, x); 0 is background and stays 0.
    connectivity
        6: voxels hang together by faces; 26: by faces, edges and corners.

    Returns
    -------
    components
        uint32 (uint64 where needed), numbered 1..n by the first voxel in C order.
    count
        The number n of components.

    Raises
    ------
    GeometryError
        When the array is not 3-D.
    LabelError
        When a value is negative or not an integer.
    """
    return _number_by_first_voxel(connected_pieces(labels, connectivity=connectivity))


def connected_pieces(labels: Labels, *, connectivity: Connectivity) -> Labels:
    """Do what `components` does, with numbers in any order.

    Raises
    ------
    GeometryError, LabelError
        As `components`.
    """
    if labels.ndim != 3:
        raise GeometryError(f"array of shape {labels.shape} is not 3-D: give z, y, x")
    require_labels(labels, what="the array")
    unsigned = np.ascontiguousarray(labels).astype(f"u{labels.dtype.itemsize}", copy=False)
    try:
        import cc3d
    except ImportError:
        return _components_by_graph(unsigned, connectivity=connectivity)
    pieces: Labels = cc3d.connected_components(
        unsigned, connectivity=connectivity, out_dtype=label_dtype(unsigned.size)
    )
    return pieces


def _components_by_graph(labels: Labels, *, connectivity: Connectivity) -> Labels:
    """Join the runs of all rows that touch across y or z, with scipy alone."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    is_start = np.ones(labels.shape, dtype=np.bool_)
    is_start[..., 1:] = labels[..., 1:] != labels[..., :-1]
    run = np.cumsum(is_start.reshape(-1), dtype=np.int64).reshape(labels.shape) - 1
    edges = [np.zeros((2, 0), np.int64)]
    for row, next_row in _touching_rows(connectivity):
        # Two runs that touch do so first where one of them starts; the rest repeats it.
        touch = (labels[row] == labels[next_row]) & (is_start[row] | is_start[next_row])
        touch &= labels[row] != 0
        edges.append(np.stack([run[row][touch], run[next_row][touch]]))
        if connectivity == 6:
            continue
        for here, there in ((row, next_row), (next_row, row)):
            # Across a corner, one run ends where the other starts.
            before, after = labels[here][..., :-1], labels[there][..., 1:]
            touch = (before == after) & (before != 0)
            touch &= is_start[here][..., 1:] & is_start[there][..., 1:]
            edges.append(np.stack([run[here][..., :-1][touch], run[there][..., 1:][touch]]))
    ends = np.concatenate(edges, axis=1)
    count = int(np.count_nonzero(is_start))
    graph = coo_array((np.ones(ends.shape[1], np.int8), (ends[0], ends[1])), shape=(count, count))
    _, piece_of_run = connected_components(graph, directed=False)
    values = labels[is_start]
    piece_of_run = np.where(values != 0, piece_of_run.astype(np.uint64) + np.uint64(1), 0)
    pieces: Labels = piece_of_run.astype(np.uint64)[run]
    return pieces


def _touching_rows(
    connectivity: Connectivity,
) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """Yield, for each direction, all rows that have a next row there, and those next rows."""
    for dz, dy in _NEXT_ROWS[connectivity]:
        # A negative stop counts from the end; 0 would, too, and is no stop at all.
        low_z, high_z = slice(0, -dz or None), slice(dz, None)
        low_y, high_y = (
            slice(max(-dy, 0), -max(dy, 0) or None),
            slice(max(dy, 0), min(dy, 0) or None),
        )
        yield (low_z, low_y), (high_z, high_y)


def _number_by_first_voxel(pieces: Labels) -> tuple[Labels, int]:
    starts, _ = runs(pieces)
    ids, firsts = np.unique(pieces.reshape(-1)[starts], return_index=True)
    ids, firsts = ids[ids != 0].astype(np.uint64), firsts[ids != 0]
    order = np.argsort(firsts)
    new_ids = np.arange(1, len(ids) + 1, dtype=np.uint64)
    return relabel(pieces, old_ids=ids[order], new_ids=new_ids), len(ids)
