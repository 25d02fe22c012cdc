"""A subvolume half segmented, as the older programs keep it, ``seg-X_Y_Z.cpoint``.

In: a file that may be anything. Out: a `Checkpoint` of plain values; or such values, and
out comes a file from which those programs' own ``restore_checkpoint`` goes on. How our
floods become one, and go on from one, is in `floodem.legacy.results.resuming`.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32, Int64, UInt8

from floodem.errors import VolumeFormatError
from floodem.geometry import FARTHEST_POSITION, Zyx
from floodem.legacy.results.admitted import Array, OriginInfo
from floodem.legacy.results.archive import Archive, open_archive, write_archive
from floodem.legacy.results.subvolume import (
    is_sequence,
    plain_origins,
    plain_overlaps,
    read_counters_of,
    read_origins_of,
    read_overlaps_of,
    require_free,
)

_MOVEMENT, _SEGMENTATION, _LOGITS, _PROBABILITY = (
    "movement_policy",
    "segmentation",
    "seed",
    "seg_qprob",
)
_SEEDS, _CALLS, _HOSTS = "seed_policy_state", "partial_segment_iters", "hosts"
_HISTORY, _DELETED, _LOW, _HIGH = "history", "history_deleted", "min_pos", "max_pos"
_NEEDED = (_MOVEMENT, _SEGMENTATION, _LOGITS, _PROBABILITY, "origins", _SEEDS)
_AXES = 3

Waiting = tuple[float, Zyx]
"""A position that a flood still wants to go to, with the logit that it was found for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What a ``.cpoint`` file holds; positions are z, y, x from the subvolume's corner.

    Attributes
    ----------
    segmentation
        Segments so far; -1 at seeds that came to nothing.
    logits
        Of the flood that was under way; NaN where it had not been.
    probability
        Quantised, see `floodem.legacy.results.probabilities`.
    origins, overlaps
        Of the segments so far.
    waiting, visited
        Where the flood still wants to go, and which cells of its grid it has been in.
    low, high
        Smallest and largest visited position, or None.
    history, deleted
        Positions of the flood, and how many voxels each step took back; often empty.
    seeds, next_seed
        All seeds and which of them comes next; None when they were not yet looked for.
    calls
        Network calls of the flood under way; None in files of before 2020, whose
        `next_seed` is the one after the seed of that flood.
    counters
        By their old names.
    hosts
        Machines that have worked on it.
    """

    segmentation: Int32[np.ndarray, "z y x"]
    logits: Float32[np.ndarray, "z y x"]
    probability: UInt8[np.ndarray, "z y x"]
    origins: dict[int, OriginInfo]
    overlaps: dict[int, dict[int, int]]
    waiting: tuple[Waiting, ...]
    visited: frozenset[Zyx]
    low: Zyx | None = None
    high: Zyx | None = None
    history: Int64[np.ndarray, "steps 3"] = field(
        default_factory=lambda: np.empty((0, _AXES), np.int64)
    )
    deleted: Int64[np.ndarray, "steps_with_history"] = field(
        default_factory=lambda: np.empty(0, np.int64)
    )
    seeds: Int64[np.ndarray, "n 3"] | None
    next_seed: int
    calls: int | None
    counters: dict[str, int | float]
    hosts: tuple[str, ...] = ()


def read_cpoint(path: Path) -> Checkpoint:
    """Read a ``.cpoint`` file; nothing in it is executed.

    Raises
    ------
    VolumeNotFoundError
        When there is no such file.
    VolumeFormatError
        When it is damaged or something else.
    UnsafeFileError
        When it declares absurd sizes, or a pickle in it asks for more than results need.
    ResourceError
        When it does not fit in memory.
    """
    with open_archive(path) as archive:
        archive.require(*_NEEDED)
        shape = _require_block(archive)
        waiting, visited = _movement(archive)
        seeds, next_seed = _seeds(archive)
        return Checkpoint(
            segmentation=archive.numbers(_SEGMENTATION),
            logits=archive.numbers(_LOGITS),
            probability=archive.numbers(_PROBABILITY),
            origins=read_origins_of(archive),
            overlaps=read_overlaps_of(archive),
            waiting=waiting,
            visited=visited,
            low=_corner(archive, _LOW),
            high=_corner(archive, _HIGH),
            history=_rows(archive, _HISTORY, columns=_AXES),
            deleted=_rows(archive, _DELETED, columns=1)[:, 0],
            seeds=seeds,
            next_seed=next_seed,
            calls=_calls(archive, most=int(np.prod(shape))),
            counters=read_counters_of(archive),
            hosts=_hosts(archive),
        )


def write_cpoint(path: Path, checkpoint: Checkpoint, *, overwrite: bool) -> None:
    """Write a ``.cpoint`` file from which the older programs go on, in one piece.

    Parameters
    ----------
    path
        See `floodem.legacy.results.paths.subvolume_path`. Missing folders are made.
    overwrite
        Replace an existing file.

    Raises
    ------
    DestinationExistsError
        When there is a file and `overwrite` is not set.
    StorageError
        When the file system refuses; what was there before is still there.
    """
    require_free(path, overwrite=overwrite)
    one = checkpoint
    waiting = deque((score, list(position)) for score, position in one.waiting)
    seeds: Array = np.empty((), object)
    if one.seeds is not None:
        seeds = _objects(one.seeds, one.next_seed)
    members: dict[str, Any] = {
        _MOVEMENT: _objects(waiting, set(one.visited)).reshape(1, 2),
        _SEGMENTATION: one.segmentation,
        _LOGITS: one.logits,
        _PROBABILITY: one.probability,
        "origins": plain_origins(one.origins),
        "overlaps": plain_overlaps(one.overlaps),
        _LOW: np.array(one.low or (0,) * _AXES),
        _HIGH: np.array(one.high or (0,) * _AXES),
        _HISTORY: one.history,
        _DELETED: one.deleted,
        _SEEDS: seeds,
        "counters": json.dumps(one.counters),
        _HOSTS: np.array(one.hosts, str) if one.hosts else np.empty(0, "<U1"),
    }
    if one.calls is not None:
        members[_CALLS] = np.array(one.calls)
    write_archive(path, members)


def _objects(*values: Any) -> Array:
    """Return an array of objects; numpy would look into them for numbers."""
    array: Array = np.empty(len(values), object)
    for index, value in enumerate(values):
        array[index] = value
    return array


def _require_block(archive: Archive) -> Zyx:
    """Refuse arrays that do not fit each other, before any of them is read."""
    headers = [archive.header(key) for key in (_SEGMENTATION, _LOGITS, _PROBABILITY)]
    kinds = [header.dtype.newbyteorder("=") for header in headers]
    shape = headers[0].shape
    if len(shape) != _AXES or any(header.shape != shape for header in headers):
        shapes = ", ".join(str(header.shape) for header in headers)
        raise _odd(archive, f"arrays of shapes {shapes}")
    if kinds != [np.dtype(np.int32), np.dtype(np.float32), np.dtype(np.uint8)]:
        raise _odd(archive, "arrays of types " + ", ".join(map(str, kinds)))
    z, y, x = shape
    return (z, y, x)


def _movement(archive: Archive) -> tuple[tuple[Waiting, ...], frozenset[Zyx]]:
    state = archive.value(_MOVEMENT)
    # One row of what the policy keeps: a queue and a set; some versions add the seed.
    if isinstance(state, np.ndarray) and state.ndim > 1:
        state = list(state.reshape(-1)) if state.shape[0] == 1 else None
    elif is_sequence(state) and len(state) == 1:
        state = state[0]
    if not isinstance(state, list | tuple) or len(state) < 2:
        raise _odd(archive, "another movement policy than FaceMaxMovementPolicy")
    queue, visited = state[:2]
    if not isinstance(queue, deque | list) or not isinstance(visited, set):
        raise _odd(archive, "another movement policy than FaceMaxMovementPolicy")
    waiting = []
    for item in queue:
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise _odd(archive, "a queue of something other than positions")
        waiting.append((_number(archive, item[0]), _position(archive, item[1])))
    return tuple(waiting), frozenset(_position(archive, cell) for cell in visited)


def _seeds(archive: Archive) -> tuple[Int64[np.ndarray, "n 3"] | None, int]:
    state = archive.value(_SEEDS)
    if state is None:
        return None, 0
    if not is_sequence(state) or len(state) != 2:
        raise _odd(archive, "a seed policy that keeps other things than seeds and a number")
    coordinates, index = state
    if coordinates is None:
        return None, 0
    if not isinstance(coordinates, np.ndarray) or coordinates.dtype.kind not in "iu":
        raise _odd(archive, "seeds that are no whole numbers")
    if coordinates.size and coordinates.shape[1:] != (_AXES,):
        raise _odd(archive, f"seeds of shape {coordinates.shape}")
    seeds = _whole(archive, coordinates).reshape(-1, _AXES)
    place = int(_number(archive, index))
    if not 0 <= place <= len(seeds):
        raise _odd(archive, f"seed {place} of {len(seeds)} as the next")
    return seeds, place


def _calls(archive: Archive, *, most: int) -> int | None:
    if _CALLS not in archive.keys:
        return None
    calls = int(_number(archive, archive.value(_CALLS)))
    if not 0 <= calls <= most:
        raise _odd(archive, f"{calls} network calls of one flood")
    return calls


def _corner(archive: Archive, key: str) -> Zyx | None:
    return _position(archive, archive.value(key)) if key in archive.keys else None


def _rows(archive: Archive, key: str, *, columns: int) -> Int64[np.ndarray, "n columns"]:
    rows = archive.value(key) if key in archive.keys else np.empty(0)
    if not isinstance(rows, np.ndarray) or rows.size % columns or rows.dtype.kind not in "iuf":
        raise _odd(archive, f"a {key} of something other than numbers")
    return _whole(archive, rows).reshape(-1, columns)


def _whole(archive: Archive, values: Array) -> Int64[np.ndarray, "*shape"]:
    # NaN is not within bounds either.
    if not (np.abs(values.astype(np.float64)) <= FARTHEST_POSITION).all():
        raise _odd(archive, "numbers beyond any position")
    return values.astype(np.int64)


def _hosts(archive: Archive) -> tuple[str, ...]:
    hosts = archive.value(_HOSTS) if _HOSTS in archive.keys else ()
    if isinstance(hosts, str | bytes):
        hosts = (hosts,)
    is_many = is_sequence(hosts) or isinstance(hosts, set)
    if not is_many or not all(isinstance(one, str | bytes) for one in hosts):
        raise _odd(archive, "hosts that are no names")
    return tuple(one.decode("latin1") if isinstance(one, bytes) else str(one) for one in hosts)


def _position(archive: Archive, values: Any) -> Zyx:
    if not is_sequence(values) or len(values) != _AXES:
        raise _odd(archive, "a position that is not three numbers")
    z, y, x = (int(_number(archive, value)) for value in values)
    if max(abs(z), abs(y), abs(x)) > FARTHEST_POSITION:
        raise _odd(archive, "numbers beyond any position")
    return (z, y, x)


def _number(archive: Archive, value: Any) -> float:
    if isinstance(value, np.ndarray) and value.shape == ():
        value = value[()]
    if not isinstance(value, int | float | np.number) or not np.isfinite(value):
        raise _odd(archive, "something where a number belongs")
    return value.item() if isinstance(value, np.number) else value


def _odd(archive: Archive, what: str) -> VolumeFormatError:
    return VolumeFormatError(
        f"{archive.path} holds {what}: it is damaged, or no checkpoint of the older program"
    )
