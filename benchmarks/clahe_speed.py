"""How long `clahe` takes, and how far its grid of tables is from a table for every pixel."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
from scipy import ndimage

from floodem.volumes import create_volume
from floodem.volumes.grey.equalisation import clahe, clahe_section
from floodem.volumes.parallel import usable_threads

SHAPE = (100, 512, 512)
SPACINGS = (127, 64, 32, 24, 16, 12, 8)
AIM_S = 3.0
ROUNDS = 3


def tissue(shape: tuple[int, ...]) -> np.ndarray:
    """Return grey values that look like tissue from afar: dark membranes, uneven light."""
    random = np.random.default_rng(0)
    rough = ndimage.gaussian_filter(random.standard_normal(shape), 6)
    membranes = 1 - np.exp(-((rough / rough.std() / 0.3) ** 2))
    light = ndimage.gaussian_filter(random.standard_normal(shape), 80)
    fine = ndimage.gaussian_filter(random.standard_normal(shape), 1)
    grey = 60 + 110 * membranes + 35 * light / light.std() + 25 * fine / fine.std()
    return np.clip(grey, 0, 255).astype(np.uint8)


def run() -> None:
    """Print seconds for 100 x 512 x 512, by format and threads, then error by spacing.

    CPU seconds tell the work where other programs keep the cores busy.
    """
    sections = np.stack([tissue(SHAPE[1:]) for _ in range(4)])
    image = np.stack([np.roll(sections[z % 4], 7 * z, axis=1) for z in range(SHAPE[0])])
    print(f"aim: {AIM_S:.0f} s on two cores")
    print(f"{'format':16} {'threads':>7} {'seconds':>8} {'CPU s':>6}")
    for ending in (".zarr", ".h5"):
        for threads in sorted({1, usable_threads()}):
            wall, cpu = seconds(image, ending, threads)
            print(f"{ending:16} {threads:7} {wall:8.2f} {cpu:6.2f}")
    began = time.perf_counter()
    exact = clahe_section(sections[0], spacing=1).astype(int)
    print(f"a table for every pixel: {time.perf_counter() - began:.2f} s a section")
    print(f"{'spacing':16} {'ms a section':>12} {'mean error':>10} {'largest':>8}")
    for spacing in SPACINGS:
        began = time.perf_counter()
        near = clahe_section(sections[0], spacing=spacing)
        took = time.perf_counter() - began
        error = np.abs(near.astype(int) - exact)
        print(f"{spacing:16} {took * 1e3:12.1f} {error.mean():10.2f} {error.max():8}")


def seconds(image: np.ndarray, ending: str, threads: int) -> tuple[float, float]:
    """Return the median time to read, equalise and write the image, and what the cores worked."""
    took = []
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / f"image{ending}"
        with create_volume(source, shape=image.shape, dtype=image.dtype) as volume:
            volume.write(volume.box, image)
        for _ in range(ROUNDS):
            began, worked = time.perf_counter(), time.process_time()
            clahe(source, Path(folder) / f"even{ending}", threads=threads, overwrite=True)
            took.append((time.perf_counter() - began, time.process_time() - worked))
    return sorted(took)[ROUNDS // 2]
