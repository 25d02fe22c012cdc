"""What a step of training costs, and how far that is from the arithmetic's floor.

Real steps of the trainer on made-up tissue in memory: gather, forward, backward,
scatter, clip, optimiser. The floor is the arithmetic of forward and backward at
the rate of a large matrix product in the same format on the same device.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from network_speed import FEATURES, MATRIX_SIZE, SHAPES, TAPS, flops

from floodem.geometry import Zyx
from floodem.training.configuration import make_options
from floodem.training.distributed import World
from floodem.training.options import TrainOptions
from floodem.training.preparation import find_coordinates, make_in_flight
from floodem.training.sources import open_training_data
from floodem.training.start import first_network
from floodem.training.step import Learner
from training_cases import blobs, smooth_image

DEPTH, FOV = SHAPES["snemi3d, 9 modules, 17x33x33"]
DELTAS: Zyx = (4, 8, 8)
VOLUME: Zyx = (48, 120, 120)
WARM_UP_STEPS, SECONDS, CARD_MATRIX = 3, 12.0, 8192
ROUNDS = 7

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
        for device in devices:
            _run_on(device, base)


def _run_on(device: torch.device, base: TrainOptions) -> None:
    is_card = device.type == "cuda"
    print(f"\n{torch.cuda.get_device_name(device) if is_card else 'CPU'}, snemi3d network")
    cases = CARD_CASES if is_card else CPU_CASES
    peaks = {dtype: peak(dtype, device) for dtype in dict.fromkeys(case[0] for case in cases)}
    print(
        f"{'type':9} {'batch':>5} {'compiled':>8} {'ms':>8} {'fields/s':>9} {'TFLOP/s':>8} "
        f"{'of peak':>8} {'network':>8} {'patches':>8} {'optimiser':>9} {'rest':>6}"
    )
    for dtype, batch, compiles in cases:
        options = dataclasses.replace(base, dtype=dtype, batch_size=batch, compile=compiles)
        seconds, shares = measure(options, device)
        rate = batch * step_flops() / seconds
        print(
            f"{dtype:9} {batch:5} {'yes' if compiles else 'no':>8} {seconds * 1e3:8.1f} "
            f"{batch / seconds:9.1f} {rate / 1e12:8.2f} {rate / peaks[dtype]:8.0%} "
            f"{shares['network']:8.1%} {shares['patches']:8.1%} {shares['optimiser']:9.1%} "
            f"{1 - sum(shares.values()):6.1%}"
        )


def measure(options: TrainOptions, device: torch.device) -> tuple[float, dict[str, float]]:
    """Return seconds of a step, and the share of each part of it."""
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
        began, steps = time.perf_counter(), 0
        while steps < WARM_UP_STEPS or time.perf_counter() - began < SECONDS:
            learner.step()
            steps += 1
        parts = learner.clock.take()  # waits for the card
        wall = time.perf_counter() - began
        in_flight.close()
    return wall / steps, {name: seconds / wall for name, seconds in parts.items()}


def peak(dtype: str, device: torch.device) -> float:
    """Return FLOP/s of a large square matrix product."""
    size = CARD_MATRIX if device.type == "cuda" else MATRIX_SIZE
    a = torch.randn(size, size, device=device, dtype=getattr(torch, dtype))
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True  # as convolutions in float32 do
    best = float("inf")
    for _ in range(ROUNDS):
        _wait(device)
        began = time.perf_counter()
        a @ a
        _wait(device)
        best = min(best, time.perf_counter() - began)
    found = 2 * size**3 / best
    print(f"matrix product of {size} in {dtype}: {found / 1e12:.2f} TFLOP/s")
    return found


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
