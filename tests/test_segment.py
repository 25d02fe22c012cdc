from __future__ import annotations

import csv
import dataclasses
import json

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bright import DARK, bright_model, bright_tubes
from floodem.errors import (
    DestinationExistsError,
    GeometryError,
    LabelError,
    ModelError,
    OptionError,
    ResourceError,
    RunConflictError,
    StoppedError,
    VolumeFormatError,
)
from floodem.files import exclusive
from floodem.flooding import job as job_module
from floodem.flooding.masks import parse_mask
from floodem.flooding.options import FloodOptions
from floodem.flooding.request import SegmentRequest
from floodem.flooding.seeds import SeedPolicySpec, parse_seeds
from floodem.flooding.segment import segment, state_folder
from floodem.geometry import UNKNOWN_VOXEL_SIZE, Box, VoxelSize
from floodem.network.model_file import save_model
from floodem.volumes import create_volume, open_volume

SMALL = FloodOptions(min_segment_size=100)


def request(**changes):
    options = changes.pop("options", SMALL)
    return SegmentRequest(options=options, device="cpu", **changes)


@pytest.fixture
def image(tmp_path):
    """Four bright tubes at offset 100, 200, 300, as an HDF5 volume."""
    array, _ = bright_tubes()
    uri = f"{tmp_path / 'em.h5'}@raw"
    with create_volume(
        uri,
        shape=array.shape,
        dtype=np.uint8,
        voxel_size=VoxelSize(30, 6, 6),
        offset=(100, 200, 300),
    ) as volume:
        volume.write(volume.box, array)
    return uri


@pytest.fixture(scope="module")
def model():
    return bright_model()


def read(uri):
    with open_volume(uri) as volume:
        return volume.read()


def record(folder, name):
    return json.loads((folder / name).read_text())


def results_of(made):
    """Everything that must not depend on how often a run was interrupted."""
    origins = record(made.folder, "origins.json")["origins"]
    for origin in origins.values():
        del origin["seconds"]
    return {
        "labels": read(made.uri).tolist(),
        "origins": origins,
        "overlaps": record(made.folder, "overlaps.json"),
        "seeds": (made.folder / "seeds.csv").read_text(),
        "counters": dict(made.summary["counters"]),
    }


def test_every_tube_becomes_one_segment_in_seed_order(tmp_path, image, model):
    made = segment(image, tmp_path / "seg.h5@labels", model=model, request=request())
    labels, (_, truth) = read(made.uri), bright_tubes()
    assert labels.dtype == np.uint64
    # the network sees no farther than half its field of view from a seed at the border
    seen = labels > 0
    pairs = set(zip(labels[seen].tolist(), truth[seen].tolist(), strict=True))
    assert len(pairs) == made.summary["segments"] == truth.max() == len(np.unique(labels)) - 1
    assert seen[truth > 0].mean() > 0.9
    assert not seen[truth == 0].any()
    origins = record(made.folder, "origins.json")["origins"]
    assert list(origins) == [str(label) for label in range(1, int(truth.max()) + 1)]
    for label, origin in origins.items():
        local = tuple(np.array(origin["start_zyx"]) - (100, 200, 300))
        assert labels[local] == int(label)
        assert origin["voxels"] == np.count_nonzero(labels == int(label))
        assert origin["end"] == "exhausted"


def test_labels_carry_voxel_size_and_offset(tmp_path, image, model):
    box = Box((100, 205, 300), (124, 240, 350))
    made = segment(image, tmp_path / "seg.zarr", model=model, request=request(box=box))
    with open_volume(made.uri) as volume:
        assert volume.box == made.box == box
        assert volume.voxel_size == VoxelSize(30, 6, 6)


def test_an_image_without_voxel_size_takes_the_models_and_says_so(tmp_path, model):
    np.save(tmp_path / "em.npy", bright_tubes()[0])
    made = segment(tmp_path / "em.npy", tmp_path / "seg.zarr", model=model, request=request())
    assert any("does not say its voxel size" in notice for notice in made.notices)
    with open_volume(made.uri) as volume:
        assert volume.voxel_size == VoxelSize(30, 6, 6)


def test_a_model_that_does_not_know_its_voxel_size_is_compared_with_nothing(tmp_path, image, model):
    description = dataclasses.replace(model.description, voxel_size=UNKNOWN_VOXEL_SIZE)
    unknown = dataclasses.replace(model, description=description)
    made = segment(image, tmp_path / "seg.zarr", model=unknown, request=request())
    assert not any("trained on" in notice for notice in made.notices)


