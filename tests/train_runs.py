"""Runs of training so small that they take a second, for tests."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import torch

from floodem.training.configuration.making import make_options, merge
from floodem.training.runs.trainer import train
from training_cases import blobs, smooth_image

SHAPE = (24, 32, 32)
TESTS = Path(__file__).resolve().parent


def write_volume(folder, *, seed=0, shape=SHAPE):
    """Write an image and labels whose grey levels differ, so that there is something to learn."""
    labels = blobs(shape, seed=seed)
    image = smooth_image(shape, seed=seed).astype(int) // 4 + 120 * (labels != 0)
    image_path, labels_path = folder / f"image{seed}.npy", folder / f"labels{seed}.npy"
    np.save(image_path, image.astype(np.uint8))
    np.save(labels_path, labels)
    return {"name": f"volume{seed}", "image": str(image_path), "labels": str(labels_path)}


def tiny_values(folder, *, run="run", **over):
    """The configuration of a run of 12 steps, as plain values; tables are merged key by key."""
    if not (folder / "image0.npy").exists():
        write_volume(folder)
    volume = {
        "name": "volume0",
        "image": str(folder / "image0.npy"),
        "labels": str(folder / "labels0.npy"),
    }
    values = {
        "run": str(folder / run),
        "network": {
            "arguments": {"depth": 2, "features": 4},
            "fov": [5, 7, 7],
            "deltas": [1, 2, 2],
        },
        "volume": [volume],
        "sampling": {"min_size": 10, "lom_radius": [3, 3, 3]},
        "optimiser": {"learning_rate": 0.01},
        "batch_size": 2,
        "max_steps": 12,
        "log_steps": 1,
        "device": "cpu",
        "threads": 1,
    }
    return merge(values, over)


def tiny_options(folder, *, run="run", **over):
    return make_options(tiny_values(folder, run=run, **over))


def rows(folder):
    """The metrics of a run by step."""
    lines = (Path(folder) / "metrics.jsonl").read_text().splitlines()
    return {row["step"]: row for row in map(json.loads, lines)}


def losses(folder):
    return {step: row["loss"] for step, row in rows(folder).items()}


CURVE = ("loss", "learning_rate", "gradient_norm", "examples_seen", "precision", "recall")


def curve(folder):
    """All that must be the same whenever a run was interrupted."""
    return {
        step: {name: value for name, value in row.items() if name in CURVE or "moves" in name}
        for step, row in rows(folder).items()
    }


def weights(made):
    from floodem.network.model_file import load_model

    return load_model(made.latest).network.state_dict()


def assert_same_weights(a, b, *, tolerance=0.0):
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=tolerance)


def stop_after(asked):
    """A `should_stop` that says yes once it was asked so often."""
    count = 0

    def should_stop():
        nonlocal count
        count += 1
        return count > asked

    return should_stop


def command(*arguments):
    return [sys.executable, "-m", "floodem", "train", *arguments]


def environment(**more):
    """For processes that tests start: one thread, and the modules of the tests importable."""
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, **more}


__all__ = [
    "assert_same_weights",
    "command",
    "curve",
    "environment",
    "losses",
    "rows",
    "stop_after",
    "tiny_options",
    "tiny_values",
    "train",
    "weights",
    "write_volume",
]
