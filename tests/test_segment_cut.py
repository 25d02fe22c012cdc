"""A volume cut into blocks becomes one segmentation, whoever does it and however it stops."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest

import floodem
from cut_runs import (
    BLOCKS,
    CUT,
    OFFSET,
    OPTIONS,
    SHAPE,
    command,
    labels_of,
    require_same_objects,
    run,
    times_begun,
    write_inputs,
)
from floodem.assembly.planning import planned
from floodem.assembly.request import CutOptions
from floodem.assembly.sources import close_sources, read_image
from floodem.cluster import Crew, Shard
from floodem.errors import (
    DestinationExistsError,
    GeometryError,
    OptionError,
    RunConflictError,
    ShardDoneError,
    StoppedError,
    TasksFailedError,
)
from floodem.flooding.masks import parse_mask
from floodem.flooding.request import SegmentRequest
from floodem.geometry import Box, VoxelSize
from floodem.volumes import create_volume, open_volume
from floodem.volumes.source import VolumeSource


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cut")


@pytest.fixture(scope="module")
def inputs(folder):
    return write_inputs(folder)


@pytest.fixture(scope="module")
def uncut(inputs, folder):
    return labels_of(run(inputs, folder / "uncut.zarr", cut=None).uri)


@pytest.fixture(scope="module")
def made(inputs, folder):
    return run(inputs, folder / "cut.zarr")


def test_a_cut_volume_has_the_objects_of_the_uncut_one(made, uncut):
    labels = labels_of(made.uri)
    require_same_objects(labels, uncut)
    assert made.segments == len(np.unique(labels)) - 1
    assert labels.dtype == np.uint64
    assert made.covered == pytest.approx(np.count_nonzero(labels) / labels.size)


def test_ids_count_from_one_without_gaps(made):
    labels = labels_of(made.uri)
    np.testing.assert_array_equal(np.unique(labels), np.arange(made.segments + 1))


def test_the_result_knows_where_it_lies_and_has_coarser_levels(inputs, tmp_path, made):
    found = run(inputs, tmp_path / "seg.zarr", cut=replace(CUT, levels=1))
    with open_volume(found.uri) as volume:
        assert volume.box == Box.from_shape(SHAPE, start=OFFSET)
        assert volume.voxel_size == VoxelSize(30, 6, 6)
        finest, coarse = (level.read() for level in volume.levels)
    np.testing.assert_array_equal(finest, labels_of(made.uri))
    assert set(np.unique(coarse).tolist()) <= set(range(made.segments + 1))
    assert coarse.shape == (37, 20, 32)


def test_every_block_leaves_its_record(made):
    work = made.folder
    for block in range(2):
        key = f"0000-000{block}-0000"
        origins = json.loads((work / "blocks" / f"{key}.origins.json").read_text())
        assert all(
            Box.from_shape(SHAPE, start=OFFSET).contains_point(tuple(origin["start_zyx"]))
            for origin in origins["origins"].values()
        )
        assert (work / "blocks" / f"{key}.overlaps.json").exists()
        assert (work / "blocks" / f"{key}.seeds.csv").exists()
        assert "counters:" in (work / "blocks" / f"{key}.log").read_text()
        assert (work / "receipts" / "floods" / f"{key}.json").exists()
    assert made.summary["blocks"] == BLOCKS == len(times_begun(work))


def test_the_table_says_what_was_joined_and_what_was_refused(made):
    with open(made.folder / "joins.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    joined = [row for row in rows if row["verdict"] == "joined"]
    assert len(joined) == made.summary["joined"] > 0
    assert len(rows) == made.summary["joined"] + made.summary["refused"]
    assert all(row["id_a"] == row["id_b"] for row in joined)


@pytest.mark.parametrize(
    ("block", "halo"),
    [((37, 40, 30), (9, 9, 12)), ((24, 20, 64), (12, 10, 9)), ((20, 20, 40), None)],
)
def test_any_cut_gives_the_same_objects(inputs, tmp_path, uncut, block, halo):
    cut = CutOptions(block=block, halo=halo, min_shared=1)
    require_same_objects(labels_of(run(inputs, tmp_path / "seg.zarr", cut=cut).uri), uncut)


@pytest.mark.parametrize(
    "crew",
    [
        Crew(workers=2),
        pytest.param(Crew(cluster="local:2"), marks=pytest.mark.slow),
    ],
    ids=["two processes", "a cluster"],
)
def test_the_result_does_not_depend_on_the_crew(inputs, tmp_path, made, crew):
    found = run(inputs, tmp_path / "seg.zarr", crew=crew)
    np.testing.assert_array_equal(labels_of(found.uri), labels_of(made.uri))
    assert (found.folder / "joins.csv").read_bytes() == (made.folder / "joins.csv").read_bytes()


def test_shards_in_any_order_make_the_same_volume(inputs, tmp_path, made):
    for number in (3, 1):
        with pytest.raises(ShardDoneError, match="left"):
            run(inputs, tmp_path / "seg.zarr", crew=Crew(shard=Shard(number=number, count=3)))
    found = run(inputs, tmp_path / "seg.zarr", crew=Crew(shard=Shard(number=2, count=3)))
    np.testing.assert_array_equal(labels_of(found.uri), labels_of(made.uri))
    assert set(times_begun(found.folder).values()) == {1}


@pytest.mark.parametrize("name", ["seg.h5@labels", "seg.nii", "seg.ome.zarr", "precomputed://seg"])
def test_every_kind_of_destination_gets_the_same_labels(inputs, tmp_path, made, name):
    kind, _, path = name.rpartition("://")
    found = run(inputs, f"{kind}://{tmp_path / path}" if kind else str(tmp_path / path))
    np.testing.assert_array_equal(labels_of(found.uri), labels_of(made.uri))
    assert not list(found.folder.glob("labels.*"))


def test_a_run_on_a_server_makes_the_same_volume(inputs, made, bucket):
    found = run(inputs, f"zarr://{bucket.root}/seg")
    np.testing.assert_array_equal(labels_of(found.uri), labels_of(made.uri))
    again = run(inputs, f"zarr://{bucket.root}/seg")
    assert again.was_finished


def test_a_finished_run_is_not_done_again(inputs, made, folder):
    again = run(inputs, folder / "cut.zarr")
    assert again.was_finished
    assert again.summary == made.summary
    assert set(times_begun(made.folder).values()) == {1}


def test_a_finished_run_is_found_without_saying_again_how_it_was_cut(inputs, folder, made):
    again = run(inputs, folder / "cut.zarr", cut=CutOptions(min_shared=1))
    assert again.was_finished


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (
            {"request": SegmentRequest(options=replace(OPTIONS, pad_value=0.1), device="cpu")},
            "pad_value",
        ),
        ({"cut": replace(CUT, agreement=0.9)}, "agreement"),
        ({"cut": replace(CUT, block=(24, 20, 32))}, "plan"),
    ],
)
def test_a_run_with_other_options_is_refused_and_named(inputs, folder, made, changes, named):
    before = labels_of(made.uri)
    with pytest.raises(RunConflictError, match=named):
        run(inputs, folder / "cut.zarr", **changes)
    np.testing.assert_array_equal(labels_of(made.uri), before)


def test_overwrite_begins_again(inputs, tmp_path):
    first = run(inputs, tmp_path / "seg.zarr")
    request = SegmentRequest(options=OPTIONS, device="cpu", overwrite=True)
    second = run(
        inputs, tmp_path / "seg.zarr", request=request, cut=replace(CUT, block=(20, 40, 32))
    )
    assert second.summary["blocks"] != first.summary["blocks"]
    require_same_objects(labels_of(second.uri), labels_of(first.uri))


def test_a_foreign_volume_at_the_destination_stays(inputs, tmp_path):
    with create_volume(tmp_path / "seg.zarr", shape=(8, 8, 8), dtype=np.uint8) as volume:
        volume.write(volume.box, np.ones((8, 8, 8), np.uint8))
    with pytest.raises(DestinationExistsError, match="no run of floodem made it"):
        run(inputs, tmp_path / "seg.zarr")
    assert labels_of(tmp_path / "seg.zarr").all()


def test_a_stopped_run_goes_on_and_repeats_nothing(inputs, tmp_path, made):
    calls = 0

    def should_stop() -> bool:
        nonlocal calls
        calls += 1
        return calls > 40

    with pytest.raises(StoppedError, match="run the same command again"):
        run(inputs, tmp_path / "seg.zarr", should_stop=should_stop)
    finished = {path.stem for path in (tmp_path / "seg.zarr.floodem/receipts/floods").iterdir()}
    begun = times_begun(tmp_path / "seg.zarr.floodem")
    found = run(inputs, tmp_path / "seg.zarr")
    np.testing.assert_array_equal(labels_of(found.uri), labels_of(made.uri))
    after = times_begun(found.folder)
    assert all(after[key] == begun[key] for key in finished & set(begun))


def test_blocks_that_take_too_long_are_named_and_the_others_done(inputs, tmp_path, made):
    with pytest.raises(TasksFailedError, match=r"the limit\s+of a block"):
        run(inputs, tmp_path / "seg.zarr", cut=replace(CUT, block_seconds=1e-9))
    found = run(inputs, tmp_path / "seg.zarr")
    np.testing.assert_array_equal(labels_of(found.uri), labels_of(made.uri))


def test_initial_segments_keep_their_ids_over_all_blocks(inputs, tmp_path, uncut):
    initial = np.where(uncut == 2, np.uint64(7_000_000_000), np.uint64(0))
    with create_volume(
        tmp_path / "initial.zarr", shape=SHAPE, dtype=np.uint64, offset=OFFSET
    ) as volume:
        volume.write(volume.box, initial)
    request = SegmentRequest(
        options=OPTIONS, device="cpu", init_segmentation=tmp_path / "initial.zarr"
    )
    labels = labels_of(run(inputs, tmp_path / "seg.zarr", request=request).uri)
    np.testing.assert_array_equal(labels == 7_000_000_000, uncut == 2)
    require_same_objects(labels, uncut)


def test_wholly_masked_blocks_are_not_flooded(inputs, tmp_path, made):
    request = SegmentRequest(
        options=OPTIONS, device="cpu", masks=[parse_mask(f"where: x < {OFFSET[2] + 46}")]
    )
    found = run(inputs, tmp_path / "seg.zarr", request=request)
    receipts = [
        json.loads(path.read_text())["result"]
        for path in (found.folder / "receipts" / "floods").glob("*-0000.json")
    ]
    assert receipts
    assert all(receipt["image_sha256"] is None for receipt in receipts)


def test_a_halo_that_leaves_nothing_to_compare_is_refused(inputs, tmp_path):
    with pytest.raises((GeometryError, OptionError), match=r"halo \(3, 9, 9\)"):
        run(inputs, tmp_path / "seg.zarr", cut=replace(CUT, halo=(3, 9, 9)))
    assert not (tmp_path / "seg.zarr.floodem").exists()


def test_probabilities_of_a_cut_volume_are_refused(inputs, tmp_path):
    request = replace(inputs["request"], probabilities=tmp_path / "p.zarr")
    with pytest.raises(OptionError, match="uncut volumes only"):
        run(inputs, tmp_path / "seg.zarr", request=request)


def test_a_plan_is_made_without_writing_anything(inputs, tmp_path):
    found = planned(
        inputs["image"],
        tmp_path / "seg.zarr",
        model=inputs["model"],
        request=inputs["request"],
        cut=CUT,
    )
    assert found.is_cut
    assert found.estimate.blocks == BLOCKS
    assert found.estimate.network_calls > 0
    assert not list(tmp_path.iterdir())


def test_a_plan_of_a_small_volume_has_one_block(inputs, tmp_path):
    found = planned(
        inputs["image"],
        tmp_path / "seg.zarr",
        model=inputs["model"],
        request=inputs["request"],
        cut=CutOptions(),
    )
    assert not found.is_cut
    assert found.estimate.blocks == 1


def test_a_plan_is_made_also_where_an_uncut_run_has_ended(inputs, tmp_path):
    run(inputs, tmp_path / "seg.zarr", cut=None)
    found = planned(
        inputs["image"],
        tmp_path / "seg.zarr",
        model=inputs["model"],
        request=inputs["request"],
        cut=CutOptions(),
    )
    assert not found.is_cut


def test_the_package_segments_volumes_of_any_size():
    assert floodem.segment.__module__ == "floodem.assembly.segment"


def test_the_command_cuts_prints_and_finds_itself_finished(folder, inputs, made, tmp_path):
    first = subprocess.run(
        command(folder, tmp_path / "seg.zarr"), capture_output=True, text=True, check=False
    )
    assert first.returncode == 0, first.stderr
    assert f"in {BLOCKS} blocks" in first.stdout
    assert "joins.csv" in first.stdout
    second = subprocess.run(
        command(folder, tmp_path / "seg.zarr", "--json"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert second.returncode == 0, second.stderr
    assert json.loads(second.stdout)["was_finished"]
    np.testing.assert_array_equal(labels_of(tmp_path / "seg.zarr"), labels_of(made.uri))


def test_the_command_prints_a_plan_and_writes_nothing(folder, inputs, tmp_path):
    printed = subprocess.run(
        command(folder, tmp_path / "seg.zarr", "--plan"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert printed.returncode == 0, printed.stderr
    assert f"{BLOCKS} blocks" in printed.stdout
    assert "network calls: about" in printed.stdout
    assert not list(tmp_path.iterdir())


def test_a_shard_that_is_done_ends_well(folder, inputs, tmp_path):
    printed = subprocess.run(
        command(folder, tmp_path / "seg.zarr", "--shard", "1/2"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert printed.returncode == 0, printed.stderr
    assert "shard" in printed.stdout + printed.stderr


def test_a_time_limit_stops_with_all_saved(folder, inputs, tmp_path):
    stopped = subprocess.run(
        command(folder, tmp_path / "seg.zarr", "--time-limit", "0.00001"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert stopped.returncode == 4, stopped.stderr
    assert "run the same command again" in stopped.stderr
    assert not (tmp_path / "seg.zarr").exists()


def test_the_command_segments_level_after_level(folder, inputs, tmp_path):
    with open_volume(inputs["image"]) as volume:
        image = volume.read()
    with create_volume(
        tmp_path / "em.zarr",
        shape=SHAPE,
        dtype=np.uint8,
        voxel_size=VoxelSize(30, 6, 6),
        levels=[(1, 1, 2)],
    ) as made:
        finest, coarse = made.levels
        finest.write(finest.box, image)
        coarse.write(coarse.box, image[..., ::2].copy())
    line = command(folder, tmp_path / "seg.zarr", "--levels", "1,0")
    line[line.index(str(folder / "em.zarr"))] = str(tmp_path / "em.zarr")
    printed = subprocess.run(line, capture_output=True, text=True, check=False)
    assert printed.returncode == 0, printed.stderr
    labels = labels_of(tmp_path / "seg.zarr")
    carried = labels_of(tmp_path / "seg.zarr.floodem" / "level-1" / "labels.zarr")
    upsampled = np.repeat(carried, 2, axis=2)
    assert upsampled.any()
    np.testing.assert_array_equal(labels[upsampled > 0], upsampled[upsampled > 0])


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--model", "other.safetensors"], "one level is segmented"),
        (["--levels", "0,1"], "coarse to fine"),
        (["--shard", "4/3"], "no shard"),
        (["--cluster", "somewhere"], "local:N"),
        (["--cluster", "tcp://127.0.0.1:1"], "--insecure"),
        (["--agreement", "0.5"], "agreement 0.5"),
        (["--time-limit", "0"], "leaves no time"),
        (["--block", "64,64"], "64,64"),
        (["--shard", "1/2", "--overwrite"], "--overwrite"),
    ],
)
def test_impossible_options_are_refused_and_nothing_is_written(
    folder, inputs, tmp_path, more, named
):
    printed = subprocess.run(
        command(folder, tmp_path / "seg.zarr", *more),
        capture_output=True,
        text=True,
        check=False,
    )
    assert printed.returncode in {2, 3}, printed.stderr
    assert named in printed.stderr
    assert "Traceback" not in printed.stderr
    assert not list(tmp_path.iterdir())


def test_a_result_that_was_removed_is_written_again_without_flooding(inputs, tmp_path, made):
    found = run(inputs, tmp_path / "seg.zarr")
    shutil.rmtree(tmp_path / "seg.zarr")
    again = run(inputs, tmp_path / "seg.zarr")
    np.testing.assert_array_equal(labels_of(again.uri), labels_of(made.uri))
    assert set(times_begun(found.folder).values()) == {1}


def test_blocks_are_joined_again_by_another_rule_without_flooding(inputs, tmp_path, made):
    found = run(inputs, tmp_path / "seg.zarr", cut=replace(CUT, min_shared=10**6))
    assert found.summary["joined"] == 0
    assert found.segments > made.segments
    again = run(inputs, tmp_path / "seg.zarr", cut=replace(CUT, joins_again=True))
    np.testing.assert_array_equal(labels_of(again.uri), labels_of(made.uri))
    assert set(times_begun(again.folder).values()) == {1}


def test_there_must_be_blocks_to_be_joined_again(inputs, tmp_path):
    with pytest.raises(OptionError, match="no flooded blocks"):
        run(inputs, tmp_path / "seg.zarr", cut=replace(CUT, joins_again=True))


def test_a_shard_without_blocks_of_its_own_is_refused(inputs, tmp_path):
    with pytest.raises(OptionError, match="give --block to all of them"):
        run(
            inputs,
            tmp_path / "seg.zarr",
            cut=CutOptions(),
            crew=Crew(shard=Shard(number=1, count=2)),
        )


def test_an_uncut_run_that_was_begun_goes_on_uncut(inputs, tmp_path, monkeypatch):
    asked = iter([False] * 3 + [True] * 1000)
    with pytest.raises(StoppedError):
        run(inputs, tmp_path / "seg.zarr", cut=None, should_stop=lambda: next(asked))
    monkeypatch.setattr("floodem.assembly.segment.available_memory", lambda: 10**6)
    found = run(inputs, tmp_path / "seg.zarr", cut=None)
    assert "blocks" not in found.summary


def test_workers_read_a_file_anew_that_has_changed(tmp_path):
    for grey in (1, 2):
        np.save(tmp_path / "em.npy", np.full((4, 4, 4), grey, np.uint8))
        found = read_image(VolumeSource(uri=str(tmp_path / "em.npy")), Box((0, 0, 0), (4, 4, 4)))
        assert (found == grey).all()
    close_sources()


def test_what_killed_processes_left_half_written_is_removed(inputs, tmp_path):
    blocks = tmp_path / "seg.zarr.floodem" / "blocks"
    blocks.mkdir(parents=True)
    (blocks / ".0000-0000-0001.zarr.4711-0.partial").mkdir()
    (blocks / ".0000-0000-0001.npz.4711.partial").write_bytes(b"half")
    run(inputs, tmp_path / "seg.zarr")
    assert not list(blocks.glob(".*"))