@pytest.mark.parametrize(("z_nm", "noticed"), [(30, False), (33, False), (40, True)])
def test_voxels_unlike_those_of_the_training_are_noticed(tmp_path, model, z_nm, noticed):
    array, _ = bright_tubes()
    uri = str(tmp_path / "em.zarr")
    with create_volume(
        uri, shape=array.shape, dtype=np.uint8, voxel_size=VoxelSize(z_nm, 6, 6)
    ) as volume:
        volume.write(volume.box, array)
    made = segment(uri, tmp_path / "seg.zarr", model=model, request=request())
    assert any("was trained on 30,6,6 nm" in notice for notice in made.notices) is noticed


def test_probabilities_are_written_where_there_are_segments(tmp_path, image, model):
    probabilities = str(tmp_path / "p.zarr")
    made = segment(
        image, tmp_path / "s.zarr", model=model, request=request(probabilities=probabilities)
    )
    labels, levels = read(made.uri), read(probabilities)
    assert levels.dtype == np.uint8
    assert np.array_equal(levels > 0, labels > 0)
    assert levels[labels > 0].min() > 0.6 * 255


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(stops=st.lists(st.integers(1, 60), min_size=1, max_size=6))
def test_resumed_run_equals_uninterrupted_run(tmp_path_factory, image, model, stops):
    folder = tmp_path_factory.mktemp("resume")
    whole = segment(image, folder / "whole.zarr", model=model, request=request())
    for stop in stops:
        asked = iter(range(stop))
        try:
            segment(
                image,
                folder / "parts.zarr",
                model=model,
                request=request(),
                should_stop=lambda asked=asked: next(asked, None) is None,
            )
        except StoppedError as stopped:
            assert "run the same command again" in str(stopped)  # noqa: PT017
    parts = segment(image, folder / "parts.zarr", model=model, request=request())
    assert results_of(parts) == results_of(whole)


def test_a_finished_run_is_not_repeated_and_says_so(tmp_path, image, model):
    first = segment(image, tmp_path / "seg.zarr", model=model, request=request())
    again = segment(image, tmp_path / "seg.zarr", model=model, request=request())
    assert (first.was_finished, again.was_finished) == (False, True)
    assert again.summary == first.summary
    repeated = segment(image, tmp_path / "seg.zarr", model=model, request=request(overwrite=True))
    assert not repeated.was_finished
    assert results_of(repeated) == results_of(first)


def test_a_run_killed_before_its_receipt_writes_its_labels_again(tmp_path, image, model):
    made = segment(image, tmp_path / "seg.zarr", model=model, request=request())
    expected = results_of(made)
    for receipt in (made.folder / "receipts").iterdir():
        receipt.unlink()
    again = segment(image, tmp_path / "seg.zarr", model=model, request=request())
    assert not again.was_finished
    assert results_of(again) == expected


def stop_at_once():
    return True


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"options": FloodOptions(min_segment_size=101)}, "min_segment_size"),
        ({"box": Box((100, 200, 300), (124, 240, 360))}, r"image\.box"),
        ({"dtype": "bfloat16"}, "dtype"),
        ({"masks": [parse_mask("where: z < 103")]}, "mask"),
    ],
)
def test_a_run_with_other_options_refuses_to_mix(tmp_path, image, model, changes, named):
    with pytest.raises(StoppedError):
        segment(
            image, tmp_path / "s.zarr", model=model, request=request(), should_stop=stop_at_once
        )
    with pytest.raises(RunConflictError, match=f"begun with .*{named} = .*--overwrite"):
        segment(image, tmp_path / "s.zarr", model=model, request=request(**changes))


def test_two_runs_on_one_destination_refuse_each_other(tmp_path, image, model):
    folder = state_folder(str(tmp_path / "seg.zarr"))
    folder.mkdir()
    with (
        exclusive(folder / "lock", what="the other run"),
        pytest.raises(RunConflictError, match="another process"),
    ):
        segment(image, tmp_path / "seg.zarr", model=model, request=request())


def test_what_no_run_has_made_is_kept(tmp_path, image, model):
    with create_volume(tmp_path / "mine.zarr", shape=(3, 3, 3), dtype=np.uint8) as volume:
        volume.write(volume.box, np.full((3, 3, 3), 7, np.uint8))
    with pytest.raises(DestinationExistsError, match="no run of floodem made it"):
        segment(image, tmp_path / "mine.zarr", model=model, request=request())
    assert (read(tmp_path / "mine.zarr") == 7).all()
    assert not state_folder(str(tmp_path / "mine.zarr")).exists()
    made = segment(image, tmp_path / "mine.zarr", model=model, request=request(overwrite=True))
    assert made.summary["segments"] > 0


