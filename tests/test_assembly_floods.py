"""Blocks of a large volume are flooded one by one, and leave labels, tables and records."""

from __future__ import annotations

import dataclasses
import json
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from bright import bright_model, bright_tubes
from flood_cases import (
    OFFSET,
    SHAPE,
    SMALL,
    VOXEL_SIZE,
    flood_tasks,
    read_labels,
    record,
    write_volume,
)
from floodem.assembly.floods import FloodTask, flood_block_task
from floodem.assembly.sources import InitialLabels, close_sources
from floodem.cluster.context import TaskContext, entering
from floodem.errors import (
    DeviceError,
    FloodemError,
    GeometryError,
    LabelError,
    ModelError,
    VolumeNotFoundError,
)
from floodem.flooding.masks import parse_mask
from floodem.flooding.request import SegmentRequest
from floodem.flooding.segment import segment
from floodem.geometry import Box, VoxelSize
from floodem.network.model_file import load_model, save_model
from floodem.network.shipped import SHIPPED
from floodem.volumes import open_volume
from floodem.volumes.servers.transport import open_store
from floodem.volumes.source import VolumeSource


@pytest.fixture(autouse=True)
def _closed():
    yield
    close_sources()


def alone(task: FloodTask, destination: Path, **changes):
    """Segment the halo of a block as an uncut volume; return its labels and the rest."""
    request = dataclasses.replace(task.request, box=task.block.halo, **changes)
    made = segment(task.image.uri, destination, model=task.model, request=request)
    with open_volume(made.uri) as volume:
        return volume.read(), made


def asking(**masks):
    return SegmentRequest(
        options=SMALL,
        device="cpu",
        **{name: [parse_mask(text) for text in texts] for name, texts in masks.items()},
    )


def test_a_block_becomes_what_its_halo_alone_would(tmp_path):
    _, task = flood_tasks(tmp_path)
    made = flood_block_task(task)
    expected, uncut = alone(task, tmp_path / "alone.zarr")
    labels = read_labels(task)
    np.testing.assert_array_equal(labels, expected)
    assert labels.dtype == np.uint32
    assert made["segments"] == uncut.segments > 0
    assert made["counters"] == uncut.summary["counters"]
    assert made["covered"] == np.count_nonzero(expected)
    core = expected[task.block.core.slices(origin=task.block.halo.start)]
    assert made["core_covered"] == np.count_nonzero(core)


def test_the_table_says_what_the_labels_hold(tmp_path):
    _, task = flood_tasks(tmp_path)
    made = flood_block_task(task)
    labels, table = read_labels(task), task.store.read_table(task.block)
    core = labels[task.block.core.slices(origin=task.block.halo.start)]
    assert len(table) == made["segments"]
    assert table.carried.tolist() == []
    for label in range(1, len(table) + 1):
        assert table.voxels[label - 1] == np.count_nonzero(labels == label)
        assert table.core_voxels[label - 1] == np.count_nonzero(core == label)
        start = tuple(table.starts[label - 1] - task.block.halo.start)
        assert labels[start] == label
    assert table.calls.sum() <= made["counters"]["network_calls"]
    assert not table.is_cut_short.any()


def test_floods_that_hit_a_limit_are_marked(tmp_path):
    options = dataclasses.replace(SMALL, max_calls=2)
    _, task = flood_tasks(tmp_path, request=SegmentRequest(options=options, device="cpu"))
    flood_block_task(task)
    table = task.store.read_table(task.block)
    assert len(table)
    np.testing.assert_array_equal(table.is_cut_short, table.calls == 2)
    assert table.is_cut_short.any()


