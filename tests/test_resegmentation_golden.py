"""Decision points in real tissue, with a published network."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from array_volume import ArrayVolume
from floodem.assembly.agglomeration.graph.rule import MergeRule
from floodem.assembly.agglomeration.resegmentation.resegmenter import (
    ResegmentationOptions,
    Resegmenter,
)
from floodem.assembly.agglomeration.resegmentation.scores import PointScores
from floodem.geometry import VoxelSize
from floodem.legacy.checkpoints.import_model import import_tensorflow_model
from floodem.volumes import open_volume
from test_golden import MODELS

SMALL = ResegmentationOptions(radius=(30, 30, 30), analysis_radius=(14, 14, 14))
CUT_BEYOND = 1_000_000
"""What is added to the ids of halves: nothing in the crop has such ids."""


@pytest.fixture(scope="module")
def golden(shared_data):
    settings = dict(MODELS["fib25"])
    model = import_tensorflow_model(shared_data / settings.pop("checkpoint"), **settings)
    with open_volume(f"{shared_data / 'golden' / 'fib25'}-image.h5@raw") as volume:
        image = volume.read()
    found = np.load(shared_data / "golden" / "fib25-segmentation.npz", allow_pickle=False)
    return model, image, found["segmentation"].astype(np.uint64)


def scored(golden, labels, ids, position) -> PointScores:
    model, image, _ = golden
    volumes = (ArrayVolume(array, voxel_size=VoxelSize(10, 10, 10)) for array in (image, labels))
    one = Resegmenter(*volumes, model=model, options=SMALL, device="cpu")
    return one.score(*ids, position)


def accepted(scores: PointScores) -> bool:
    columns = {name: np.array([value]) for name, value in dataclasses.asdict(scores).items()}
    return bool(MergeRule().accepts(columns)[0])


@pytest.mark.slow
@pytest.mark.parametrize(("segment", "position"), [(8, (50, 30, 30)), (9, (50, 50, 48))])
def test_a_neuron_cut_by_a_plane_is_found_to_be_one(golden, segment, position):
    labels = golden[2].copy()
    beyond = labels[:, :, position[2] :]
    beyond[beyond == segment] += np.uint64(CUT_BEYOND)
    scores = scored(golden, labels, (segment, segment + CUT_BEYOND), position)
    assert scores.iou > 0.97
    assert accepted(scores)


@pytest.mark.slow
@pytest.mark.parametrize(("ids", "position"), [((3, 8), (32, 30, 36)), ((1, 10), (35, 43, 46))])
def test_two_neurons_that_touch_are_found_to_be_two(golden, ids, position):
    scores = scored(golden, golden[2], ids, position)
    assert scores.iou < 0.01
    assert scores.recovered_a
    assert scores.recovered_b
    assert not accepted(scores)
