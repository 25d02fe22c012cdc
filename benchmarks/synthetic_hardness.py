"""How hard synthetic volumes are: what classical methods score on them.

For each seed a volume is made, and each method gets the parameters that score best
on it, a favour no network is done. Scores are adapted Rand errors over all voxels
that truth labels; the truth scores 0.

    OMP_NUM_THREADS=1 python benchmarks/synthetic_hardness.py --seeds 5
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.segmentation import watershed

from floodem.evaluation import evaluate
from floodem.geometry import VoxelSize, Zyx, parse_zyx
from floodem.volumes.synthetic import SyntheticOptions, synthesize

Array = np.ndarray[Any, np.dtype[Any]]

THRESHOLDS = (120, 130, 140, 150)
SMOOTHINGS = (1.2, 2.0)
SEED_HEIGHTS = (2, 3, 4, 5)
"""Least distance to a membrane at which watersheds begin, in voxels."""


def error(segmentation: Array, truth: Array) -> float:
    return evaluate(segmentation.astype(np.uint32), truth).all_truth.adapted_rand_error


def components(smooth: Array, threshold: float) -> Array:
    return ndimage.label(smooth > threshold)[0]


def distance_watershed(
    smooth: Array, *, threshold: float, height: float, voxel_size: VoxelSize
) -> Array:
    inside = smooth > threshold
    ratios = 1 / ratios_of(voxel_size)
    distance = ndimage.distance_transform_edt(inside, sampling=ratios)
    peaks = ndimage.label(distance > height)[0]
    return watershed(-distance, peaks)


def grey_watershed(smooth: Array, voxel_size: VoxelSize) -> Array:
    """Grow basins of the inverted grey values from their local maxima."""
    spread = ndimage.gaussian_filter(smooth, 3 * ratios_of(voxel_size))
    peaks = ndimage.label(spread == ndimage.maximum_filter(spread, 7))[0]
    return watershed(-smooth, peaks)


def ratios_of(voxel_size: VoxelSize) -> Array:
    return min(voxel_size.zyx_nm) / np.array(voxel_size.zyx_nm)


def measure(preset: str, seed: int, shape: Zyx) -> tuple[int, dict[str, float]]:
    options = SyntheticOptions.preset(preset, seed=seed, shape=shape)
    made = synthesize(options)
    truth = made.labels
    image = made.image.astype(np.float32)
    size = options.voxel_size
    best = {"one segment": error(np.ones(truth.shape), truth)}
    for sigma in SMOOTHINGS:
        smooth = ndimage.gaussian_filter(image, sigma * ratios_of(size))
        tried = {"grey watershed": [error(grey_watershed(smooth, size), truth)]}
        for threshold in THRESHOLDS:
            found = components(smooth, threshold)
            tried.setdefault("components", []).append(error(found, truth))
            for height in SEED_HEIGHTS:
                found = distance_watershed(
                    smooth, threshold=threshold, height=height, voxel_size=size
                )
                tried.setdefault("distance watershed", []).append(error(found, truth))
        for name, errors in tried.items():
            best[name] = min([best.get(name, 1.0), *errors])
    fixed = ndimage.gaussian_filter(image, 1.2 * ratios_of(size))
    best["components, Otsu's threshold"] = error(components(fixed, threshold_otsu(fixed)), truth)
    return len(np.unique(truth)) - 1, best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="fib")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--shape", default="96,96,96")
    arguments = parser.parse_args()
    shape = parse_zyx(arguments.shape)
    rows = [measure(arguments.preset, 1000 + seed, shape) for seed in range(arguments.seeds)]
    names = list(rows[0][1])
    print("| seed | objects |", " | ".join(names), "|")
    print("|---|---|" + "---|" * len(names))
    for seed, (objects, best) in enumerate(rows):
        values = " | ".join(f"{best[name]:.3f}" for name in names)
        print(f"| {1000 + seed} | {objects} | {values} |")
    means = " | ".join(f"{statistics.mean(best[name] for _, best in rows):.3f}" for name in names)
    print(f"| mean | {statistics.mean(objects for objects, _ in rows):.0f} | {means} |")


if __name__ == "__main__":
    main()
