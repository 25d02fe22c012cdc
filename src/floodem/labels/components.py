"""Objects that hang together: a label array in, one id per connected piece out.

Two voxels belong to one component when a path of face neighbours with the same
label joins them (6-connectivity). Uses connected-components-3d where it is
installed and scipy's graph search over runs of voxels where it is not; both give
the same ids.
"""

from __future__ import annotations

import numpy as np

from floodem.errors import GeometryError
from floodem.labels.relabel import label_dtype, relabel
from floodem.labels.runs import Labels, require_labels, runs


def components(labels: Labels) -> tuple[Labels, int]:
    """Give every 6-connected piece of every object its own id.

    Parameters
    ----------
    labels
        Label array (z, y, x); 0 is background and stays 0.

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
    if labels.ndim != 3:
        raise GeometryError(f"array of shape {labels.shape} is not 3-D: give z, y, x")
    require_labels(labels, what="the array")
    unsigned = np.ascontiguousarray(labels).astype(f"u{labels.dtype.itemsize}", copy=False)
    try:
        import cc3d
    except ImportError:
        pieces = _components_by_graph(unsigned)
    else:
        pieces = cc3d.connected_components(
            unsigned, connectivity=6, out_dtype=label_dtype(unsigned.size)
        )
    return _number_by_first_voxel(pieces)


def _components_by_graph(labels: Labels) -> Labels:
    """Join the runs of all rows that touch across y or z, with scipy alone."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    is_start = np.ones(labels.shape, dtype=np.bool_)
    is_start[..., 1:] = labels[..., 1:] != labels[..., :-1]
    run = np.cumsum(is_start.reshape(-1), dtype=np.int64).reshape(labels.shape) - 1
    edges = [np.zeros((2, 0), np.int64)]
    for axis in (0, 1):
        low, high = [slice(None)] * 3, [slice(None)] * 3
        low[axis], high[axis] = slice(None, -1), slice(1, None)
        below, above = tuple(low), tuple(high)
        # Two runs that touch do so first where one of them starts; the rest repeats it.
        touch = (labels[below] == labels[above]) & (is_start[below] | is_start[above])
        touch &= labels[below] != 0
        edges.append(np.stack([run[below][touch], run[above][touch]]))
    ends = np.concatenate(edges, axis=1)
    count = int(np.count_nonzero(is_start))
    graph = coo_array((np.ones(ends.shape[1], np.int8), (ends[0], ends[1])), shape=(count, count))
    _, piece_of_run = connected_components(graph, directed=False)
    values = labels[is_start]
    piece_of_run = np.where(values != 0, piece_of_run.astype(np.uint64) + np.uint64(1), 0)
    pieces: Labels = piece_of_run.astype(np.uint64)[run]
    return pieces


def _number_by_first_voxel(pieces: Labels) -> tuple[Labels, int]:
    starts, _ = runs(pieces)
    ids, firsts = np.unique(pieces.reshape(-1)[starts], return_index=True)
    ids, firsts = ids[ids != 0].astype(np.uint64), firsts[ids != 0]
    order = np.argsort(firsts)
    new_ids = np.arange(1, len(ids) + 1, dtype=np.uint64)
    return relabel(pieces, old_ids=ids[order], new_ids=new_ids), len(ids)
