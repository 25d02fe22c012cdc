"""Label arrays as runs of equal voxels: arrays in, run starts and lengths out.

Labels change rarely along a row, so that sorting and counting runs instead of
voxels makes plain numpy as fast as a hash table (docs/decisions/0003-scores.md).
Every counting function of this package begins here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from floodem.errors import LabelError

Labels = np.ndarray[Any, np.dtype[Any]]
Ids = np.ndarray[Any, np.dtype[np.uint64]]
Counts = np.ndarray[Any, np.dtype[np.int64]]


def require_labels(labels: Labels, *, what: str) -> None:
    """Refuse an array that cannot hold labels.

    Parameters
    ----------
    labels
        Array of any shape.
    what
        What the array is, for the message: "the segmentation em.zarr".

    Raises
    ------
    LabelError
        When the values are not integers, or one of them is negative.
    """
    if labels.dtype.kind not in "ui":
        raise LabelError(
            f"{what} holds {labels.dtype} values, which are no labels: "
            "give a volume of unsigned integers, 0 for background"
        )
    if labels.dtype.kind == "i" and labels.size and int(labels.min()) < 0:
        raise LabelError(
            f"{what} holds the negative label {labels.min()}: labels are 0 (background) or positive"
        )


def runs(*arrays: Labels) -> tuple[Counts, Counts]:
    """Cut arrays of one shape into runs over which all of them are constant.

    Returns
    -------
    starts, lengths
        Index of each run's first element in C order, and its number of
        elements. Runs go on from one row to the next; an empty array has none.
    """
    size = arrays[0].size
    if size == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    is_start = np.zeros(size, dtype=np.bool_)
    is_start[0] = True
    for array in arrays:
        flat = array.reshape(-1)
        is_start[1:] |= flat[1:] != flat[:-1]
    starts = np.flatnonzero(is_start)
    return starts, np.diff(starts, append=size)


def sizes(labels: Labels) -> tuple[Ids, Counts]:
    """Return the ids in a label array, ascending, and how many voxels each has.

    Raises
    ------
    LabelError
        When a value is negative or not an integer.
    """
    require_labels(labels, what="the array")
    starts, lengths = runs(labels)
    ids, inverse = np.unique(labels.reshape(-1)[starts], return_inverse=True)
    counts = np.zeros(len(ids), np.int64)
    np.add.at(counts, inverse, lengths)
    return ids.astype(np.uint64), counts