def test_other_datasets_of_the_destination_file_stay(tmp_path, image, model):
    made = segment(image, image.replace("@raw", "@labels"), model=model, request=request())
    np.testing.assert_array_equal(read(image), bright_tubes()[0])
    assert made.folder.name == "em.h5@labels.floodem"
    with h5py.File(tmp_path / "em.h5") as file:
        assert sorted(file) == ["labels", "raw"]


@pytest.mark.parametrize(
    "destination",
    ["../out/seg.zarr", "zarr3://../out/seg", "../out/seg.n5", "precomputed://../out/seg"],
)
def test_a_destination_may_go_up(tmp_path, image, model, monkeypatch, destination):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    box = Box((100, 205, 300), (124, 240, 350))
    made = segment(image, destination, model=model, request=request(box=box))
    assert np.count_nonzero(read(made.uri)) > 0
    assert made.folder.resolve().parent == tmp_path / "out"


def test_every_rejected_seed_has_its_reason(tmp_path, image, model):
    grid = FloodOptions(
        min_segment_size=4800,
        min_boundary_dist=(1, 3, 3),
        seeds=SeedPolicySpec("PolicyGrid3d", {"step": 6}),
    )
    masks = [parse_mask("where: y < 210")]
    made = segment(
        image, tmp_path / "s.zarr", model=model, request=request(options=grid, seed_masks=masks)
    )
    rows = list(csv.DictReader((made.folder / "seeds.csv").read_text().splitlines()))
    counts = {
        reason: sum(row["reason"] == reason for row in rows)
        for reason in {row["reason"] for row in rows}
    }
    assert len(rows) + made.summary["segments"] == made.summary["counters"]["seeds"]
    assert counts.keys() >= {"masked", "inside segment", "weak seed", "too small"}
    raw = read(image)
    for row in rows:
        at = tuple(np.array([int(row[axis]) for axis in "zyx"]) - (100, 200, 300))
        if row["reason"] == "weak seed":
            assert raw[at] == DARK
        if row["reason"] in {"inside segment", "too small"}:
            assert raw[at] > DARK
        if row["reason"] == "masked":
            assert at[1] < 10


def test_a_mask_keeps_the_field_of_view_out(tmp_path, image, model):
    free = segment(image, tmp_path / "free.zarr", model=model, request=request())
    masked = segment(
        image,
        tmp_path / "masked.zarr",
        model=model,
        request=request(masks=[parse_mask("where: x >= 330")]),
    )
    labels = read(masked.uri)
    # positions are forbidden, voxels are not: predictions reach half a field of view further
    assert labels[:, :, 30:34].any()
    assert not labels[:, :, 34:].any()
    assert read(free.uri)[:, :, 34:].any()
    assert masked.summary["counters"]["skip_restricted_position"] > 0


def test_labels_that_are_there_already_stay(tmp_path, image, model):
    _, truth = bright_tubes()
    initial = np.where(truth == 2, 70, 0).astype(np.uint16)
    uri = str(tmp_path / "initial.zarr")
    with create_volume(uri, shape=initial.shape, dtype=np.uint16, offset=(100, 200, 300)) as volume:
        volume.write(volume.box, initial)
    made = segment(image, tmp_path / "s.zarr", model=model, request=request(init_segmentation=uri))
    labels = read(made.uri)
    np.testing.assert_array_equal(labels == 70, initial == 70)
    assert set(np.unique(labels)) == {0, 70, *range(71, 70 + int(truth.max()))}


@pytest.mark.parametrize(
    ("limit", "reason"),
    [({"max_calls": 3}, "max calls"), ({"max_voxels": 900}, "max voxels")],
)
def test_a_runaway_flood_ends_and_is_reported(tmp_path, image, model, limit, reason):
    options = FloodOptions(min_segment_size=100, **limit)
    made = segment(image, tmp_path / "s.zarr", model=model, request=request(options=options))
    origins = record(made.folder, "origins.json")["origins"]
    cut = [int(label) for label, origin in origins.items() if origin["end"] == reason]
    assert cut
    assert made.summary["cut_short"] == cut
    if "max_calls" in limit:
        assert max(origin["iters"] for origin in origins.values()) == 3


def test_given_seeds_are_flooded_in_their_order_and_far_ones_are_named(tmp_path, image, model):
    points = tmp_path / "points.csv"
    points.write_text("z,y,x\n118,220,330\n105,206,330\n101,201,301\n")
    options = FloodOptions(min_segment_size=100, seeds=parse_seeds(str(points)))
    made = segment(image, tmp_path / "s.zarr", model=model, request=request(options=options))
    origins = record(made.folder, "origins.json")["origins"]
    assert [origins[i]["start_zyx"] for i in "12"] == [[118, 220, 330], [105, 206, 330]]
    assert any("1 of the given seeds" in notice for notice in made.notices)


