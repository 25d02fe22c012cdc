"""What cannot be validated on is refused in one sentence, before training."""

from __future__ import annotations

import re

import numpy as np
import pytest

from floodem.errors import (
    FloodemError,
    GeometryError,
    LabelError,
    OptionError,
    VolumeFormatError,
    VolumeNotFoundError,
)
from floodem.evaluation import evaluate
from floodem.geometry import Box
from floodem.training.configuration.options import NetworkOptions
from floodem.training.validation.refusals import require_held_out
from floodem.volumes import create_volume, open_volume
from validation_cases import held_out_of, options_of, tubes_on_disk

BOX = Box((0, 0, 0), (24, 40, 32))


@pytest.fixture
def held_out(tmp_path):
    return tubes_on_disk(tmp_path)


def refused(error, sentence, options):
    with pytest.raises(error, match=re.escape(sentence)) as caught:
        require_held_out(options)
    assert isinstance(caught.value, FloodemError)
    assert "\n" not in str(caught.value)


def test_held_out_data_are_described(tmp_path, held_out):
    found = require_held_out(options_of(tmp_path, *held_out, box=BOX))
    assert (found.image, found.labels, found.box) == (*held_out, BOX)
    whole = require_held_out(options_of(tmp_path, *held_out))
    assert whole.box == Box.from_shape((24, 40, 64))
    assert require_held_out(options_of(tmp_path, None, None)) is None


def test_what_the_scores_are_worth_is_counted(tmp_path, held_out):
    found = require_held_out(options_of(tmp_path, *held_out, border=(3, 5, 7)))
    with open_volume(held_out[1]) as volume:
        truth = volume.read()[3:-3, 5:-5, 7:-7]
    assert found.scored == Box((3, 5, 7), (21, 35, 57))
    _, sizes = np.unique(truth[truth > 0], return_counts=True)
    assert (found.voxels, found.objects) == (sizes.sum(), len(sizes))
    same_pairs = np.sum(sizes.astype(float) ** 2) / sizes.sum() ** 2
    assert found.one_segment_error == pytest.approx(1 - 2 * same_pairs / (1 + same_pairs))
    evaluation = evaluate(np.ones_like(truth), truth, worst=0)
    assert found.one_segment_error == pytest.approx(evaluation.all_truth.adapted_rand_error)


def test_an_image_as_truth_is_refused(tmp_path, held_out):
    grey = np.random.default_rng(0).integers(1, 200, (24, 40, 64)).astype(np.uint8)
    uri = f"{tmp_path / 'grey.h5'}@raw"
    with create_volume(uri, shape=grey.shape, dtype=grey.dtype) as volume:
        volume.write(volume.box, grey)
    refused(LabelError, "looks like an image", options_of(tmp_path, held_out[0], uri))


def test_half_a_field_of_view_at_the_faces_is_not_scored_unless_asked_for(tmp_path, held_out):
    assert require_held_out(options_of(tmp_path, *held_out)).border == (3, 4, 4)


def test_few_objects_are_said_to_be_few():
    assert "of 1 object in" in held_out_of(objects=1).sentence
    assert "so few say little" in held_out_of(objects=9).sentence
    assert "so few" not in held_out_of(objects=10).sentence


def test_an_image_without_labels_is_refused_and_the_other_way_round(tmp_path, held_out):
    refused(OptionError, "has no labels to score against", options_of(tmp_path, held_out[0], None))
    refused(OptionError, "has no image to segment", options_of(tmp_path, None, held_out[1]))
    missing = str(tmp_path / "none.h5@labels")
    refused(VolumeNotFoundError, "none.h5", options_of(tmp_path, held_out[0], missing))


def test_stopping_when_flat_needs_scores(tmp_path):
    refused(
        OptionError,
        "stop_when_flat needs scores",
        options_of(tmp_path, None, None, stop_when_flat=True),
    )


def test_labels_of_another_shape_are_refused(tmp_path, held_out):
    _, smaller = tubes_on_disk(tmp_path, shape=(24, 40, 60), name="smaller")
    refused(
        VolumeFormatError,
        "crop or pad them to one size",
        options_of(tmp_path, held_out[0], smaller),
    )


