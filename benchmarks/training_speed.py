"""What a step of training costs, and how far that is from the arithmetic's floor.

Real steps of the trainer on made-up tissue in memory: gather, forward, backward,
scatter, clip, optimiser. The floor is the arithmetic of forward and backward at
the rate of a large matrix product of 2048 (8192 on a card) in the same format on the same device.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from network_speed import FEATURES, MATRIX_SIZE, SHAPES, TAPS, flops

from floodem.geometry import Zyx
from floodem.training.configuration.making import make_options
from floodem.training.configuration.options import TrainOptions
from floodem.training.examples.preparation import find_coordinates, make_in_flight
from floodem.training.examples.sources import open_training_data
from floodem.training.learning.distributed import World
from floodem.training.learning.step import Learner
from floodem.training.runs.start import first_network
from training_cases import blobs, smooth_image

DEPTH, FOV = SHAPES["snemi3d, 9 modules, 17x33x33"]
DELTAS: Zyx = (4, 8, 8)
VOLUME: Zyx = (48, 120, 120)
WARM_UP_STEPS, SECONDS, CARD_MATRIX = 3, 12.0, 8192

CPU_CASES = (("float32", 4, False), ("bfloat16", 4, False), ("bfloat16", 16, False))
CARD_CASES = (
    *((dtype, batch, False) for dtype in ("float32", "bfloat16") for batch in (4, 32, 128)),
    *(("float16", 32, False), ("bfloat16", 32, True), ("bfloat16", 128, True)),
)


def step_flops() -> int:
    """Arithmetic of one field of view, forward and backward.

    Backward is twice forward (gradients of weights and of inputs), less the
    gradient of the network's own input, which nobody needs.
    """
    voxels = FOV[0] * FOV[1] * FOV[2]
    return 3 * flops(DEPTH, FOV) - 2 * voxels * TAPS * 2 * FEATURES


def run() -> None:
    """Print fields of view a second, TFLOP/s, its share of the peak, and where the time goes."""
    with tempfile.TemporaryDirectory() as folder:
        base = _options(Path(folder))
        devices = [torch.device("cpu")]
        if torch.cuda.is_available():
            devices.append(torch.device("cuda", 0))
            torch.backends.cuda.matmul.allow_tf32 = True  # as convolutions in float32 do
            torch.backends.cudnn.benchmark = True  # as the trainer does
        for device in devices:
            _run_on(device, base)


def _run_on(device: torch.device, base: TrainOptions) -> None:
    is_card = device.type == "cuda"
    print(f"\n{torch.cuda.get_device_name(device) if is_card else 'CPU'}, snemi3d network")
    cases = CARD_CASES if is_card else CPU_CASES
    print(
        f"{'type':9} {'batch':>5} {'compiled':>8} {'ms':>8} {'fields/s':>9} {'TFLOP/s':>8} "
        f"{'product':>8} {'of that':>8} {'network':>8} {'patches':>8} {'optimiser':>9} {'rest':>6}"
    )
    for dtype, batch, compiles in cases:
        options = dataclasses.replace(base, dtype=dtype, batch_size=batch, compile=compiles)
        seconds, shares, peak = measure(options, device)
        rate = batch * step_flops() / seconds
        print(
            f"{dtype:9} {batch:5} {'yes' if compiles else 'no':>8} {seconds * 1e3:8.1f} "
            f"{batch / seconds:9.1f} {rate / 1e12:8.2f} {peak / 1e12:8.2f} {rate / peak:8.0%} "
            f"{shares['network']:8.1%} {shares['patches']:8.1%} {shares['optimiser']:9.1%} "
            f"{1 - sum(shares.values()):6.1%}"
        )


def measure(options: TrainOptions, device: torch.device) -> tuple[float, dict[str, float], float]:
    """Return seconds of a step, the share of each part of it, and FLOP/s of a matrix product.

    Steps and products take turns and the fastest of each counts, so that other work
    on the machine does as little as possible to either.
    """
    with open_training_data(options, device=device) as data:
        in_flight = make_in_flight(
            options,
            data,
            index=find_coordinates(options, data),
            device=device,
            dtype=torch.float32,
        )
        network = first_network(options).to(device)
        learner = Learner(network, in_flight, options=options, world=World(), device=device)
        for _ in range(WARM_UP_STEPS):
            learner.step()
        learner.clock.take()
        size = CARD_MATRIX if device.type == "cuda" else MATRIX_SIZE
        matrix = torch.randn(size, size, device=device, dtype=getattr(torch, options.dtype))
        steps, products = [], []
        while len(steps) < WARM_UP_STEPS or sum(steps) < SECONDS:
            steps.append(_seconds(learner.step, device))
            products.append(_seconds(lambda: matrix @ matrix, device))
        parts = learner.clock.take()
        in_flight.close()
    shares = {name: seconds / sum(steps) for name, seconds in parts.items()}
    return min(steps), shares, 2 * size**3 / min(products)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    _wait(device)
    began = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _options(folder: Path) -> TrainOptions:
    labels = blobs(VOLUME, count=30)
    image = smooth_image(VOLUME) // 4 + np.where(labels, 120, 0).astype(np.uint8)
    np.save(folder / "image.npy", image)
    np.save(folder / "labels.npy", labels)
    volume = {"image": str(folder / "image.npy"), "labels": str(folder / "labels.npy")}
    return make_options(
        {
            "volume": [volume],
            "network": {
                "arguments": {"depth": DEPTH, "features": FEATURES},
                "fov": list(FOV),
                "deltas": list(DELTAS),
            },
            "optimiser": {"name": "adam"},
        }
    )


if __name__ == "__main__":
    import sys

    sys.path[:0] = [str(Path(__file__).resolve().parent.parent / "tests")]
    run()
