"""Skeletons by address: a folder or an SWC file in, ids and skeletons out.

Folders are Neuroglancer's precomputed, with shards or without, or hold SWC files whose names
are ids (``7.swc``). A single SWC file is one skeleton, however many pieces it has, unless
comments ``# label 7`` say of which object the lines after them are, as in the file that
``floodem synthetic`` writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from floodem.errors import OptionError, VolumeNotFoundError
from floodem.evaluation.skeletons.nodes import NumberedSkeleton
from floodem.files import storage_error
from floodem.shapes.skeletons.folder import SWC_ENDING, SkeletonFolder
from floodem.shapes.skeletons.skeleton import Skeleton
from floodem.shapes.skeletons.swc import MAX_FILE_BYTES, Unit, parse_swc
from floodem.volumes.damage import damaged
from floodem.volumes.servers.addresses import is_remote

_PREFIX = "precomputed://"
_LABEL = re.compile(r"#\s*label\s+(\d+)\s*")
_LONE_ID = 1
_LARGEST_ID = 2**64 - 1


def read_skeletons(address: str | Path, *, unit: Unit | None = None) -> Iterator[NumberedSkeleton]:
    """Yield the skeletons at an address, with their ids.

    Parameters
    ----------
    address
        A folder or an SWC file on a local disk; ``precomputed://`` may stand before it.
    unit
        Of SWC files that do not say it: ``nm`` or ``um``.

    Raises
    ------
    VolumeNotFoundError
        When there are no skeletons.
    VolumeFormatError, StorageError
        When a file is damaged, or the file system refuses.
    OptionError
        When the address is of a server, or an SWC file does not say its unit.
    """
    text = str(address).removeprefix(_PREFIX)
    if is_remote(text):
        raise OptionError(f"skeletons are read from a disk, and {address} is not: copy them first")
    path = Path(text)
    if path.suffix.lower() == SWC_ENDING and path.is_file():
        yield from _of_file(path, unit)
        return
    folder = SkeletonFolder(path, unit=unit)
    is_empty = True
    for number in folder.ids():
        skeleton = folder.read(number)
        if skeleton is not None:
            is_empty = False
            yield number, skeleton
    if is_empty:
        raise VolumeNotFoundError(f"{address} holds no skeletons: make them first")


def _of_file(path: Path, unit: Unit | None) -> Iterator[NumberedSkeleton]:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise storage_error("read", path, error) from error
    if len(data) > MAX_FILE_BYTES:
        raise damaged(path, kind="an SWC file", reason=f"it has more than {MAX_FILE_BYTES} bytes")
    text = data.decode("utf-8", errors="replace")
    skeleton = parse_swc(text, unit=unit, uri=path)
    labels = _labels(text, path)
    if labels is None:
        name = path.stem
        yield (int(name) if name.isascii() and name.isdecimal() else _LONE_ID), skeleton
        return
    ends = labels[skeleton.edges.astype(np.int64)]
    if (ends[:, 0] != ends[:, 1]).any():
        raise damaged(path, kind="an SWC file", reason="a line has a parent of another label")
    yield from _cut(skeleton, labels)


def _labels(text: str, path: Path) -> Any:
    """Return the label of each vertex in the order of the lines, or None where none is said."""
    labels: list[int] = []
    label: int | None = None
    for line in text.splitlines():
        match = _LABEL.fullmatch(line.strip())
        if match is not None:
            label = int(match[1])
            if label > _LARGEST_ID:
                reason = f"it has the label {match[1][:40]}, which is more than 64 bits hold"
                raise damaged(path, kind="an SWC file", reason=reason)
        elif line.strip() and not line.lstrip().startswith("#"):
            labels.append(0 if label is None else label)
    return None if label is None else np.array(labels, np.uint64)


def _cut(skeleton: Skeleton, labels: Any) -> Iterator[NumberedSkeleton]:
    """Yield one skeleton for each label, in ascending order."""
    order = np.argsort(labels, kind="stable")
    numbers, starts = np.unique(labels[order], return_index=True)
    row_of = np.empty(len(labels), np.int64)
    row_of[order] = np.arange(len(labels)) - np.repeat(starts, np.diff(starts, append=len(labels)))
    ends = skeleton.edges.astype(np.int64)
    edge_order = np.argsort(labels[ends[:, 0]], kind="stable")
    edge_starts = np.searchsorted(labels[ends[edge_order, 0]], numbers)
    parts = zip(
        numbers.tolist(),
        np.split(order, starts[1:]),
        np.split(edge_order, edge_starts[1:]),
        strict=True,
    )
    for number, rows, own in parts:
        yield (
            number,
            Skeleton(
                skeleton.vertices_zyx_nm[rows],
                row_of[ends[own]].astype(np.uint32).reshape(-1, 2),
                skeleton.radii_nm[rows],
            ),
        )
