"""Results of the inference under the names that old notebooks and snippets call.

A folder of results and a corner (z, y, x) come in; labels and origins go out as the old
``ffn.inference.storage`` gave them. `floodem legacy --layout` writes a package of that
name, which passes these on. New code reads results by `floodem.legacy.results`.
"""

# Signatures are those that old snippets call, by position and by keyword: the house rules
# of few positional arguments and no positional booleans do not bind them.
# ruff: noqa: FBT001, FBT002, PLR0917

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, UInt8, UInt64

from floodem.errors import OptionError, VolumeFormatError, VolumeNotFoundError
from floodem.geometry import Zyx
from floodem.labels import components, sizes
from floodem.legacy.results import (
    OriginInfo,
    corner_of,
    existing_path,
    find_subvolumes,
    read_subvolume,
    write_subvolume,
)
from floodem.legacy.results import subvolume_path as _subvolume_path
from floodem.legacy.results.cpoint import read_cpoint
from floodem.legacy.results.paths import CHECKPOINT, PROBABILITY, SEGMENTATION
from floodem.legacy.results.probabilities import dequantise, quantise, read_probabilities

__all__ = [
    "NoResultError",
    "OriginInfo",
    "checkpoint_path",
    "dequantize_probability",
    "get_corner_from_path",
    "get_existing_corners",
    "get_existing_subvolume_path",
    "legacy_object_prob_path",
    "legacy_segmentation_path",
    "legacy_subvolume_path",
    "load_origins",
    "load_segmentation",
    "object_prob_path",
    "quantize_probability",
    "save_subvolume",
    "segmentation_path",
    "subvolume_path",
]

_AXES = 3

Labels = UInt64[np.ndarray, "z y x"]
Origins = dict[int, OriginInfo]


class NoResultError(VolumeNotFoundError, ValueError):
    """No result of a subvolume; a ValueError, as old snippets catch it."""


def load_segmentation(
    segmentation_dir: str | Path,
    corner: Sequence[int],
    allow_cpoint: bool = False,
    threshold: float | None = None,
    split_cc: bool = True,
    min_size: int = 0,
    mask_config: Any = None,
) -> tuple[Labels, Origins]:
    """Return the labels of a subvolume, and how each segment began.

    Parameters
    ----------
    segmentation_dir
        Folder of results, in either layout.
    corner
        First voxel of the subvolume, z, y, x.
    allow_cpoint
        Take the checkpoint of a run that was stopped where there is no result yet.
    threshold
        Leave out voxels whose probability is below it; needs the ``.prob`` file.
    split_cc
        Give every 6-connected piece an id of its own, 1..n by its first voxel.
    min_size
        Leave out segments with fewer voxels.
    mask_config
        Not served: mask the array instead.

    Returns
    -------
    labels
        z, y, x; 0 is background.
    origins
        By id in the labels, for segments that have one; `start_zyx` counts from the
        corner. Pieces share the origin of the segment they were.

    Raises
    ------
    NoResultError
        When there is no result, or no probabilities where a threshold needs them.
    OptionError
        When a mask is given, or the corner is not three numbers.
    FloodemError
        As `read_subvolume`.
    """
    if mask_config is not None:
        raise OptionError("mask_config is not served: set the masked voxels of the array to 0")
    folder, place = Path(segmentation_dir), _zyx(corner)
    found, origins = _read(folder, place, allow_cpoint=allow_cpoint)
    labels = found.astype(np.uint64)
    if threshold is not None:
        labels[_read_probabilities(folder, place) < np.float32(threshold)] = 0
    before = labels
    if split_cc:
        labels = components(before)[0].astype(np.uint64)
    if min_size:
        ids, voxels = sizes(labels)
        labels[np.isin(labels, ids[voxels < min_size])] = 0
    kept, firsts = np.unique(labels, return_index=True)
    was = before.reshape(-1)[firsts]
    return labels, {
        int(new): origins[int(old)]
        for new, old in zip(kept, was, strict=True)
        if new and int(old) in origins
    }


def load_origins(segmentation_dir: str | Path, corner: Sequence[int]) -> Origins:
    """Return how each segment of a subvolume began.

    Raises
    ------
    NoResultError
        When there is no result.
    """
    return _read(Path(segmentation_dir), _zyx(corner), allow_cpoint=False)[1]


def subvolume_path(output_dir: str | Path, corner: Sequence[int], suffix: str) -> str:
    """Return where a file of a subvolume belongs: ``DIR/x/y/seg-x_y_z.SUFFIX``.

    The suffix is ``npz``, ``prob`` or ``cpoint``, with or without its dot.
    """
    return str(_subvolume_path(Path(output_dir), _zyx(corner), suffix=_dotted(suffix)))


def legacy_subvolume_path(output_dir: str | Path, corner: Sequence[int], suffix: str) -> str:
    """Return where older runs kept it: ``DIR/seg-x_y_z.SUFFIX``."""
    return str(_subvolume_path(Path(output_dir), _zyx(corner), suffix=_dotted(suffix), flat=True))


def segmentation_path(output_dir: str | Path, corner: Sequence[int]) -> str:
    """Return where a subvolume's labels belong."""
    return subvolume_path(output_dir, corner, SEGMENTATION)


def legacy_segmentation_path(output_dir: str | Path, corner: Sequence[int]) -> str:
    """Return where older runs kept a subvolume's labels."""
    return legacy_subvolume_path(output_dir, corner, SEGMENTATION)


def object_prob_path(output_dir: str | Path, corner: Sequence[int]) -> str:
    """Return where a subvolume's probabilities belong."""
    return subvolume_path(output_dir, corner, PROBABILITY)