def test_the_record_counts_in_the_volume_and_says_who_how_long_and_how_it_ended(tmp_path):
    _, task = flood_tasks(tmp_path)
    made = flood_block_task(task)
    _, uncut = alone(task, tmp_path / "alone.zarr")
    for ending in ("overlaps.json", "seeds.csv"):
        assert record(task, ending) == record_of(uncut, ending)
    origins, expected = record(task, "origins.json"), record_of(uncut, "origins.json")
    for origin in (*origins["origins"].values(), *expected["origins"].values()):
        assert origin.pop("seconds") >= 0
    assert origins == expected
    log = record(task, "log")
    for text in ("begun on", made["host"], "cpu, float32", "flooding", "network_calls", "done:"):
        assert text in log
    assert set(made["seconds"]) == {"masks", "reading", "seeds", "waiting", "flooding", "writing"}
    assert made["device"] == "cpu"
    assert made["dtype"] == "float32"


def record_of(made, ending):
    text = (made.folder / ending).read_text()
    return json.loads(text) if ending.endswith("json") else text


def test_a_task_survives_pickling_and_its_result_json(tmp_path):
    task = flood_tasks(tmp_path)[0]
    made = flood_block_task(pickle.loads(pickle.dumps(task)))
    assert json.loads(json.dumps(made)) == made


def test_what_is_left_of_a_block_does_not_depend_on_when_or_what_else_was_flooded(tmp_path):
    def files_after(folder, order):
        folder.mkdir()
        tasks = flood_tasks(folder)
        results = {at: flood_block_task(tasks[at]) for at in order}
        store = open_store(tasks[0].store.address)
        left = {
            name: store.read(name)
            for name in store.names()
            if not name.endswith((".log", ".origins.json"))  # they hold times
        }
        numbers = {
            at: (one["segments"], one["counters"], one["image_sha256"])
            for at, one in results.items()
        }
        return left, numbers

    first, second = files_after(tmp_path / "a", [0, 1]), files_after(tmp_path / "b", [1, 0])
    assert first == second


@pytest.mark.parametrize("kind", ["masks", "seed_masks", "barriers"])
def test_a_wholly_masked_block_is_never_opened_and_leaves_an_empty_table(tmp_path, kind):
    task = flood_tasks(tmp_path, request=asking(**{kind: ["where: x < 400"]}))[0]
    made = flood_block_task(
        dataclasses.replace(task, image=VolumeSource(uri=str(tmp_path / "not there.zarr")))
    )
    assert made["image_sha256"] is None
    assert (made["segments"], made["covered"], made["core_covered"]) == (0, 0, 0)
    assert made["counters"] == {"seeds": 0, "network_calls": 0}
    assert len(task.store.read_table(task.block)) == 0
    with pytest.raises(VolumeNotFoundError):
        task.store.open_labels(task.block)
    assert "done: 0 segments" in record(task, "log")


def test_masks_of_two_kinds_close_a_block_together(tmp_path):
    request = asking(masks=["where: y < 220"], seed_masks=["where: y >= 220"])
    task = flood_tasks(tmp_path, request=request)[0]
    made = flood_block_task(
        dataclasses.replace(task, image=VolumeSource(uri=str(tmp_path / "not there.zarr")))
    )
    assert made["segments"] == 0


def test_a_block_with_one_open_place_for_a_field_of_view_is_flooded(tmp_path):
    # the centre of a field of view of 7,9,9 can lie at 103:121,204:236,... only
    closed = asking(masks=["not where: z < 103 or y < 204 or x < 304"])
    task = flood_tasks(tmp_path, request=closed)[0]
    assert flood_block_task(task)["image_sha256"] is None
    opened = asking(masks=["not where: z < 103 or y < 205 or x < 304"])
    made = flood_block_task(dataclasses.replace(task, request=opened))
    assert made["image_sha256"] is not None


@pytest.mark.parametrize(
    "masks",
    [
        {"masks": ["image:min=0,max=30", "where: x > 390"]},
        {"masks": ["image:min=210"], "seed_masks": ["where: y < 215"]},
        {"barriers": ["where: x > 380 and x < 390"], "seed_masks": ["image:max=60"]},
    ],
)
def test_masks_of_image_and_place_do_in_a_block_what_they_do_uncut(tmp_path, masks):
    _, task = flood_tasks(tmp_path, request=asking(**masks))
    made = flood_block_task(task)
    expected, uncut = alone(task, tmp_path / "alone.zarr")
    assert made["counters"] == uncut.summary["counters"]
    np.testing.assert_array_equal(read_labels(task), expected)


