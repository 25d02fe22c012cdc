"""Random reads of one field of view (33^3 voxels) per second, in every format that is written."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from clahe_speed import tissue

from floodem.geometry import Box, VoxelSize
from floodem.volumes import Volume, create_volume, open_volume
from volume_cases import CASES

SHAPE = (128, 512, 512)
FIELD_OF_VIEW = (33, 33, 33)
SECONDS = 1.0
ROUNDS = 3


def run() -> None:
    """Print reads a second: median of rounds, with the slowest and fastest."""
    sections = np.stack([tissue(SHAPE[1:]) for _ in range(4)])
    image = np.stack([np.roll(sections[z % 4], 7 * z, axis=1) for z in range(SHAPE[0])])
    print(f"{' x '.join(map(str, SHAPE))} voxels; reads of 33^3 a second")
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            dtype = case.dtypes[0]
            address = case.uri(Path(folder, str(case)))
            options = {key: value for key, value in case.extra.items() if key == "encoding"}
            with create_volume(
                address, shape=SHAPE, dtype=dtype, voxel_size=VoxelSize(8, 8, 8), **options
            ) as volume:
                volume.write(volume.box, image.astype(dtype))
            with open_volume(address) as volume:
                volume.read(next(places(volume)))
                rates = sorted(reads_a_second(volume) for _ in range(ROUNDS))
            middle = statistics.median(rates)
            print(f"{case!s:22} {dtype:8} {middle:10,.0f}   ({rates[0]:,.0f} to {rates[-1]:,.0f})")


def places(volume: Volume) -> Iterator[Box]:
    """Yield boxes anywhere in the volume, always the same ones."""
    random = np.random.default_rng(0)
    room = np.subtract(volume.shape, FIELD_OF_VIEW)
    while True:
        z, y, x = (int(at) for at in random.integers(0, room + 1) + volume.offset)
        yield Box.from_shape(FIELD_OF_VIEW, start=(z, y, x))


def reads_a_second(volume: Volume) -> float:
    """Read for a while; return how many boxes a second."""
    begin = time.perf_counter()
    count, elapsed = 0, 0.0
    boxes = places(volume)
    while elapsed < SECONDS:
        volume.read(next(boxes))
        count += 1
        elapsed = time.perf_counter() - begin
    return count / elapsed
