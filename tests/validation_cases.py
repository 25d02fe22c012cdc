"""Held-out tubes, made-up curves and runs on disk, for tests of validation and record."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from bright import MEAN, STDDEV, bright_tubes
from floodem.geometry import Box
from floodem.training.configuration.making import to_toml
from floodem.training.configuration.options import (
    NetworkOptions,
    TrainOptions,
    ValidationOptions,
    VolumeOptions,
)
from floodem.training.validation import job
from floodem.training.validation.background import Validator
from floodem.training.validation.choice import ValidationFailure
from floodem.training.validation.held_out import HeldOut
from floodem.training.validation.job import ValidationJob
from floodem.training.validation.refusals import require_held_out
from floodem.training.validation.score import ValidationScore
from floodem.volumes import create_volume

FOV, DELTAS = (7, 9, 9), (2, 3, 3)


def score(step, cost, *, hours=None, **changes):
    """A made-up validation of one adapted Rand error."""
    values = {
        "rand_precision": 1 - cost / 2,
        "rand_recall": 1 - cost,
        "voi_split_bits": 2 * cost,
        "voi_merge_bits": cost,
        "fill": 0.9,
        "segments": 7,
        "network_calls": 800,
        "seconds": 12.0,
    }
    hours = step / 1000 if hours is None else hours
    return ValidationScore(
        step=step, hours=hours, adapted_rand_error=float(cost), **{**values, **changes}
    )


def curve(costs):
    """Validations every half hour."""
    return [
        score(500 * number, cost, hours=number / 2) for number, cost in enumerate(costs, start=1)
    ]


def tubes_on_disk(folder, *, shape=(24, 40, 64), name="held-out"):
    """Write image and labels; return their addresses."""
    image, labels = bright_tubes(shape)
    uris = []
    for kind, array in (("raw", image), ("labels", labels)):
        uri = f"{folder / f'{name}-{kind}.h5'}@{kind}"
        with create_volume(uri, shape=shape, dtype=array.dtype) as volume:
            volume.write(volume.box, array)
        uris.append(uri)
    return uris


def options_of(folder, image, labels, *, volumes=(), network=None, **validation):
    wanted = {"min_segment_size": 100, "every_minutes": 1e-6, "device": "cpu", **validation}
    return TrainOptions(
        run=str(folder / "run"),
        network=network or NetworkOptions(fov=FOV, deltas=DELTAS),
        volumes=tuple(VolumeOptions(**volume) for volume in volumes),
        validation=ValidationOptions(image=image, labels=labels, **wanted),
    )


def validator_of(options, **changes):
    return Validator(
        options,
        require_held_out(options),
        image_mean=MEAN,
        image_stddev=STDDEV,
        device=torch.device("cpu"),
        **changes,
    )


def run_on_disk(folder, *, costs=(), rows=(), options=None, status="done", **about):
    """The folder of a run as far as a comparison reads it."""
    folder.mkdir(parents=True)
    options = options or TrainOptions(volumes=(VolumeOptions(image="em.h5", labels="seg.h5"),))
    (folder / "run.json").write_text(json.dumps({"version": 1, "status": status, **about}))
    (folder / "config.toml").write_text(to_toml(options))
    for name, values in (("validation", [s.to_dict() for s in curve(costs)]), ("metrics", rows)):
        text = "".join(json.dumps(row) + "\n" for row in values)
        (folder / f"{name}.jsonl").write_text(text)
    return folder


def held_out_of(objects=30, one_segment_error=0.4):
    """Made-up held-out data."""
    return HeldOut(
        image="held out.zarr",
        labels="truth.zarr",
        box=Box.from_shape((64, 64, 64)),
        border=(8, 8, 8),
        voxels=100_000,
        objects=objects,
        one_segment_error=one_segment_error,
    )


def noisy(function, count, *, noise, seed=0):
    """A curve of `count` half hours with noise, as costs."""
    hours = np.arange(1, count + 1) / 2
    costs = function(hours) + np.random.default_rng(seed).normal(0, noise, count)
    return np.clip(costs, 0, 1).tolist()


def answered(path, costs):
    """Stand for a process that has answered at once; a cost of None is a failure."""
    asked = ValidationJob.load(path)
    cost = costs[asked.step]
    failed = ValidationFailure(step=asked.step, hours=asked.hours, reason="no luck", seconds=1.0)
    job.write_outcome(asked, failed if cost is None else score(asked.step, cost))
    Path(asked.segmentation).write_bytes(b"labels")

    class Done:
        stdin = None
        returncode = 0

        def poll(self):
            return 0

    return Done()


def finished(validator):
    """Wait for the flood that is under way; its score, or None."""
    if validator._process is not None:
        validator._process.wait()
    return validator.poll()
