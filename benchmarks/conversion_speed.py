"""How long `convert` takes against a plain copy through the same libraries, in the same run."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
from clahe_speed import tissue

from floodem.geometry import Box, VoxelSize, tiles
from floodem.progress import Progress
from floodem.volumes import Volume, convert, create_volume, open_volume
from floodem.volumes.chunked.volume import ChunkedVolume

EDGE = 512
SHAPE = (EDGE, EDGE, EDGE)
LAYERS = 64
ROUNDS = 5
AIM = 1.3
FORMATS = {
    "zarr": "{}/em.zarr",
    "zarr3": "zarr3://{}/em3",
    "n5": "{}/em.n5",
    "precomputed": "precomputed://{}/em",
    "HDF5": "{}/em.h5",
}
STACKS = {"PNG": "png://{}/png", "TIFF": "tiff://{}/tiff"}
SIZE = VoxelSize(8, 8, 8)


def run() -> None:
    """Print seconds and CPU seconds: plain copies, conversions before and with their check.

    CPU seconds tell the work where other programs keep the cores busy.
    """
    sections = np.stack([tissue(SHAPE[1:]) for _ in range(4)])
    image = np.stack([np.roll(sections[z % 4], 7 * z, axis=1) for z in range(EDGE)])
    with tempfile.TemporaryDirectory() as folder:
        for address in (*FORMATS.values(), *STACKS.values()):
            fill(address.format(folder), image)
        print(f"512^3 uint8, aim: at most {AIM} times the plain copy; seconds (CPU seconds)")
        print(f"{'from':12} {'to':12} {'plain':>14} {'written':>14} {'checked':>14}   times")
        for source, to in ((a, b) for a in FORMATS for b in FORMATS if "zarr" in (a, b)):
            compare(folder, source, to, plain=plain_copy)
        for source in STACKS:
            compare(folder, source, "zarr", plain=read_sections)


def fill(address: str, image: np.ndarray) -> None:
    with create_volume(address, shape=image.shape, dtype=image.dtype, voxel_size=SIZE) as volume:
        for tile in tiles(volume.box, core=(LAYERS, *SHAPE[1:])):
            volume.write(tile.core, image[tile.core.slices()])


def compare(folder: str, source: str, to: str, *, plain: Callable[[str, str], None]) -> None:
    """Print one line: medians of rounds in which both copies take turns."""
    first = {**FORMATS, **STACKS}[source].format(folder)
    second, third = (FORMATS[to].format(f"{folder}/{name}") for name in ("plain", "copy"))
    took: dict[str, list[tuple[float, float]]] = {"plain": [], "written": [], "checked": []}
    for _ in range(ROUNDS + 1):
        clock = Clock()
        plain(first, second)
        took["plain"].append(clock.read())
        clock = Clock()
        convert(first, third, overwrite=True, progress=clock.listen)
        took["checked"].append(clock.read())
        assert clock.written is not None
        took["written"].append(clock.written)
    median = {
        name: tuple(statistics.median(column) for column in zip(*rounds[1:], strict=True))
        for name, rounds in took.items()
    }
    words = " ".join(f"{wall:6.2f} ({cpu:5.2f})" for wall, cpu in median.values())
    base, written, checked = (median[name][1] for name in ("plain", "written", "checked"))
    print(f"{source:12} {to:12} {words}   {written / base:.2f} {checked / base:.2f}")


class Clock:
    """Wall and CPU seconds, also at the moment when all is written and the check begins."""

    def __init__(self) -> None:
        self._began = (time.perf_counter(), time.process_time())
        self.written: tuple[float, float] | None = None

    def read(self) -> tuple[float, float]:
        return (time.perf_counter() - self._began[0], time.process_time() - self._began[1])

    def listen(self, report: Progress) -> None:
        if self.written is None and report.note == "verifying":
            self.written = self.read()


def plain_copy(source: str, to: str) -> None:
    """Copy with as little as the libraries need, chunks and codecs as `convert` has them."""
    with (
        open_volume(source) as volume,
        create_volume(to, shape=SHAPE, dtype="uint8", voxel_size=SIZE, overwrite=True) as copy,
    ):
        if is_chunked(volume) and is_chunked(copy):
            view(copy).write(view(volume)).result()
            return
        for tile in tiles(Box.from_shape(SHAPE), core=(LAYERS, *SHAPE[1:])):
            put(copy, tile.core, get(volume, tile.core))


def is_chunked(volume: Volume) -> bool:
    return isinstance(volume, ChunkedVolume)


def view(volume: Volume) -> Any:
    """Return the open tensorstore of a volume."""
    return volume._view  # noqa: SLF001 - what is measured goes around the volume


def get(volume: Volume, box: Box) -> Any:
    if is_chunked(volume):
        return view(volume)[box.slices()].read().result()
    with h5py.File(volume.uri.partition("@")[0]) as file:
        return file["raw"][box.slices()]


def put(copy: Volume, box: Box, array: Any) -> None:
    if is_chunked(copy):
        view(copy)[box.slices()].write(array).result()
    else:
        copy._dataset[box.slices()] = array  # noqa: SLF001 - as `view`


def read_sections(source: str, to: str) -> None:
    """Read the files of a stack and do nothing with them."""
    with open_volume(source) as volume:
        for tile in tiles(volume.box, core=(LAYERS, *SHAPE[1:])):
            volume.read(tile.core)
