"""Files for chunks without any object: a precomputed volume in, one with a file for each chunk out.

Chunks of zeros are not stored, and readers take what is missing for zeros. Web servers
answer with an error for each, which browsers show as one, and some stores forbid to
ask. Chunks in shards are not asked for one by one.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from floodem.errors import StoppedError
from floodem.files import replacing, storage_error
from floodem.geometry import Zyx
from floodem.volumes.packages import require_package

_ASKED_EVERY = 256  # files


def write_blanks(
    folder: Path, *, scales: list[dict[str, Any]], should_stop: Callable[[], bool]
) -> int:
    """Write the missing chunks of a local volume.

    Parameters
    ----------
    folder
        Of the volume.
    scales
        As its info lists them.
    should_stop
        Asked now and then.

    Returns
    -------
    int
        How many were missing.

    Raises
    ------
    StoppedError
        When it was told to stop.
    StorageError
        When the file system refuses.
    """
    written = 0
    for index, scale in enumerate(scales):
        if "sharding" in scale:
            continue
        blanks = _Blanks(folder, index)
        place = folder / scale["key"]
        for name, start, shape in _missing(place, scale):
            blanks.write(place / name, start=start, shape=shape)
            written += 1
            if written % _ASKED_EVERY == 0 and should_stop():
                raise StoppedError("stopped: run the same command again to go on")
    return written


def _missing(place: Path, scale: dict[str, Any]) -> Iterator[tuple[str, Zyx, Zyx]]:
    """Yield name, start from the volume's first voxel and shape (z, y, x) of missing chunks."""
    try:
        place.mkdir(exist_ok=True)
        there = frozenset(os.listdir(place))
    except OSError as error:
        raise storage_error("look at", place, error) from error
    sizes, edges, offset = scale["size"], scale["chunk_sizes"][0], scale["voxel_offset"]
    starts_xyz = (range(0, size, edge) for size, edge in zip(sizes, edges, strict=True))
    for z, y, x in itertools.product(*reversed(list(starts_xyz))):
        spans = [
            (start, min(start + edge, size))
            for start, edge, size in zip((x, y, z), edges, sizes, strict=True)
        ]
        name = "_".join(f"{a + at}-{b + at}" for (a, b), at in zip(spans, offset, strict=True))
        if name not in there:
            dx, dy, dz = (b - a for a, b in spans)
            yield name, (z, y, x), (dz, dy, dx)


class _Blanks:
    """Writes chunks of zeros: the first of each shape by the format's own rules, others alike."""

    def __init__(self, folder: Path, scale_index: int) -> None:
        self._folder = folder
        self._scale_index = scale_index
        self._examples: dict[Zyx, Path] = {}
        self._store: Any = None

    def write(self, path: Path, *, start: Zyx, shape: Zyx) -> None:
        example = self._examples.get(shape)
        if example is None:
            self._encode(start, shape)
            self._examples[shape] = path
            return
        with replacing(path) as partial:
            shutil.copyfile(example, partial)

    def _encode(self, start: Zyx, shape: Zyx) -> None:
        store = self._opened()
        z, y, x = start
        dz, dy, dx = shape
        # Zero-based (translate_to), as `start` is; stores are x, y, z, channel.
        part = store[x : x + dx, y : y + dy, z : z + dz]
        part.write(np.zeros(part.shape, store.dtype.numpy_dtype)).result()

    def _opened(self) -> Any:
        if self._store is None:
            ts = require_package(
                "tensorstore", purpose="writing precomputed volumes", install="tensorstore"
            )
            store = ts.open(
                {
                    "driver": "neuroglancer_precomputed",
                    "kvstore": {"driver": "file", "path": f"{self._folder}/"},
                    "scale_index": self._scale_index,
                    "store_data_equal_to_fill_value": True,
                },
                open=True,
                write=True,
            ).result()
            self._store = store[ts.d[:].translate_to[0]]
        return self._store
