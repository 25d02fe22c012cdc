"""Real data, published networks: equal to the reference on every voxel.

The golden files were computed by the reference implementation in float32 on a
CPU; see the README of the shared data.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

from floodem.flooding.request import SegmentRequest
from floodem.flooding.segment import segment
from floodem.geometry import VoxelSize
from floodem.legacy.checkpoints.import_model import import_tensorflow_model
from floodem.volumes import open_volume

MODELS = {
    "fib25": {
        "checkpoint": "fib25/model.ckpt-27465036",
        "fov": (33, 33, 33),
        "deltas": (8, 8, 8),
        "image_mean": 128,
        "image_stddev": 33,
        "voxel_size": VoxelSize(10, 10, 10),
    },
    "snemi3d": {
        "checkpoint": "snemi3d/model.ckpt-7000000",
        "fov": (17, 33, 33),
        "deltas": (4, 8, 8),
        "image_mean": 131,
        "image_stddev": 62,
        "voxel_size": VoxelSize(30, 6, 6),
    },
}

REFERENCE_COUNTERS = {
    "floods": "segment_at-loop-calls",
    "network_calls": "inference-calls",
    "skip_threshold": "skip_threshold",
    "skip_invalid_position": "skip_invalid_pos",
    "seed_got_too_weak": "seed_got_too_weak",
    "voxels_segmented": "voxels-segmented",
    "voxels_overlapping": "voxels-overlapping",
}


@pytest.mark.parametrize("name", MODELS)
def test_segmentation_equals_the_reference_on_every_voxel(shared_data, tmp_path, name):
    settings = dict(MODELS[name])
    model = import_tensorflow_model(shared_data / settings.pop("checkpoint"), **settings)
    probabilities = str(tmp_path / "probabilities.zarr")
    made = segment(
        f"{shared_data / 'golden' / name}-image.h5@raw",
        tmp_path / "labels.zarr",
        model=model,
        request=SegmentRequest(device="cpu", probabilities=probabilities),
    )
    golden = np.load(shared_data / "golden" / f"{name}-segmentation.npz", allow_pickle=False)
    with open_volume(made.uri) as labels, open_volume(probabilities) as levels:
        np.testing.assert_array_equal(labels.read(), golden["segmentation"])
        difference = levels.read().astype(int) - golden["qprob"]
        assert np.abs(difference).max() <= 1
        assert labels.voxel_size == settings["voxel_size"]
    expected = json.loads((shared_data / "golden" / f"{name}-origins.json").read_text())
    origins = json.loads((made.folder / "origins.json").read_text())["origins"]
    assert expected["origins"] == {
        label: {"start_zyx": origin["start_zyx"], "iters": origin["iters"]}
        for label, origin in origins.items()
    }
    overlaps = json.loads((made.folder / "overlaps.json").read_text())["overlaps"]
    assert expected["overlaps"] == {
        label: [[int(other) for other in counts], list(counts.values())]
        for label, counts in overlaps.items()
    }
    counters = made.summary["counters"]
    assert counters["seeds"] == expected["counters"]["seed-policy-calls"] - 1
    assert {theirs: counters[ours] for ours, theirs in REFERENCE_COUNTERS.items()} == {
        theirs: expected["counters"][theirs] for theirs in REFERENCE_COUNTERS.values()
    }