def test_a_box_outside_is_refused(tmp_path, held_out):
    box = Box((0, 0, 0), (24, 40, 65))
    refused(GeometryError, "not inside", options_of(tmp_path, *held_out, box=box))
    empty = Box((3, 3, 3), (3, 20, 20))
    refused(GeometryError, "is empty or not inside", options_of(tmp_path, *held_out, box=empty))


def test_a_border_that_leaves_nothing_is_refused(tmp_path, held_out):
    options = options_of(tmp_path, *held_out, border=(12, 0, 0))
    refused(GeometryError, "validation.border (12, 0, 0) (z,y,x) leaves nothing of", options)


def test_a_box_smaller_than_the_field_of_view_is_refused(tmp_path, held_out):
    box = Box((0, 0, 0), (24, 8, 64))
    refused(
        GeometryError,
        "is smaller than the field of view (7, 9, 9)",
        options_of(tmp_path, *held_out, box=box),
    )
    network = NetworkOptions(fov=(25, 9, 9), deltas=(2, 3, 3))
    refused(GeometryError, "field of view", options_of(tmp_path, *held_out, network=network))


def test_a_box_without_labels_is_refused(tmp_path, held_out):
    uri = f"{tmp_path / 'empty.h5'}@labels"
    with create_volume(uri, shape=(24, 40, 64), dtype=np.uint32):
        pass
    refused(
        LabelError, "has no label in 3:21,4:36,4:60 (z,y,x)", options_of(tmp_path, held_out[0], uri)
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"every_minutes": 0.0}, "every_minutes 0.0 is not positive"),
        ({"every_minutes": float("nan")}, "every_minutes nan is not positive"),
        ({"threads": 0}, "threads 0 is too small"),
        ({"max_calls": 0}, "max_calls 0 is too small"),
        ({"image_mean": 3.0}, "give both"),
    ],
)
def test_impossible_values_are_refused(tmp_path, held_out, changes, sentence):
    refused(OptionError, sentence, options_of(tmp_path, *held_out, **changes))


@pytest.mark.parametrize("written", ["plain", "dotted", "without the dataset"])
def test_training_on_what_is_held_out_is_refused_however_it_is_written(tmp_path, held_out, written):
    image = {
        "plain": held_out[0],
        "dotted": held_out[0].replace("held-out-raw", "../" + tmp_path.name + "/held-out-raw"),
        "without the dataset": held_out[0].partition("@")[0],
    }[written]
    volumes = [{"name": "tubes", "image": image, "labels": held_out[1]}]
    options = options_of(tmp_path, *held_out, box=BOX, volumes=volumes)
    refused(OptionError, "volume tubes 0:24,0:40,0:64 (z,y,x)", options)
    refused(OptionError, "set validation.allow_overlap", options)


def test_boxes_of_one_image_that_share_no_voxel_are_allowed(tmp_path, held_out):
    rest = {"image": held_out[0], "labels": held_out[1], "box": Box((0, 0, 32), (24, 40, 64))}
    assert require_held_out(options_of(tmp_path, *held_out, box=BOX, volumes=[rest])).box == BOX
    touching = {**rest, "box": Box((0, 0, 31), (24, 40, 64))}
    options = options_of(tmp_path, *held_out, box=BOX, volumes=[touching])
    refused(OptionError, "share 0:24,0:40,31:32", options)
    allowed = options_of(tmp_path, *held_out, box=BOX, volumes=[touching], allow_overlap=True)
    assert require_held_out(allowed).box == BOX


def test_a_copy_of_what_is_trained_on_is_refused_under_another_address(tmp_path, held_out):
    with open_volume(held_out[0]) as image:
        copied = image.read()
    uri = f"{tmp_path / 'copy.h5'}@raw"
    with create_volume(uri, shape=copied.shape, dtype=copied.dtype) as volume:
        volume.write(volume.box, copied)
    volumes = [{"name": "copied", "image": uri, "labels": held_out[1]}]
    refused(OptionError, "volume copied", options_of(tmp_path, *held_out, volumes=volumes))


def test_another_image_may_have_the_same_box(tmp_path, held_out):
    with open_volume(held_out[0]) as image:
        others = image.read() + 1
    uri = f"{tmp_path / 'other.h5'}@raw"
    with create_volume(uri, shape=others.shape, dtype=others.dtype) as volume:
        volume.write(volume.box, others)
    volumes = [{"image": uri, "labels": held_out[1]}]
    assert require_held_out(options_of(tmp_path, *held_out, volumes=volumes)) is not None