def test_a_block_without_seeds_says_so(tmp_path, model):
    np.save(tmp_path / "flat.npy", np.full((24, 40, 64), 130, np.uint8))
    made = segment(tmp_path / "flat.npy", tmp_path / "s.zarr", model=model, request=request())
    assert any("no seed" in notice for notice in made.notices)
    assert not read(made.uri).any()


@pytest.mark.parametrize(
    ("threshold", "inside_voxels", "comes_back"),
    [(0.0, 27, False), (0.0, 14, False), (0.6, 27, False), (0.6, 14, True), (-1.0, 27, True)],
)
def test_disco_rule_keeps_a_flood_from_coming_back(threshold, inside_voxels, comes_back):
    """What the first call found outside stays so where the second sees enough of the object."""
    from floodem.flooding.canvas import Canvas

    outside, inside = -5.0, 5.0
    first = np.full(27, inside, np.float32)
    first[:13] = outside
    second = np.full(27, outside, np.float32)
    second[:inside_voxels] = inside

    class Scripted:
        fov = (3, 3, 3)
        answers = iter((first, second))

        def load_image(self, image):
            pass

        def predict(self, corner, seed_logits):
            return next(self.answers).reshape(3, 3, 3).copy()

    options = FloodOptions(disco_seed_threshold=threshold)
    canvas = Canvas(
        np.zeros((7, 7, 7), np.float32),
        Scripted(),
        options=options.completed(pad_value=0.05, move_threshold=0.9),
        deltas=(1, 1, 1),
    )
    canvas.plant((3, 3, 3))
    canvas.update((3, 3, 3))
    after = canvas.update((3, 3, 3)).ravel()
    np.testing.assert_array_equal(after[:13], inside if comes_back else outside)
    np.testing.assert_array_equal(after[13:], second[13:])


@pytest.mark.parametrize(
    "values",
    [
        {"init_activation": 1.0},
        {"pad_value": 0.0},
        {"move_threshold": -0.5},
        {"segment_threshold": 2.0},
        {"min_segment_size": 0},
        {"max_calls": 0},
        {"min_boundary_dist": (1, -1, 1)},
        {"disco_seed_threshold": 1.5},
    ],
)
def test_impossible_options_are_refused(values):
    with pytest.raises(OptionError, match=next(iter(values))):
        FloodOptions(**values)


def test_inputs_that_do_not_fit_are_refused_before_anything_is_written(tmp_path, image, model):
    np.save(tmp_path / "flat.npy", np.zeros((40, 64), np.uint8))
    np.save(tmp_path / "tiny.npy", np.zeros((5, 9, 9), np.uint8))
    np.save(tmp_path / "float.npy", np.zeros((24, 40, 64), np.float32))
    outside = Box((0, 0, 0), (24, 40, 64))
    cases = [
        (tmp_path / "flat.npy", {}, VolumeFormatError, "three axes"),
        (tmp_path / "tiny.npy", {}, GeometryError, "smaller than the network's field of view"),
        (image, {"box": outside}, GeometryError, "is not inside"),
        (image, {"init_segmentation": tmp_path / "float.npy"}, LabelError, "not labels"),
        (image, {"dtype": "float13"}, OptionError, "float13"),
    ]
    for source, changes, kind, words in cases:
        with pytest.raises(kind, match=words):
            segment(source, tmp_path / "s.zarr", model=model, request=request(**changes))
        assert not (tmp_path / "s.zarr").exists()
        assert not (tmp_path / "s.zarr.floodem").exists()


def test_too_little_memory_or_disk_is_said_before_starting(tmp_path, image, model, monkeypatch):
    for name in ("MEMORY_BYTES_PER_VOXEL", "DISK_BYTES_PER_VOXEL"):
        with monkeypatch.context() as patch:
            patch.setattr(job_module, name, 2**50)
            with pytest.raises(ResourceError, match=r"needs .* GB"):
                segment(image, tmp_path / "s.zarr", model=model, request=request())
    assert not (tmp_path / "s.zarr.floodem").exists()


def test_a_network_that_diverges_is_noticed(tmp_path, image):
    broken = bright_model()
    broken.network.last.bias.data[0] = float("nan")
    with pytest.raises(ModelError, match="not finite"):
        segment(image, tmp_path / "s.zarr", model=broken, request=request())


def test_model_files_are_opened_by_path(tmp_path, image, model):
    save_model(model, tmp_path / "m.safetensors")
    by_path = segment(
        image, tmp_path / "a.zarr", model=tmp_path / "m.safetensors", request=request()
    )
    by_value = segment(image, tmp_path / "b.zarr", model=model, request=request())
    assert results_of(by_path) == results_of(by_value)
