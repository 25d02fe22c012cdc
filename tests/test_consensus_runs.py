"""A consensus that is stopped, shared, or written elsewhere gives the same voxels."""

from __future__ import annotations

import json

import numpy as np
import pytest

from consensus_cases import SMALL, agreed, blobs, read, store, twin
from floodem.assembly.consensus import ConsensusOptions, make_consensus
from floodem.assembly.verification import verify_cut_run
from floodem.cluster import Crew, Shard
from floodem.errors import (
    DestinationExistsError,
    RunConflictError,
    ShardDoneError,
    StoppedError,
    VolumeFormatError,
)
from floodem.geometry import VoxelSize
from floodem.volumes import open_volume

SHAPE, BLOCK = (13, 16, 18), (7, 8, 18)
BLOCKS = 4


@pytest.fixture(scope="module")
def labels():
    return blobs(SHAPE, seed=1, offset_id=2**40), blobs(SHAPE, seed=2, step=4)


@pytest.fixture(scope="module")
def expected(labels):
    return twin(*labels, SMALL)


@pytest.fixture(scope="module")
def files(tmp_path_factory, labels):
    folder = tmp_path_factory.mktemp("consensus")
    return [
        store(folder / f"{name}.zarr", one, voxel_size=VoxelSize(30, 6, 6), offset=(5, -3, 100))
        for name, one in zip("ab", labels, strict=True)
    ]


def make(files, destination, **changes):
    return make_consensus(*files, destination, **{"options": SMALL, "block": BLOCK, **changes})


def test_workers_leave_what_one_process_leaves(files, expected, tmp_path):
    found = make(files, tmp_path / "out.zarr", crew=Crew(workers=2))
    np.testing.assert_array_equal(read(found.uri), expected)


def stages_of(files, folder):
    seen = []
    make(files, folder / "whole.zarr", progress=lambda report: seen.append(report.stage))
    return list(dict.fromkeys(seen))


def test_a_run_goes_on_from_every_stage_that_it_was_stopped_in(files, expected, tmp_path):
    stages = stages_of(files, tmp_path)
    assert stages == [
        "comparing blocks",
        "looking over faces",
        "reading pieces of A",
        "joining pieces of A",
        "numbering objects of A",
        "reading pieces of B",
        "joining pieces of B",
        "numbering objects of B",
        "counting overlaps",
        "numbering pairs",
        "writing labels",
    ]
    for number, stage in enumerate(stages):
        destination, told = tmp_path / f"{number}.zarr", []
        with pytest.raises(StoppedError):
            make(
                files,
                destination,
                progress=lambda report, told=told: told.append(report),
                should_stop=lambda told=told, stage=stage: (
                    bool(told) and told[-1].stage == stage and 0 < told[-1].done < told[-1].total
                ),
            )
        assert not destination.exists()
        again = []
        found = make(files, destination, progress=lambda report, again=again: again.append(report))
        assert not found.was_finished
        np.testing.assert_array_equal(read(found.uri), expected)
        # What was done before is not done again: the first report of a stage counts it.
        before = {report.stage: report.done for report in told if report.unit == "blocks"}
        if stage in ("comparing blocks", "looking over faces", "writing labels"):
            first = next(report for report in again if report.stage == stage)
            assert first.done == before[stage]


def test_a_finished_run_is_found_and_does_nothing(files, tmp_path):
    first = make(files, tmp_path / "out.zarr")
    again = make(files, tmp_path / "out.zarr", should_stop=lambda: True)
    assert again.was_finished
    assert again.summary == first.summary
    assert again.to_json()["segments"] == first.segments


def test_shards_leave_what_one_process_leaves(files, expected, tmp_path):
    destination, ended = tmp_path / "out.zarr", []
    for number in (2, 1):
        try:
            make(files, destination, crew=Crew(shard=Shard(number=number, count=2)))
        except ShardDoneError as done:
            ended.append(str(done))
    assert len(ended) == 1
    assert "shard 2/2 is done" in ended[0]
    np.testing.assert_array_equal(read(destination), expected)


