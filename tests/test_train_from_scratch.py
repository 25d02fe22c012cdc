"""From nothing to a network that segments, on a CPU: the whole of training at once."""

from __future__ import annotations

import pytest

import floodem
from floodem.flooding.options import FloodOptions
from floodem.geometry import Box, VoxelSize
from floodem.training.augmentation.options import AugmentationOptions
from floodem.training.configuration.options import (
    MovementOptions,
    NetworkOptions,
    OptimiserOptions,
    SamplingOptions,
    TrainOptions,
    VolumeOptions,
)
from floodem.volumes.synthetic import SyntheticOptions, write_synthetic

LEARNED = Box((0, 0, 0), (96, 96, 96))
HELD_OUT = Box((0, 0, 96), (96, 96, 160))
BORDER = (8, 8, 8)
MOST_ERROR = 0.1

TISSUE = SyntheticOptions(
    seed=1,
    shape=(96, 96, 160),
    voxel_size=VoxelSize(12, 12, 12),
    spacing_nm=168,
    calibre=0.5,
    membrane_nm=30,
    gap_nm=14,
    faint=0,
    texture=3,
    noise=6,
    glia=0,
    mitochondria=0,
    vesicles=0,
)


def tiny_run(folder, *, steps):
    return TrainOptions(
        run=str(folder / "run"),
        network=NetworkOptions(
            arguments={"depth": 5, "features": 8}, fov=(13, 13, 13), deltas=(3, 3, 3)
        ),
        volumes=(
            VolumeOptions(
                image=str(folder / "image.zarr"), labels=str(folder / "labels.zarr"), box=LEARNED
            ),
        ),
        sampling=SamplingOptions(lom_radius=(8, 8, 8), min_size=500),
        movement=MovementOptions(pad=0.5, threshold=0.6),
        augmentation=AugmentationOptions(permutable_axes=(0, 1, 2)),
        optimiser=OptimiserOptions(
            name="adam",
            learning_rate=0.002,
            schedule="cosine",
            warmup_steps=100,
            clip="norm",
            clip_value=1.0,
            average=0.995,
        ),
        batch_size=16,
        max_steps=steps,
        device="cpu",
    )


@pytest.mark.slow
def test_a_tiny_network_learns_one_synthetic_volume_from_nothing(tmp_path):
    image, labels = str(tmp_path / "image.zarr"), str(tmp_path / "labels.zarr")
    write_synthetic(TISSUE, image=image, labels=labels)
    made = floodem.train(tiny_run(tmp_path, steps=9000))
    request = floodem.SegmentRequest(box=HELD_OUT, options=FloodOptions(min_segment_size=100))
    floodem.segment(image, tmp_path / "out.zarr", model=made.latest, request=request)
    with (
        floodem.open_volume(tmp_path / "out.zarr") as segmentation,
        floodem.open_volume(labels) as truth,
    ):
        found = floodem.evaluate(segmentation, truth, border=BORDER)
    assert found.all_truth.objects >= 10
    assert found.all_truth.adapted_rand_error <= MOST_ERROR
