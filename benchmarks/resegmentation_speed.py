"""How fast decision points are flooded again, and what of that is the network's own time.

The published segmentation of the FIB-25 sample, 250^3 voxels, and the published network in
bfloat16. Points are chosen evenly among those in the middle of the volume, where the whole box
around them is there. After each point the network alone is called on one field of view, so
that a busy machine hits both alike. Run as a script it also writes the table to
benchmarks/results/resegmentation.md.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import platform
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from floodem.assembly.agglomeration.points.search import find_points_of
from floodem.assembly.agglomeration.resegmentation.resegmenter import ResegmentationOptions
from floodem.assembly.agglomeration.resegmentation.tasks import (
    PointToScore,
    ScoreTask,
    close_resegmenter,
    score_points_task,
    scores_from_rows,
)
from floodem.flooding.options import FloodOptions
from floodem.flooding.predictor import Predictor
from floodem.geometry import Box, VoxelSize, Zyx
from floodem.legacy.checkpoints.import_model import import_tensorflow_model
from floodem.network.model_file import Model, load_model, save_model
from floodem.shapes.source import LabelSource
from floodem.volumes import create_volume
from floodem.volumes.source import VolumeSource

POINTS = 6
BARE_CALLS = 25
VOXEL_SIZE = VoxelSize(10, 10, 10)
MAX_DISTANCE_NM = 60.0
MIDDLE = Box((55, 55, 55), (195, 195, 195))
"""From here the box of 101^3 voxels around a point lies wholly in the sample."""

CHECKPOINT = "fib25/model.ckpt-27465036"
FOV: Zyx = (33, 33, 33)
DELTAS: Zyx = (8, 8, 8)

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("FLOODEM_DATA", HERE.parents[1] / "shared" / "data"))
RESULTS = HERE / "results" / "resegmentation.md"


def run() -> None:
    """Print the table; it needs the shared FIB-25 sample."""
    for line in lines():
        print(line)


def lines(model: Model | None = None, *, points: int = POINTS) -> Iterator[str]:
    """Measure and give the lines of the results."""
    if not (DATA / "fib25" / "grayscale_maps.h5").is_file():
        yield f"no data at {DATA / 'fib25'}: set FLOODEM_DATA to the folder with the shared data"
        return
    yield (
        f"{time.strftime('%Y-%m-%d')}, {platform.system()} {platform.machine()}, "
        f"{torch.get_num_threads()} thread(s), torch {torch.__version__}, bfloat16; load before "
        f"{os.getloadavg()[0]:.1f}."
    )
    yield ""
    with tempfile.TemporaryDirectory() as folder:
        task = prepared(Path(folder), model or published(), points=points)
        yield from measured(task)


def published() -> Model:
    """Import the network that was published for this sample."""
    return import_tensorflow_model(
        DATA / CHECKPOINT,
        fov=FOV,
        deltas=DELTAS,
        image_mean=128,
        image_stddev=33,
        voxel_size=VOXEL_SIZE,
    )


def prepared(folder: Path, model: Model, *, points: int) -> ScoreTask:
    """Write network and segmentation to a folder, and choose the points."""
    with np.load(DATA / "fib25" / "sample-training2.npz", allow_pickle=False) as found:
        labels = found["segmentation"]
    uri = str(folder / "segmentation.zarr")
    with create_volume(
        uri, shape=labels.shape, dtype=labels.dtype, voxel_size=VOXEL_SIZE
    ) as volume:
        volume.write(volume.box, labels)
    save_model(model, folder / "model.safetensors")
    found_points = find_points_of(
        labels[MIDDLE.slices()], voxel_size=VOXEL_SIZE, max_distance_nm=MAX_DISTANCE_NM
    )
    chosen = np.linspace(0, len(found_points) - 1, points).round().astype(int)
    positions = found_points.positions + MIDDLE.start
    return ScoreTask(
        image=VolumeSource(uri=f"{DATA / 'fib25' / 'grayscale_maps.h5'}@raw"),
        segmentation=LabelSource(uri=uri),
        voxel_size=VOXEL_SIZE,
        model=str(folder / "model.safetensors"),
        model_digest=load_model(folder / "model.safetensors").digest(),
        options=ResegmentationOptions(),
        flood=FloodOptions(),
        points=tuple(
            PointToScore(
                id_a=int(found_points.ids_a[n]),
                id_b=int(found_points.ids_b[n]),
                position=tuple(positions[n].tolist()),
            )
            for n in chosen
        ),
        device="cpu",
        dtype="bfloat16",
    )


def measured(task: ScoreTask) -> Iterator[str]:
    """Score the points one by one, and call the network alone in between."""
    bare_call = bare_network(load_model(task.model))
    singles = [dataclasses.replace(task, points=(point,)) for point in task.points]
    score_points_task(singles[0])  # everything is open and warm from here on
    timed(bare_call)
    yield "| point (z,y,x) | calls | seeds | iou | seconds | CPU s | in the network | bare calls |"
    yield "|---|---|---|---|---|---|---|---|"
    totals: Counter[str] = Counter()
    for single in singles:
        spent: Counter[str] = Counter()
        began, began_cpu = time.perf_counter(), time.process_time()
        with network_timed(spent):
            (scores,) = scores_from_rows([score_points_task(single)])
        spent["wall"] = time.perf_counter() - began
        spent["cpu"] = time.process_time() - began_cpu
        spent["bare"] = timed(bare_call) * scores.calls
        spent["calls"] = scores.calls
        yield (
            f"| {','.join(map(str, single.points[0].position))} | {scores.calls} | "
            f"{scores.seeds_a} + {scores.seeds_b} | {scores.iou:.2f} | {spent['wall']:.2f} | "
            f"{spent['cpu']:.2f} | {spent['network'] / spent['cpu']:.1%} | "
            f"{spent['bare'] / spent['cpu']:.1%} |"
        )
        totals.update(spent)
    close_resegmenter()
    beside = (totals["cpu"] - totals["network"]) / len(singles)
    yield ""
    yield (
        f"{len(singles) / totals['wall']:.3f} points and {totals['calls'] / totals['wall']:.1f} "
        f"network calls a second. Of the CPU time {totals['network'] / totals['cpu']:.1%} is "
        f"inside the network (aim: 90 %), and as many bare calls, made in between, are "
        f"{totals['bare'] / totals['cpu']:.1%} of it. Beside the network a point takes "
        f"{beside * 1e3:.0f} ms: reading, distances, the steps' bookkeeping. "
        f"Load after {os.getloadavg()[0]:.1f}: with more than there are cores, CPU seconds tell "
        "more than the clock."
    )


@contextlib.contextmanager
def network_timed(spent: Counter[str]) -> Iterator[None]:
    """Add the CPU seconds of network calls to ``network`` while the body runs."""
    predict = Predictor.predict

    def timed_predict(self: Predictor, corner: Zyx, seed_logits: Any) -> Any:
        began = time.process_time()
        logits = predict(self, corner, seed_logits)
        spent["network"] += time.process_time() - began
        return logits

    with mock.patch.object(Predictor, "predict", timed_predict):
        yield


def bare_network(model: Model) -> Callable[[], object]:
    """Return a function that calls the network alone, on a field of view that is ready."""
    network = model.network.to(torch.bfloat16).to(memory_format=torch.channels_last_3d)
    inputs_bczyx = torch.randn(1, 2, *FOV).to(torch.bfloat16)
    inputs_bczyx = inputs_bczyx.to(memory_format=torch.channels_last_3d)

    def call() -> object:
        with torch.inference_mode():
            return network(inputs_bczyx)

    return call


def timed(call: Callable[[], object]) -> float:
    """Return the CPU seconds of one call, on average over some."""
    began = time.process_time()
    for _ in range(BARE_CALLS):
        call()
    return (time.process_time() - began) / BARE_CALLS


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="the network as a model file; imported when not given")
    parser.add_argument("--points", type=int, default=POINTS)
    chosen = parser.parse_args()
    model = load_model(chosen.model) if chosen.model else None
    made = list(lines(model, points=chosen.points))
    command = "`python benchmarks/resegmentation_speed.py`"
    RESULTS.write_text(
        "\n".join(["# Resegmentation of decision points", "", command + ", " + made[0], *made[1:]])
        + "\n",
        encoding="utf-8",
    )
    print("\n".join(made))


if __name__ == "__main__":
    main()