@pytest.mark.parametrize("name", ["out.h5@seg", "out.zarr3", "precomputed://{}/pre", "out.nii.gz"])
def test_labels_go_to_other_formats(files, labels, tmp_path, name):
    """Small ids, as not every format holds those beyond 32 bits."""
    small = store(tmp_path / "a.zarr", (labels[0] % 2**40).astype(np.uint32), offset=(5, -3, 100))
    uri = name.format(tmp_path) if "{}" in name else str(tmp_path / name)
    if name.endswith("zarr3"):
        uri = f"zarr3://{uri}"
    found = agreed(small, files[1], uri, options=SMALL, block=BLOCK)
    expected = twin((labels[0] % 2**40).astype(np.uint32), labels[1], SMALL)
    np.testing.assert_array_equal(found, expected)


def test_a_consensus_is_written_to_a_server_and_read_from_one(
    no_servers, s3, files, labels, expected
):
    uris = [
        store(f"zarr://s3://bucket/{name}", one) for name, one in zip("ab", labels, strict=True)
    ]
    found = make(uris, "zarr://s3://bucket/to/seg")
    np.testing.assert_array_equal(read(found.uri), expected)
    assert found.to_json()["folder"] == "s3://bucket/to/seg.floodem"
    assert any(name.startswith("to/seg.floodem/consensus/a/") for name in s3.objects)
    assert make(uris, "zarr://s3://bucket/to/seg").was_finished


def test_the_result_can_be_verified_like_any_other(files, tmp_path):
    destination = tmp_path / "out.zarr"
    make(files, destination)
    assert verify_cut_run(str(destination)).damages == ()
    with open_volume(destination, writable=True) as volume:
        volume.write(volume.box, volume.read() + 1)
    assert verify_cut_run(str(destination)).damages


def test_other_inputs_and_options_are_refused(files, labels, tmp_path):
    destination = tmp_path / "out.zarr"
    make(files, destination)
    before = read(destination)
    with pytest.raises(RunConflictError, match=r"options\.split_min_size = 3, now it is 4"):
        make(files, destination, options=ConsensusOptions(min_size=2, split_min_size=4))
    with pytest.raises(RunConflictError, match="was begun with"):
        make(files[::-1], destination)
    assert (read(destination) == before).all()
    other = ConsensusOptions(min_size=2, split_min_size=4)
    make(files, destination, options=other, overwrite=True)
    np.testing.assert_array_equal(read(destination), twin(*labels, other))
    record = json.loads((tmp_path / "out.zarr.floodem" / "run.json").read_text())
    assert record["identity"]["options"]["split_min_size"] == 4


def test_a_volume_that_no_run_made_is_left_alone(files, tmp_path):
    uri = store(tmp_path / "mine.zarr", np.ones((2, 2, 2), np.uint8))
    with pytest.raises(DestinationExistsError, match="no run of floodem made it"):
        make(files, uri)
    assert read(uri).all()


def test_an_input_that_changes_on_the_way_is_refused(files, labels, tmp_path):
    uris = [store(tmp_path / f"{n}.zarr", one) for n, one in zip("ab", labels, strict=True)]
    told = []
    with pytest.raises(StoppedError):
        make(uris, tmp_path / "out.zarr", progress=told.append, should_stop=lambda: len(told) > 2)
    changed = labels[0].copy()
    changed[0, 0, 0] += 1
    with open_volume(uris[0], writable=True) as volume:
        volume.write(volume.box, changed)
    with pytest.raises(RunConflictError, match="was begun with"):
        make(uris, tmp_path / "out.zarr")


@pytest.mark.parametrize(
    "damage", ["a/0000-0000-0000", "a/0000-0000-0000-touching", "overlaps/0000-0001-0000"]
)
def test_damaged_tables_are_told_from_sound_ones(files, tmp_path, damage):
    destination, told = tmp_path / "out.zarr", []
    with pytest.raises(StoppedError):
        make(
            files,
            destination,
            progress=told.append,
            should_stop=lambda: bool(told) and told[-1].stage == "reading pieces of A",
        )
    table = tmp_path / "out.zarr.floodem" / "consensus" / f"{damage}.npz"
    table.write_bytes(table.read_bytes()[:-30])
    with pytest.raises(VolumeFormatError, match="begin again with --overwrite|damaged"):
        make(files, destination)
    assert not destination.exists()