def test_reports_tell_parts_voxels_and_network_calls(tmp_path):
    task = flood_tasks(tmp_path)[0]
    told = []
    with entering(TaskContext(tells=told.append)):
        made = flood_block_task(task)
    parts = [values["part"] for values in told]
    assert list(dict.fromkeys(parts)) == [
        "masks", "reading", "seeds", "waiting", "flooding", "writing"
    ]  # fmt: skip
    steps = [values for values in told if "voxels" in values]
    assert steps[-1]["network_calls"] == made["counters"]["network_calls"]
    assert all(values["of"] == task.block.halo.size for values in steps)
    done = [values["voxels"] for values in steps]
    assert done[0] < done[-1] == task.block.halo.size


def test_an_image_that_cannot_be_read_is_said_and_logged(tmp_path):
    task = flood_tasks(tmp_path)[0]
    bad = np.full(SHAPE, np.nan, np.float32)
    uri = write_volume(tmp_path / "bad.zarr", bad)
    with pytest.raises(FloodemError, match="such voxels"):
        flood_block_task(dataclasses.replace(task, image=VolumeSource(uri=uri)))
    assert "failed: VolumeFormatError" in record(task, "log")
    with pytest.raises(VolumeNotFoundError):
        flood_block_task(
            dataclasses.replace(task, image=VolumeSource(uri=str(tmp_path / "gone.zarr")))
        )
    assert record(task, "log").count("failed: ") == 2


def test_another_network_in_the_same_place_is_refused(tmp_path):
    task = flood_tasks(tmp_path)[0]
    save_model(bright_model(depth=2), task.model, overwrite=True)
    with pytest.raises(ModelError, match="not the network that the run began with"):
        flood_block_task(task)


def test_a_worker_that_computes_otherwise_is_refused(tmp_path):
    first, second = flood_tasks(tmp_path)
    flood_block_task(first)
    other = dataclasses.replace(second.request, dtype="bfloat16")
    with pytest.raises(DeviceError, match="cpu in bfloat16, and other blocks .* cpu in float32"):
        flood_block_task(dataclasses.replace(second, request=other))


def test_the_shipped_network_floods_a_block(tmp_path):
    image = np.random.default_rng(0).integers(100, 156, (40, 40, 40)).astype(np.uint8)
    (task,) = flood_tasks(tmp_path, image=image, core=(40, 40, 40), margin=(0, 0, 0))
    name = next(iter(SHIPPED))
    task = dataclasses.replace(task, model=name, model_digest=load_model(name).digest())
    made = flood_block_task(task)
    expected, uncut = alone(task, tmp_path / "alone.zarr")
    assert made["counters"] == uncut.summary["counters"]
    assert made["covered"] == np.count_nonzero(expected)


FAR_IDS = np.array([0, 2**63 + 5, 7, 2**40], np.uint64)


