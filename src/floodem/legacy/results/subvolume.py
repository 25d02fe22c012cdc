"""One subvolume's segmentation as the older programs keep it, ``seg-X_Y_Z.npz``.

In: a file that may be anything, or the labels of a block with their record. Out: a
`Subvolume` of plain values, or a file that those programs' own readers accept.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from floodem.errors import DestinationExistsError, LabelError, VolumeFormatError
from floodem.geometry import FARTHEST_POSITION, Zyx
from floodem.legacy.results.admitted import Array, OriginInfo
from floodem.legacy.results.archive import Archive, open_archive, text_array, write_archive
from floodem.legacy.results.paths import corner_of
from floodem.volumes.damage import in_one_line

SEGMENTATION_KEY = "segmentation"
_ORIGINS, _OVERLAPS, _REQUEST, _COUNTERS = "origins", "overlaps", "request", "counters"
_AXES = 3
_LARGEST_ID = 2**64 - 1
_LABEL_DTYPES = (np.uint8, np.uint16, np.uint32, np.uint64)

Overlaps = Mapping[int, Mapping[int, int]]
"""By segment: the earlier segments that its flood wanted voxels of, and how many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subvolume:
    """What a subvolume's npz file holds.

    Attributes
    ----------
    path
        Where it was read from.
    corner
        Its first voxel, z, y, x, by the file's name; None where that tells none.
    segmentation
        Labels, z, y, x; 0 is background.
    origins
        How each segment began, counted from the corner. Not every segment has one: an
        initial segmentation has none.
    overlaps
        See `Overlaps`; empty where the file has none (before 2018).
    request
        The InferenceRequest that made it, in protobuf's binary form; empty without one.
    counters
        What the run counted, by name; empty without any.
    """

    path: Path
    corner: Zyx | None
    segmentation: Array
    origins: dict[int, OriginInfo]
    overlaps: dict[int, dict[int, int]]
    request: bytes
    counters: dict[str, int | float]


def read_subvolume(path: Path) -> Subvolume:
    """Read a subvolume's npz file; nothing in it is executed.

    Raises
    ------
    VolumeNotFoundError
        When there is no such file.
    VolumeFormatError
        When it is damaged or something else.
    UnsafeFileError
        When it declares absurd sizes, or a pickle in it asks for more than results need.
    LabelError
        When a label is negative.
    ResourceError
        When it does not fit in memory.
    """
    with open_archive(path) as archive:
        archive.require(SEGMENTATION_KEY)
        return Subvolume(
            path=path,
            corner=corner_of(path),
            segmentation=read_labels(archive),
            origins=read_origins_of(archive),
            overlaps=read_overlaps_of(archive),
            request=archive.text(_REQUEST) if _REQUEST in archive.keys else b"",
            counters=read_counters_of(archive),
        )


def read_labels(archive: Archive) -> Array:
    """Return the member ``segmentation`` as unsigned labels, z, y, x.

    Raises
    ------
    VolumeFormatError
        When it is no 3-D array of whole numbers.
    LabelError
        When a label is negative.
    """
    require_label_header(archive)
    labels = archive.numbers(SEGMENTATION_KEY)
    if labels.dtype.kind == "i":
        lowest = int(labels.min(initial=0))
        if lowest < 0:
            raise LabelError(
                f"{archive.path} holds the label {lowest}: labels are not negative, 0 is background"
            )
        labels = labels.view(labels.dtype.str.replace("i", "u"))
    return labels


def require_label_header(archive: Archive) -> tuple[Zyx, np.dtype[Any]]:
    """Return shape (z, y, x) and type of the labels without reading them.

    Raises
    ------
    VolumeFormatError
        When they are no 3-D array of whole numbers.
    """
    header = archive.header(SEGMENTATION_KEY)
    if len(header.shape) != _AXES or header.dtype.kind not in "ui" or not math.prod(header.shape):
        raise VolumeFormatError(
            f"{archive.path} holds {header.dtype} of shape {header.shape} as its segmentation: "
            "expected whole numbers, z, y, x"
        )
    z, y, x = header.shape
    unsigned = np.dtype(f"u{header.dtype.itemsize}")
    return (z, y, x), unsigned


def read_origins_of(archive: Archive) -> dict[int, OriginInfo]:
    """Return the member ``origins`` as plain numbers; empty where there is none.

    Raises
    ------
    VolumeFormatError, UnsafeFileError
        When it holds anything else.
    """
    if _ORIGINS not in archive.keys:
        return {}
    origins: dict[int, OriginInfo] = {}
    for segment, info in _table(archive, _ORIGINS).items():
        if not isinstance(info, tuple) or len(info) != len(OriginInfo._fields):
            raise _odd(archive, _ORIGINS, info)
        start, iters, seconds = info
        position = _whole_numbers(archive, _ORIGINS, start)
        if len(position) != _AXES or max(map(abs, position)) > FARTHEST_POSITION:
            raise _odd(archive, _ORIGINS, start)
        (count,) = _whole_numbers(archive, _ORIGINS, (iters,))
        if not isinstance(seconds, int | float | np.number) or not math.isfinite(seconds):
            raise _odd(archive, _ORIGINS, seconds)
        z, y, x = position
        origins[_id(archive, _ORIGINS, segment)] = OriginInfo((z, y, x), count, float(seconds))
    return origins


