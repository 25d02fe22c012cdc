"""Which chunks of a store are there: an open tensorstore in, boxes of missing chunks out.

Names are listed, nothing is read. Neuroglancer's precomputed names its chunks by their
voxels; in the other formats tensorstore tells of any box whether all of it is stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from floodem.errors import VolumeFormatError
from floodem.geometry import Box, Zyx, tiles
from floodem.volumes.chunked.access import tensorstore_module, wait

if TYPE_CHECKING:
    import tensorstore

_PRECOMPUTED = "neuroglancer_precomputed"


def missing_chunks(
    view: tensorstore.TensorStore, box: Box, *, chunks: Zyx, uri: str, is_remote: bool
) -> Iterator[Box]:
    """Yield the chunks, cut at `box`, of which nothing is stored, as they are found.

    Parameters
    ----------
    view
        An array (z, y, x) whose chunks begin at its first voxel.
    chunks
        What is written alone.

    Raises
    ------
    VolumeFormatError
        When it cannot be told (sharded precomputed volumes).
    FloodemError, ValueError, OSError
        When the file system or the server refuses.
    """
    z, y, x = view.domain.inclusive_min
    origin: Zyx = (z, y, x)
    spec = view.spec().to_json()
    if spec["driver"] == _PRECOMPUTED:
        # tensorstore 0.1.86 looks for the chunks of precomputed volumes in a wrong place.
        scale = spec["scale_metadata"]
        there = _names(view, scale, uri=uri, is_remote=is_remote)
        for cell in _cells(view, box, chunks=chunks, origin=origin):
            found = cell.intersection(box)
            if found is not None and _name(cell, scale) not in there:
                yield found
        return
    waiting = [box]
    while waiting:
        one = waiting.pop()
        if _is_stored(view, one, uri=uri, is_remote=is_remote):
            continue
        halves = _halves(one, chunks=chunks, origin=origin)
        if len(halves) == 1:
            yield one
        else:
            waiting += halves[::-1]


def _is_stored(view: tensorstore.TensorStore, box: Box, *, uri: str, is_remote: bool) -> bool:
    found = wait(
        lambda: view[box.slices()].storage_statistics(query_fully_stored=True),
        uri=uri,
        action="look at",
        is_remote=is_remote,
    )
    return bool(found.fully_stored)


def _names(
    view: tensorstore.TensorStore, scale: dict[str, Any], *, uri: str, is_remote: bool
) -> set[str]:
    """List the chunks of one scale of a precomputed volume."""
    if scale.get("sharding") is not None:
        raise VolumeFormatError(
            f"{uri} keeps its chunks in shards, of which it cannot be told without reading which "
            "chunks are there: read it"
        )
    library: Any = tensorstore_module()
    prefix = f"{scale['key']}/"
    # The next character after the slash ends the range of all names that begin so.
    below = library.KvStore.KeyRange(prefix, prefix[:-1] + chr(ord("/") + 1))
    store: Any = view.kvstore
    found = wait(lambda: store.list(below), uri=uri, action="look at", is_remote=is_remote)
    return {name.decode("ascii", errors="replace") for name in found}


def _cells(view: tensorstore.TensorStore, box: Box, *, chunks: Zyx, origin: Zyx) -> Iterator[Box]:
    """Yield the chunks that a box touches, as they are stored."""
    z, y, x = (
        at - (at - first) % chunk
        for at, first, chunk in zip(box.start, origin, chunks, strict=True)
    )
    stop_z, stop_y, stop_x = view.domain.exclusive_max
    whole = Box(origin, (stop_z, stop_y, stop_x))
    for tile in tiles(Box((z, y, x), box.stop), core=chunks):
        cell = Box.from_shape(chunks, start=tile.core.start).intersection(whole)
        assert cell is not None
        yield cell


def _name(cell: Box, scale: dict[str, Any]) -> str:
    """Return the name of a chunk: the voxels of each axis, x first."""
    ranges = [f"{a}-{b}" for a, b in zip(cell.start, cell.stop, strict=True)]
    return f"{scale['key']}/{'_'.join(ranges[::-1])}"


def _halves(box: Box, *, chunks: Zyx, origin: Zyx) -> list[Box]:
    """Cut a box in two at a face of chunks, on the axis with most of them; one stays whole."""
    first = [(a - o) // c for a, o, c in zip(box.start, origin, chunks, strict=True)]
    stop = [-(-(b - o) // c) for b, o, c in zip(box.stop, origin, chunks, strict=True)]
    counts = [b - a for a, b in zip(first, stop, strict=True)]
    axis = counts.index(max(counts))
    if counts[axis] < 2:
        return [box]
    at = origin[axis] + (first[axis] + counts[axis] // 2) * chunks[axis]
    lower_stop, upper_start = list(box.stop), list(box.start)
    lower_stop[axis] = upper_start[axis] = at
    (z1, y1, x1), (z0, y0, x0) = lower_stop, upper_start
    return [Box(box.start, (z1, y1, x1)), Box((z0, y0, x0), box.stop)]
