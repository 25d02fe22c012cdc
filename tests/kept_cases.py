"""Floods without a network: masks to keep, and a process that is killed at one of its steps."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np

from array_volume import ArrayVolume
from floodem.flooding.flood import FloodEnd
from floodem.flooding.flooder import FloodedObject
from floodem.flooding.kept import KeptFloods
from floodem.geometry import Box, VoxelSize
from floodem.volumes.chunked.volume import ChunkedVolume

OFFSET = (10, 20, 30)
SHAPE = (70, 40, 100)
"""Two chunks in z and in x."""


VOXEL_SIZE = VoxelSize(30, 6, 6)


def image(*, shape=SHAPE, offset=OFFSET, voxel_size=VOXEL_SIZE):
    return ArrayVolume(np.zeros(shape, np.uint8), offset=offset, voxel_size=voxel_size)


def flooded(*slices, box=None):
    """An object that fills a cuboid of the array, or whatever indexes it."""
    box = box or Box.from_shape(SHAPE, start=OFFSET)
    mask = np.zeros(box.shape, bool)
    mask[slices] = True
    return FloodedObject(
        seed=(40, 40, 80),
        box=box,
        mask=mask,
        probability=np.zeros(box.shape, np.uint8),
        calls=12,
        end=FloodEnd.EXHAUSTED,
        is_cut=False,
        seconds=1.5,
        notices=(),
    )


ACROSS_CHUNKS = (slice(60, 68), slice(5, 20), slice(50, 80))
BESIDE = (slice(60, 68), slice(15, 30), slice(40, 70))


def keep(kept, made, **more):
    return kept.keep(made, model="a" * 64, options={"segment_threshold": 0.6}, **more)


def work(destination):
    """Keep two floods, take one back, and go on from the other."""
    with KeptFloods(destination, image=image()) as kept:
        yield kept
        first = keep(kept, flooded(*ACROSS_CHUNKS))
        yield kept
        keep(kept, flooded(*BESIDE))
        yield kept
        kept.undo()
        yield kept
        keep(kept, flooded(*BESIDE), label=first.label)
        yield kept


def die_at(call: int) -> None:
    """Kill this process before the `call`-th time it replaces a file or writes a piece."""
    calls = 0

    def counted(function):
        def wrapped(*args, **kwargs):
            nonlocal calls
            if calls == call:
                os.kill(os.getpid(), signal.SIGKILL)
            calls += 1
            return function(*args, **kwargs)

        return wrapped

    os.replace = counted(os.replace)
    Path.unlink = counted(Path.unlink)
    Path.rename = counted(Path.rename)
    ChunkedVolume.write = counted(ChunkedVolume.write)


def live_and_die(folder: Path) -> list[int]:
    """Do `work` again and again, killed one step later each time, until it lives to its end.

    Returns how far each killed one came. Processes are forked here, where nothing has been
    computed yet, because importing everything takes longer than the work.
    """
    came = []
    while True:
        call = len(came)
        (folder / str(call)).mkdir()
        steps = folder / str(call) / "steps.txt"
        child = os.fork()
        if child == 0:
            die_at(call)
            for _ in work(folder / str(call) / "f.zarr"):
                with open(steps, "a", encoding="utf-8") as file:
                    file.write("one more\n")
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status == 0:
            return came
        assert os.WIFSIGNALED(status), f"ended with {status} instead of being killed"
        came.append(len(steps.read_text().splitlines()) if steps.exists() else 0)


if __name__ == "__main__":
    print(*live_and_die(Path(sys.argv[1])))
