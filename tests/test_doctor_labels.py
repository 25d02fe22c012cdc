"""What the doctor finds in labels and networks: planted defects, and nothing in sound ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bright import bright_model
from doctor_cases import CUBES, SECTIONS, blamed, finding, tissue, write
from floodem.assembly.estimate import CallTime
from floodem.counting import counted
from floodem.geometry import Box, VoxelSize
from floodem.labels.components import components
from floodem.network.model_file import Model, save_model
from floodem.project.doctor import Level, examine, run_time
from floodem.project.doctor.objects import label_boxes, pieces_apart, survey_objects
from floodem.volumes import open_volume

WHOLE = ((False, False),) * 3
FEW = {("amount", "warning")}
"""What is said of every volume as small as these."""


@pytest.fixture(scope="module")
def pair():
    return tissue(40, 144)


@pytest.fixture(scope="module")
def image(pair, tmp_path_factory):
    return write(tmp_path_factory.mktemp("doctor") / "em.h5", pair[0])


def look(image, path, labels, **facts):
    return examine(image, labels=write(path, labels, **facts), machine=False)


@pytest.mark.parametrize(
    ("seconds", "says"), [(4.47, "4.5 s"), (1.0, "1.0 s"), (0.0123, "12.3 ms")]
)
def test_times_of_calls_are_told_in_common_units(seconds, says, image, pair, monkeypatch):
    timed = CallTime(seconds=seconds, device="a card", dtype="float16")
    monkeypatch.setattr(run_time, "time_calls", lambda model, seconds: timed)
    with open_volume(str(image)) as volume:
        (found,) = run_time.look_at_time(model_like(pair[0]), volume, memory=None)
    assert f"network calls of {says} in 1 block, as timed now on a card (float16)" in found.says


def test_only_what_was_compared_is_said_to_match(image, pair, tmp_path):
    sized = finding(look(image, tmp_path / "sized.h5", pair[1]), "fit")
    assert sized.says.startswith("shape, place and voxel size match")
    bare = finding(look(image, tmp_path / "bare.h5", pair[1], voxel_size=None), "fit")
    assert bare.says.startswith("shape and place match")


def test_labels_that_fit_are_not_blamed(image, pair, tmp_path):
    found = look(image, tmp_path / "l.h5", pair[1])
    assert blamed(found) <= FEW
    assert finding(found, "overlay").level is Level.OK
    assert finding(found, "pieces").level is Level.OK
    assert finding(found, "centres").value["total"] > 0


@pytest.mark.parametrize(
    ("turn", "says"),
    [
        (lambda labels: labels[::-1], "mirrored along z"),
        (lambda labels: labels[:, ::-1], "mirrored along y"),
        (lambda labels: labels[:, :, ::-1], "mirrored along x"),
        (lambda labels: labels[:, ::-1, ::-1], "mirrored along y and x"),
        (lambda labels: labels.swapaxes(1, 2), "with y and x swapped"),
        (lambda labels: np.roll(labels, 2, axis=0), "2 sections lower"),
        (lambda labels: np.roll(labels, -2, axis=0), "2 sections higher"),
    ],
)
def test_labels_that_lie_otherwise_than_the_image_are_told_how(image, pair, tmp_path, turn, says):
    one = finding(look(image, tmp_path / "l.h5", turn(pair[1])), "overlay")
    assert one.level is Level.PROBLEM
    assert f"fit better {says}:" in one.says


def test_labels_a_few_voxels_off_are_told_by_how_much(image, pair, tmp_path):
    one = finding(look(image, tmp_path / "l.h5", np.roll(pair[1], (5, -6), (1, 2))), "overlay")
    assert one.level is Level.WARNING
    assert one.value["by"] == [0, -5, 6]


def test_labels_of_another_place_are_told(image, tmp_path):
    one = finding(look(image, tmp_path / "l.h5", tissue(40, 144, seed=5)[1]), "overlay")
    assert one.level is Level.WARNING
    assert "hardly lie on membranes" in one.says


def test_objects_that_end_where_it_is_bright_show_inverted_contrast(pair, tmp_path):
    image = write(tmp_path / "em.h5", 255 - pair[0])
    one = finding(look(image, tmp_path / "l.h5", pair[1]), "overlay")
    assert one.level is Level.WARNING
    assert "contrast is inverted" in one.says


@pytest.mark.parametrize(
    ("change", "facts", "what", "level"),
    [
        (lambda labels: (labels > 0).astype(np.uint8), {}, "ids", "problem"),
        (lambda labels: (labels + 255 - labels.max()).astype(np.uint8), {}, "ids", "warning"),
        (np.zeros_like, {}, "objects", "problem"),
        (lambda labels: np.where(labels == 7, labels, 0), {}, "background", "warning"),
        (lambda labels: labels.astype(np.float32), {}, "fit", "problem"),
        (lambda labels: labels[:-1], {}, "fit", "problem"),
        (lambda labels: labels, {"voxel_size": VoxelSize(40, 4, 4)}, "fit", "problem"),
        (lambda labels: labels, {"offset": (5, 0, 0)}, "fit", "problem"),
        (lambda labels: labels.transpose(2, 1, 0), {}, "axes", "problem"),
    ],
)
def test_labels_that_are_wrong_are_told(image, pair, tmp_path, change, facts, what, level):
    found = look(image, tmp_path / "l.h5", change(pair[1]), **facts)
    assert finding(found, what, part="labels").level == level


def test_objects_in_several_pieces_are_counted_with_the_largest_second_piece(image, pair, tmp_path):
    labels = pair[1].copy()
    ids, sizes = np.unique(labels, return_counts=True)
    largest = ids[np.argsort(-sizes)[:40]]
    for one, other in zip(largest[::2], largest[1::2], strict=True):
        labels[labels == other] = one
    _, pieces = components(labels, connectivity=26)
    one = finding(look(image, tmp_path / "l.h5", labels), "pieces")
    assert one.level is Level.WARNING
    assert 10 <= one.value["objects"] <= 22
    assert one.value["large"] <= pieces - len(np.unique(labels))
    assert one.value["second"] >= 1000


def test_crumbs_are_counted(image, pair, tmp_path):
    labels = pair[1].copy()
    labels[::4, ::16, ::16] = np.arange(10_000, 10_000 + labels[::4, ::16, ::16].size).reshape(
        labels[::4, ::16, ::16].shape
    )
    one = finding(look(image, tmp_path / "l.h5", labels), "tiny objects")
    assert one.level is Level.NOTE
    assert one.value >= 800


def test_labels_without_room_for_a_centre_are_a_problem(pair, tmp_path):
    image = write(tmp_path / "em.h5", pair[0][:20])
    one = finding(look(image, tmp_path / "l.h5", pair[1][:20]), "centres")
    assert one.level is Level.PROBLEM


def test_a_piece_that_a_box_cuts_is_not_called_apart():
    labels = np.zeros((3, 5, 12), np.uint32)
    labels[1, 1, :3] = labels[1, 1, 9:] = 7  # may meet outside, behind x
    labels[1, 3, 2] = labels[1, 3, 6] = labels[1, 3, 9:] = 8  # two of three pieces are closed
    cut = ((False, False), (False, False), (True, True))
    assert list(pieces_apart(labels, cut=WHOLE).ids) == [7, 8]
    found = pieces_apart(labels, cut=cut)
    assert list(found.ids) == [8]
    assert list(found.counts) == [3]
    assert list(found.seconds) == [1]


def test_pieces_of_a_sampled_volume_never_exceed_those_of_the_whole():
    rng = np.random.default_rng(2)
    labels = (rng.integers(0, 30, (24, 24, 24)) // 3).astype(np.uint32)
    whole = pieces_apart(labels, cut=WHOLE)
    true = dict(zip(whole.ids.tolist(), whole.counts.tolist(), strict=True))
    part = pieces_apart(labels[4:20, :12], cut=((True, True), (False, True), (False, False)))
    assert part.ids.size
    for one, count in zip(part.ids.tolist(), part.counts.tolist(), strict=True):
        assert count <= true[one]


def test_boxes_of_a_large_volume_lie_in_it_and_stay_small():
    box = Box((5, 0, 7), (100_005, 60_000, 50_007))
    boxes = label_boxes(box, chunks=(64, 64, 64), thorough=False)
    assert all(box.contains(one) for one in boxes)
    assert sum(one.size for one in boxes) <= 2**25
    assert len(set(boxes)) == len(boxes) == 2


def test_a_rod_is_as_thick_as_it_is():
    z, y, _ = np.mgrid[:60, :60, :30]
    labels = (np.hypot((z - 30), (y - 30)) < 9).astype(np.uint32)
    box = Box.from_shape(labels.shape)
    found = survey_objects(lambda place: labels[place.slices()], [box], whole=box,
                           voxel_size=CUBES)  # fmt: skip
    (thickness,) = found.thickness_nm
    assert abs(thickness - 18 * 8) < 16


def test_a_network_that_fits_is_not_blamed_and_is_timed(image, pair, tmp_path):
    model = model_like(pair[0])
    save_model(model, tmp_path / "m.safetensors")
    found = examine(image, model=tmp_path / "m.safetensors", machine=False)
    assert blamed(found) == set()
    time = finding(found, "time")
    assert time.value["calls"] > 0
    if time.value["device"] == "cpu":
        threads = counted(torch.get_num_threads(), "thread")
        assert time.says.endswith(f", as timed now with {threads} of the CPU (float32)")
    assert not any(one.option.startswith("train.") for one in found.proposals)
    assert any("--model" in line for line in found.commands)


def model_like(image, **changes):
    import dataclasses

    model = bright_model()
    facts = {"image_mean": float(image.mean()), "image_stddev": float(image.std()),
             "voxel_size": SECTIONS}  # fmt: skip
    return Model(dataclasses.replace(model.description, **(facts | changes)), model.network)


@pytest.mark.parametrize(
    ("changes", "what", "level"),
    [
        ({"image_mean": 100.0}, "grey values", "warning"),
        ({"image_stddev": 90.0}, "grey values", "warning"),
        ({"image_mean": 105.0, "image_stddev": 29.0}, "contrast", "warning"),
        ({"voxel_size": VoxelSize(30, 8, 8)}, "voxel size", "warning"),
        ({"voxel_size": VoxelSize(8, 8, 8)}, "voxel size", "problem"),
        ({"voxel_size": VoxelSize(1, 1, 1)}, "voxel size", "note"),
    ],
)
def test_a_network_for_other_images_is_told(image, pair, tmp_path, changes, what, level):
    save_model(model_like(pair[0], **changes), tmp_path / "m.safetensors")
    found = examine(image, model=tmp_path / "m.safetensors", machine=False)
    assert finding(found, what, part="model").level == level
