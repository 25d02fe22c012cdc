"""An index of large boxes becomes one of their parts: runs in, those inside out, page by page.

So partitions that were made once serve runs that train on a part of them. Pages that
lie inside a part keep their runs as they are; only those across its faces are unpacked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from jaxtyping import Int64, UInt8, UInt32

from floodem.geometry import Box
from floodem.training.coordinates.index import SEGMENT_COLUMNS, CoordinateIndex
from floodem.training.coordinates.pages import (
    EXCLUDED,
    PAGE_SHAPE,
    PAGE_VOXELS,
    pack_page,
    page_box,
    unpack,
)

_Packed = tuple[Int64[np.ndarray, "kept_segments 5"], UInt32[np.ndarray, "kept_runs"]]


def narrowed(index: CoordinateIndex, parts: Mapping[str, Box]) -> CoordinateIndex:
    """Return an index, in memory, of only those centres that lie in some parts.

    Parameters
    ----------
    index
        The centres there are.
    parts
        By volume, in its own frame; a volume without a part keeps all its centres.

    Raises
    ------
    VolumeFormatError
        When the index is damaged.
    """
    runs_end = np.cumsum(index.segments[:, SEGMENT_COLUMNS.index("runs")])
    kept: list[_Packed] = []
    changes = np.any(np.diff(index.segments[:, :2], axis=0) != 0, axis=1)
    firsts = np.flatnonzero(np.append(True, changes))[: len(index.segments)]
    for first, last in zip(firsts, [*firsts[1:], len(index.segments)], strict=True):
        rows = index.segments[first:last]
        words = index.words[int(runs_end[first] - rows[0, 3]) : int(runs_end[last - 1])]
        volume = index.volumes[int(rows[0, 0])]
        page, part = page_box(volume.box, int(rows[0, 1])), parts.get(volume.name)
        if part is None or part.contains(page):
            kept.append((rows, np.asarray(words)))
        elif page.intersection(part) is not None:
            kept.append(_cut(index, rows, np.asarray(words), page=page, part=part))
    return replace(
        index,
        volumes=tuple(replace(one, part=parts.get(one.name, one.part)) for one in index.volumes),
        segments=np.concatenate(
            [np.zeros((0, len(SEGMENT_COLUMNS)), np.int64), *(rows for rows, _ in kept)]
        ),
        words=np.concatenate([np.zeros(0, np.uint32), *(words for _, words in kept)]),
    )


def _cut(
    index: CoordinateIndex,
    rows: Int64[np.ndarray, "segments 5"],
    words: UInt32[np.ndarray, "runs"],
    *,
    page: Box,
    part: Box,
) -> _Packed:
    """Return the segments of one page without the voxels outside a part."""
    seen = page.intersection(part)
    assert seen is not None
    place = seen.slices(origin=page.start)
    starts = tuple(at.start for at in place)
    packed, left = pack_page(
        _partitions(index, rows, words)[place], start=(starts[0], starts[1], starts[2])
    )
    return np.concatenate([rows[:1, :2].repeat(len(packed), axis=0), packed], axis=1), left


def _partitions(
    index: CoordinateIndex,
    rows: Int64[np.ndarray, "segments 5"],
    words: UInt32[np.ndarray, "runs"],
) -> UInt8[np.ndarray, "z y x"]:
    """Return the partitions of all voxels of a page."""
    starts, lengths = unpack(words)
    if np.any(starts + lengths > PAGE_VOXELS):
        raise index.damaged()
    flat = np.full(PAGE_VOXELS, EXCLUDED, np.uint8)
    within = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    values = np.repeat(rows[:, 2], rows[:, 3]).astype(np.uint8)
    flat[np.repeat(starts, lengths) + within] = np.repeat(values, lengths)
    return flat.reshape(PAGE_SHAPE)
