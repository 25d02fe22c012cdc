"""Blocks of a slow server flooded one after the other, and two at a time in one process."""

from __future__ import annotations

import dataclasses
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from bright import bright_model, bright_tubes
from flood_cases import flood_tasks, write_volume
from floodem.assembly.floods import FloodTask, flood_block_task
from floodem.assembly.sources import close_sources
from floodem.volumes.source import VolumeSource
from servers.s3 import S3Server

SHAPE = (24, 64, 384)
CORE = (24, 64, 64)
MARGIN = (7, 9, 9)
DELAY_S = 0.15
"""Of each answer: a busy or far server."""


def run() -> None:
    """Print wall time and the parts of it, and what of reading and writing was hidden."""
    before = dict(os.environ)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder, S3Server(delay_s=DELAY_S) as server:
            os.environ |= {
                "AWS_ENDPOINT_URL": server.address,
                "AWS_ACCESS_KEY_ID": "-",
                "AWS_SECRET_ACCESS_KEY": "-",
                "AWS_CONFIG_FILE": os.devnull,
                "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            }
            measure(Path(folder))
    finally:
        os.environ.clear()
        os.environ.update(before)
        torch.set_num_threads(threads)


def measure(folder: Path) -> None:
    """Flood the same blocks with one slot and with two."""
    image, _ = bright_tubes(SHAPE)
    uri = write_volume("zarr://s3://bucket/em.zarr", image)
    model = bright_model(depth=3, features=12)
    walls = {}
    for slots in (1, 2):
        work = f"s3://bucket/slots-{slots}.floodem"
        tasks = flood_tasks(folder, model=model, image=image, core=CORE, margin=MARGIN, work=work)
        tasks = [dataclasses.replace(task, image=VolumeSource(uri=uri)) for task in tasks]
        walls[slots], made = timed(tasks, slots)
        parts = {part: sum(one["seconds"][part] for one in made) for part in made[0]["seconds"]}
        told = ", ".join(f"{name} {value:.1f}" for name, value in parts.items())
        flooding = parts["flooding"] / walls[slots]
        print(
            f"{slots} at a time: {len(made)} blocks in {walls[slots]:.1f} s ({told}); "
            f"flooding {flooding:.0%} of the time"
        )
    print(f"two at a time against one: {walls[1] / walls[2]:.2f} times as fast")


def timed(tasks: list[FloodTask], slots: int) -> tuple[float, list[dict[str, Any]]]:
    """Return the seconds that all blocks take, and what they returned."""
    began = time.perf_counter()
    with ThreadPoolExecutor(slots) as threads:
        made = list(threads.map(flood_block_task, tasks))
    taken = time.perf_counter() - began
    close_sources()
    return taken, made


if __name__ == "__main__":
    run()