def initial_labels(tmp_path, *, ratio=(1, 1, 1)):
    """Labels with ids of any size over two tubes, on voxels that are `ratio` times as large."""
    truth = bright_tubes(SHAPE)[1]
    few = np.where(truth <= 3, truth, 0)
    few[:, :, 40:] = 0
    coarse = few[:: ratio[0], :: ratio[1], :: ratio[2]]
    start = tuple(at // by for at, by in zip(OFFSET, ratio, strict=True))
    size = VoxelSize(*(a * b for a, b in zip(VOXEL_SIZE.zyx_nm, ratio, strict=True)))
    uri = write_volume(tmp_path / "initial.zarr", FAR_IDS[coarse], offset=start, voxel_size=size)
    fine = FAR_IDS[coarse]
    for axis, by in enumerate(ratio):
        fine = fine.repeat(by, axis=axis)
    return uri, fine


@pytest.mark.parametrize("ratio", [(1, 1, 1), (1, 2, 4), (4, 4, 4)])
def test_carried_segments_keep_their_ids_outside_and_new_ones_follow(tmp_path, ratio):
    uri, fine = initial_labels(tmp_path, ratio=ratio)
    source = InitialLabels(uri=uri, ratio=ratio)
    task = flood_tasks(tmp_path, initial=source)[0]
    source.require_usable(task.store.plan.box)
    made = flood_block_task(task)
    labels, table = read_labels(task), task.store.read_table(task.block)
    here = fine[task.block.halo.slices(origin=OFFSET)]
    ids = np.unique(here[here > 0])
    assert table.carried.tolist() == ids.tolist() == sorted(FAR_IDS[1:].tolist())
    assert made["carried"] == 3 < made["segments"] == len(table)
    for number, outside in enumerate(ids, start=1):
        np.testing.assert_array_equal(labels == number, here == outside)
    # the same as an uncut run that begins with the local ids
    local = np.searchsorted(ids, here).astype(np.uint32) + (here > 0)
    local[here == 0] = 0
    begun = write_volume(tmp_path / "local.zarr", local, offset=task.block.halo.start)
    expected, uncut = alone(task, tmp_path / "alone.zarr", init_segmentation=begun)
    np.testing.assert_array_equal(labels, expected)
    assert made["counters"] == uncut.summary["counters"]
    assert table.starts.shape == (made["segments"] - 3, 3)


def test_only_what_lies_in_the_halo_is_carried(tmp_path):
    uri, _ = initial_labels(tmp_path)
    _, last = flood_tasks(tmp_path, initial=InitialLabels(uri=uri))
    made = flood_block_task(last)
    assert made["carried"] == 0
    assert made["segments"] > 0


def test_the_initial_segmentation_of_a_request_is_carried(tmp_path):
    uri, _ = initial_labels(tmp_path)
    request = SegmentRequest(options=SMALL, device="cpu", init_segmentation=uri)
    assert flood_block_task(flood_tasks(tmp_path, request=request)[0])["carried"] == 3


def test_a_masked_block_keeps_what_it_carries(tmp_path):
    uri, fine = initial_labels(tmp_path)
    task = flood_tasks(
        tmp_path, initial=InitialLabels(uri=uri), request=asking(masks=["where: x >= 0"])
    )[0]
    made = flood_block_task(
        dataclasses.replace(task, image=VolumeSource(uri=str(tmp_path / "not there.zarr")))
    )
    assert (made["segments"], made["carried"], made["image_sha256"]) == (3, 3, None)
    np.testing.assert_array_equal(
        read_labels(task) > 0, fine[task.block.halo.slices(origin=OFFSET)] > 0
    )


def test_initial_labels_that_do_not_suit_are_refused_beforehand(tmp_path):
    uri, _ = initial_labels(tmp_path)
    box = Box.from_shape(SHAPE, start=OFFSET)
    with pytest.raises(GeometryError, match="give labels of the whole box"):
        InitialLabels(uri=uri).require_usable(box.grow((0, 0, 1)))
    with pytest.raises(GeometryError, match="give labels of the whole box"):
        InitialLabels(uri=uri, ratio=(2, 2, 2)).require_usable(box)
    with pytest.raises(GeometryError, match="whole numbers"):
        InitialLabels(uri=uri, ratio=(0, 1, 1))
    grey = write_volume(tmp_path / "grey.zarr", np.zeros(SHAPE, np.float32))
    with pytest.raises(LabelError, match="not labels"):
        InitialLabels(uri=grey).require_usable(box)
    with pytest.raises(LabelError, match="not labels"):
        InitialLabels(uri=grey).read(box)


def test_every_block_says_what_it_covers(tmp_path):
    tasks = flood_tasks(tmp_path)
    totals = Counter()
    for task in tasks:
        made = flood_block_task(task)
        totals["core"] += made["core_covered"]
        labels = read_labels(task)
        assert made["covered"] == np.count_nonzero(labels)
    truth = bright_tubes(SHAPE)[1]
    assert 0.8 * np.count_nonzero(truth) < totals["core"] <= np.count_nonzero(truth)
