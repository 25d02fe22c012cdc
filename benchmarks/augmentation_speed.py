"""What augmentation costs: milliseconds for one example, by preset and by part."""

from __future__ import annotations

import dataclasses
import statistics
import time

import torch

from floodem.geometry import Zyx
from floodem.training.augmentation.options import PRESETS, AugmentationOptions
from floodem.training.augmentation.plan import largest_source_shape, plan_augmentation
from floodem.training.patch import Patch

SHAPE: Zyx = (49, 49, 49)
"""A field of view of 33 that moves one step of 8 both ways."""

EXAMPLES = 200


def run() -> None:
    """Print the time of plans and of applying them, for presets and for each alone."""
    torch.set_num_threads(1)
    off = AugmentationOptions(reflectable_axes=(), permutable_axes=())
    cases = {f"preset {name}": AugmentationOptions(preset=name) for name in PRESETS}
    cases |= {
        name.removesuffix("_probability"): dataclasses.replace(off, **{name: 1.0})
        for name in PRESETS["none"]
    }
    print(f"{' x '.join(map(str, SHAPE))} voxels, float32, one thread; ms for one example")
    print(f"{'':16} {'plan':>6} {'mean':>7} {'median':>7} {'95 %':>7}   largest source")
    for name, options in cases.items():
        planning, applying = zip(
            *(seconds(options, number) for number in range(EXAMPLES)), strict=True
        )
        columns = (
            statistics.mean(planning),
            statistics.mean(applying),
            statistics.median(applying),
            statistics.quantiles(applying, n=20)[-1],
        )
        source = ",".join(map(str, largest_source_shape(options, patch_shape=SHAPE)))
        numbers = " ".join(f"{1000 * value:7.2f}" for value in columns)
        print(f"{name:15} {numbers}   {source}")


def seconds(options: AugmentationOptions, number: int) -> tuple[float, float]:
    """Return how long planning and applying take for one example."""
    began = time.perf_counter()
    plan = plan_augmentation(options, patch_shape=SHAPE, seed=0, number=number)
    planned = time.perf_counter()
    image = torch.randn(plan.source_shape)
    patch = Patch(image=image, labels=image.int(), weights=torch.ones_like(image))
    cut = time.perf_counter()
    plan.apply(patch)
    return planned - began, time.perf_counter() - cut


if __name__ == "__main__":
    run()
