"""Other numbers for the same objects: label arrays in, label arrays out.

Every function here is a bijection on the ids that occur and leaves 0 alone, and
none makes an integer type narrower than its largest id.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from floodem.errors import LabelError
from floodem.labels.runs import Ids, Labels, require_labels, runs, sizes


def label_dtype(largest_id: int) -> np.dtype[Any]:
    """Return uint32 where it holds `largest_id`, else uint64.

    Raises
    ------
    LabelError
        When the id is negative or does not fit uint64 either.
    """
    if not 0 <= largest_id <= np.iinfo(np.uint64).max:
        raise LabelError(f"id {largest_id} is not a label: labels are 0 to 2**64 - 1")
    fits = largest_id <= np.iinfo(np.uint32).max
    return np.dtype(np.uint32) if fits else np.dtype(np.uint64)


def relabel(labels: Labels, *, old_ids: Ids, new_ids: Ids) -> Labels:
    """Give every object its new id.

    Parameters
    ----------
    labels
        Label array of any shape.
    old_ids, new_ids
        uint64; voxels of ``old_ids[i]`` become ``new_ids[i]``. Both hold each id
        once and never 0, which stays 0.

    Returns
    -------
    array
        Of the shape of `labels`, uint32 or uint64 by the largest of `new_ids`.

    Raises
    ------
    LabelError
        When an id occurs twice or is 0, or a label is not among `old_ids`.
    """
    require_labels(labels, what="the array")
    for name, ids in (("old_ids", old_ids), ("new_ids", new_ids)):
        if len(ids) != len(old_ids) or len(np.unique(ids)) != len(ids) or np.any(ids == 0):
            raise LabelError(f"{name} must hold {len(old_ids)} different ids, none of them 0")
    zero = np.zeros(1, np.uint64)
    order = np.argsort(old_ids)
    known = np.concatenate([zero, old_ids[order].astype(np.uint64)])
    wanted = np.concatenate([zero, new_ids[order].astype(np.uint64)])
    starts, lengths = runs(labels)
    values = labels.reshape(-1)[starts].astype(np.uint64)
    rows = np.minimum(np.searchsorted(known, values), len(known) - 1)
    unknown = known[rows] != values
    if np.any(unknown):
        raise LabelError(f"label {values[unknown][0]} has no new id: add it to old_ids")
    renamed = wanted[rows].astype(label_dtype(int(wanted.max())))
    return np.repeat(renamed, lengths).reshape(labels.shape)


def compact(labels: Labels) -> tuple[Labels, Ids]:
    """Give the objects the numbers 1..n in the order of their ids.

    Returns
    -------
    labels
        uint32 (uint64 where n needs it), 0 where it was 0.
    old_ids
        uint64, length n: object ``i + 1`` was ``old_ids[i]``.

    Raises
    ------
    LabelError
        When a value is negative or not an integer.
    """
    ids, _ = sizes(labels)
    old_ids = ids[ids != 0]
    new_ids = np.arange(1, len(old_ids) + 1, dtype=np.uint64)
    return relabel(labels, old_ids=old_ids, new_ids=new_ids), old_ids