def legacy_object_prob_path(output_dir: str | Path, corner: Sequence[int]) -> str:
    """Return where older runs kept a subvolume's probabilities."""
    return legacy_subvolume_path(output_dir, corner, PROBABILITY)


def checkpoint_path(output_dir: str | Path, corner: Sequence[int]) -> str:
    """Return where the checkpoint of a subvolume's run belongs."""
    return subvolume_path(output_dir, corner, CHECKPOINT)


def save_subvolume(
    labels: np.ndarray[Any, np.dtype[Any]],
    origins: Mapping[int, OriginInfo],
    output_path: str | Path,
    **misc_items: Any,
) -> None:
    """Write a subvolume's file of labels, in place of one that is there.

    Parameters
    ----------
    labels
        z, y, x, not negative; written in the smallest type that holds them.
    origins
        By id; `start_zyx` counts from the corner.
    output_path
        See `segmentation_path`.
    misc_items
        ``request`` (bytes), ``counters`` (by name, or their JSON) and ``overlaps`` (by
        id: the ids and the counts); each may be left out.

    Raises
    ------
    OptionError
        When another item is given.
    VolumeFormatError
        When counters are not JSON.
    FloodemError
        As `write_subvolume`.
    """
    unknown = sorted(misc_items.keys() - {"request", "counters", "overlaps"})
    if unknown:
        raise OptionError(
            f"{unknown[0]} has no place in {output_path}: request, counters and overlaps have"
        )
    counters = misc_items.get("counters", {})
    if isinstance(counters, str | bytes):
        try:
            counters = json.loads(counters)
        except ValueError as error:
            raise VolumeFormatError(
                f"counters are not JSON ({error}): give them by name"
            ) from error
    write_subvolume(
        Path(output_path),
        segmentation=np.asarray(labels),
        origins=origins,
        overlaps={
            int(segment): _counts(pair) for segment, pair in misc_items.get("overlaps", {}).items()
        },
        request=misc_items.get("request", b""),
        counters=counters,
        overwrite=True,
    )


def get_existing_subvolume_path(
    segmentation_dir: str | Path, corner: Sequence[int], allow_cpoint: bool = False
) -> str | None:
    """Return a subvolume's file of labels in either layout, or None."""
    found = _existing(Path(segmentation_dir), _zyx(corner), allow_cpoint=allow_cpoint)
    return None if found is None else str(found)


def get_corner_from_path(path: str | Path) -> Zyx:
    """Return the corner (z, y, x) that a file's name tells.

    Raises
    ------
    OptionError
        When it tells none; it is a ValueError.
    """
    corner = corner_of(Path(path))
    if corner is None:
        raise OptionError(f"{path} is not named like a result: seg-X_Y_Z.npz is, for example")
    return corner


def get_existing_corners(segmentation_dir: str | Path) -> list[Zyx]:
    """Return the corners (z, y, x) of all results in a folder, sorted.

    Raises
    ------
    NoResultError
        When there is none.
    """
    try:
        return [one.corner for one in find_subvolumes(Path(segmentation_dir))]
    except VolumeNotFoundError as error:
        raise NoResultError(str(error)) from error


def quantize_probability(
    prob: Float[np.ndarray, "*shape"],
) -> UInt8[np.ndarray, "*shape"]:
    """Return probabilities in the levels 1 to 255; NaN, a voxel without one, is 0."""
    return quantise(prob)


def dequantize_probability(prob: UInt8[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
    """Return the probabilities of levels; NaN for 0."""
    return dequantise(prob)


def _dotted(suffix: str) -> str:
    return suffix if suffix.startswith(".") else f".{suffix}"


def _counts(pair: Any) -> dict[int, int]:
    if isinstance(pair, Mapping):
        return {int(other): int(count) for other, count in pair.items()}
    ids, counts = pair
    return {int(other): int(count) for other, count in zip(ids, counts, strict=True)}


def _existing(folder: Path, corner: Zyx, *, allow_cpoint: bool) -> Path | None:
    found = existing_path(folder, corner)
    if found is None and allow_cpoint:
        found = existing_path(folder, corner, suffix=CHECKPOINT)
    return found


def _read(
    folder: Path, corner: Zyx, *, allow_cpoint: bool
) -> tuple[np.ndarray[Any, np.dtype[Any]], Origins]:
    path = _existing(folder, corner, allow_cpoint=allow_cpoint)
    if path is None:
        z, y, x = corner
        raise NoResultError(
            f"{folder} holds no result at {z},{y},{x} (z,y,x): expected "
            f"{_subvolume_path(folder, corner)}"
        )
    if path.suffix == SEGMENTATION:
        result = read_subvolume(path)
        return result.segmentation, result.origins
    checkpoint = read_cpoint(path)
    # Negative voxels mark where a flood was given up, and are in no segment.
    return np.maximum(checkpoint.segmentation, 0), checkpoint.origins


def _read_probabilities(folder: Path, corner: Zyx) -> Float32[np.ndarray, "z y x"]:
    path = existing_path(folder, corner, suffix=PROBABILITY)
    if path is None:
        wanted = _subvolume_path(folder, corner, suffix=PROBABILITY)
        raise NoResultError(
            f"a threshold needs probabilities, and {wanted} is not there: leave threshold out"
        )
    return dequantise(read_probabilities(path))


def _zyx(corner: Sequence[int]) -> Zyx:
    if len(corner) != _AXES:
        raise OptionError(f"corner {tuple(corner)} is not z, y, x: give three numbers")
    z, y, x = (int(one) for one in corner)
    return (z, y, x)