def read_overlaps_of(archive: Archive) -> dict[int, dict[int, int]]:
    """Return the member ``overlaps`` as plain numbers; empty where there is none.

    Raises
    ------
    VolumeFormatError, UnsafeFileError
        When it holds anything else.
    """
    if _OVERLAPS not in archive.keys:
        return {}
    overlaps: dict[int, dict[int, int]] = {}
    for segment, pair in _table(archive, _OVERLAPS).items():
        if not is_sequence(pair) or len(pair) != 2:
            raise _odd(archive, _OVERLAPS, pair)
        ids, counts = (_whole_numbers(archive, _OVERLAPS, row) for row in pair)
        if len(ids) != len(counts):
            raise _odd(archive, _OVERLAPS, pair)
        found = {_id(archive, _OVERLAPS, other): n for other, n in zip(ids, counts, strict=True)}
        overlaps[_id(archive, _OVERLAPS, segment)] = found
    return overlaps


def read_counters_of(archive: Archive) -> dict[str, int | float]:
    """Return the member ``counters``; empty where there is none.

    Raises
    ------
    VolumeFormatError
        When it is no JSON object of numbers.
    """
    if _COUNTERS not in archive.keys:
        return {}
    try:
        counters = json.loads(archive.text(_COUNTERS))
    except (ValueError, RecursionError) as error:
        raise VolumeFormatError(
            f"{archive.path} holds counters that are not JSON ({in_one_line(error)}): it is damaged"
        ) from error
    if not isinstance(counters, dict) or not all(
        isinstance(value, int | float) and not isinstance(value, bool)
        for value in counters.values()
    ):
        raise _odd(archive, _COUNTERS, counters)
    return counters


def write_subvolume(
    path: Path,
    *,
    segmentation: Array,
    origins: Mapping[int, OriginInfo],
    overlaps: Overlaps,
    request: bytes,
    counters: Mapping[str, int | float],
    overwrite: bool,
) -> None:
    """Write a subvolume's npz file so that the older programs read it, in one piece.

    Parameters
    ----------
    path
        See `floodem.legacy.results.paths.subvolume_path`. Missing folders are made.
    segmentation
        Labels, z, y, x, not negative; written in the smallest type that holds the largest
        of them.
    origins
        ``start_zyx`` counts from the subvolume's first voxel.
    overlaps
        See `Overlaps`.
    request
        The InferenceRequest in protobuf's binary form.
    counters
        By the names of the older programs.
    overwrite
        Replace an existing file.

    Raises
    ------
    DestinationExistsError
        When there is a file and `overwrite` is not set.
    LabelError
        When a label is negative or no whole number.
    StorageError
        When the file system refuses; what was there before is still there.
    """
    require_free(path, overwrite=overwrite)
    write_archive(
        path,
        {
            SEGMENTATION_KEY: smallest_labels(segmentation),
            _ORIGINS: plain_origins(origins),
            _OVERLAPS: plain_overlaps(overlaps),
            _REQUEST: text_array(request),
            _COUNTERS: json.dumps(dict(counters)),
        },
    )


def require_free(path: Path, *, overwrite: bool) -> None:
    """Refuse to write over a file unless that is wished.

    Raises
    ------
    DestinationExistsError
        When there is one.
    """
    if path.exists() and not overwrite:
        raise DestinationExistsError(
            f"{path} exists already and was left as it is: choose another folder, or --overwrite"
        )


def smallest_labels(labels: Array) -> Array:
    """Return labels in the smallest of uint8, uint16, uint32 and uint64 that holds them.

    Raises
    ------
    LabelError
        When one is negative or no whole number.
    """
    low, high = (int(labels.min(initial=0)), int(labels.max(initial=0)))
    if labels.dtype.kind not in "ui" or low < 0:
        raise LabelError(
            f"labels of type {labels.dtype} from {low}: a segmentation holds whole numbers from 0"
        )
    return labels.astype(next(dtype for dtype in _LABEL_DTYPES if high <= np.iinfo(dtype).max))


def plain_origins(origins: Mapping[int, OriginInfo]) -> dict[int, OriginInfo]:
    """Return origins of Python numbers only, ready to be pickled."""
    return {
        int(segment): OriginInfo(
            (int(info[0][0]), int(info[0][1]), int(info[0][2])), int(info[1]), float(info[2])
        )
        for segment, info in origins.items()
    }


def plain_overlaps(overlaps: Overlaps) -> dict[int, Array]:
    """Return overlaps as the older programs keep them: for each segment [ids, counts]."""
    return {
        int(segment): np.array([list(found), list(found.values())], np.int64).reshape(2, -1)
        for segment, found in overlaps.items()
    }


def is_sequence(value: Any) -> bool:
    """Tell whether a value has members: a list, a tuple, an array that is no single number."""
    return isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim > 0)


def _table(archive: Archive, key: str) -> dict[Any, Any]:
    table = archive.value(key)
    if not isinstance(table, dict):
        raise _odd(archive, key, table)
    return table


def _id(archive: Archive, key: str, value: Any) -> int:
    (number,) = _whole_numbers(archive, key, (value,))
    if not 0 <= number <= _LARGEST_ID:
        raise _odd(archive, key, value)
    return number


def _whole_numbers(archive: Archive, key: str, values: Any) -> list[int]:
    """Return values that are whole numbers, even where they are stored as real ones."""
    if not is_sequence(values):
        raise _odd(archive, key, values)
    found = []
    for value in values:
        if not isinstance(value, int | float | np.number) or not math.isfinite(value):
            raise _odd(archive, key, value)
        if int(value) != value:
            raise _odd(archive, key, value)
        found.append(int(value))
    return found


def _odd(archive: Archive, key: str, value: Any) -> VolumeFormatError:
    return VolumeFormatError(
        f"{archive.path} holds {in_one_line(type(value).__name__)} where {key} has "
        "other values: it is damaged, or no result of the older program"
    )
