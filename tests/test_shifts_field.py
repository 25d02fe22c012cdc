"""Fields of shifts: written with their place, gone on with after a stop, and good for floods."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import shift_cases
from bright import bright_model
from floodem.cluster import Crew
from floodem.cluster.crew import Shard
from floodem.errors import (
    DestinationExistsError,
    OptionError,
    RunConflictError,
    ShardDoneError,
    StoppedError,
    VolumeFormatError,
)
from floodem.flooding.masks import MaskPlace, parse_mask
from floodem.flooding.options import FloodOptions
from floodem.flooding.request import SegmentRequest
from floodem.flooding.segment import segment
from floodem.geometry import Box, VoxelSize
from floodem.project.matching import Matching
from floodem.project.shift_report import fov_window, masked_share, report_shifts
from floodem.project.shifts import measure_shifts
from floodem.volumes import convert, create_volume, open_volume
from floodem.volumes.source import VolumeSource

NM = VoxelSize(30, 6, 6)
OFFSET = (10, 32, 16)
DEPTH, EDGE, AT, JUMP = 14, 80, 7, (10, -8)
SQUARES = 25
MATCHING = Matching(stride=16, patch=80, search=14)


@pytest.fixture(scope="module")
def sections():
    canvas = shift_cases.tissue(DEPTH, edge=EDGE, noise=3)
    return shift_cases.cut(canvas, [(0, 0)] * AT + [JUMP] * (DEPTH - AT))


@pytest.fixture
def image(tmp_path, sections):
    uri = f"{tmp_path}/em.zarr"
    with create_volume(
        uri, shape=sections.shape, dtype=np.uint8, voxel_size=NM, offset=OFFSET
    ) as volume:
        volume.write(volume.box, sections)
    return uri


def measured(image, destination, **options):
    return measure_shifts(
        VolumeSource(uri=image, level=options.pop("level", 0)),
        str(destination),
        **{"matching": MATCHING, **options},
    )


def read(uri, channel):
    with open_volume(uri, channel=channel) as volume:
        return volume.read()


def files(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("name", ["zarr://f", "f.zarr3", "f.ome.zarr", "precomputed://f"])
def test_a_field_is_kept_with_its_place_and_scale(tmp_path, monkeypatch, image, name):
    monkeypatch.chdir(tmp_path)
    field = measured(image, name)
    assert (field.scale, field.step, field.was_finished) == (16, 1, False)
    for channel, component in ((0, JUMP[1]), (1, JUMP[0])):
        with open_volume(name, channel=channel) as volume:
            assert volume.box == field.box == Box((10, 2, 1), (24, 7, 6))
            assert volume.voxel_size == VoxelSize(30, 96, 96)
            shifts = volume.read()
        assert np.abs(shifts[AT - 1] - component).max() <= 1
        assert np.abs(np.delete(shifts, AT - 1, axis=0)).max() <= 1
    assert not list(tmp_path.glob("f*.floodem/shifts.*"))
    again = measured(image, name)
    assert again.was_finished
    assert again.pairs[20].to_json() == field.pairs[20].to_json()


def test_the_report_names_the_jump_and_a_mask_for_it(tmp_path, image):
    field = measured(image, tmp_path / "f.zarr")
    report = report_shifts(field, fov=(7, 9, 9))
    assert (report.threshold, report.lost, report.empty) == (4, 0, 0)
    assert report.usual <= 1
    assert report.places == (DEPTH - 1) * SQUARES
    worst = report.sections[0]
    assert worst.z == OFFSET[0] + AT - 1
    assert worst.large == 1
    assert abs(worst.largest - 10) <= 1
    assert np.abs(np.subtract((worst.median_y, worst.median_x), JUMP)).max() <= 1
    assert all(one.large == 0 for one in report.sections[1:])
    json.dumps(report.to_json())
    rule = parse_mask(report.mask)
    assert rule.window == fov_window((7, 9, 9)) == Box((-3, -4, -4), (3, 5, 5))
    box = Box.from_shape((DEPTH, EDGE, EDGE), start=OFFSET)
    masked = rule.masked(MaskPlace(box=box, voxel_size=NM))
    # no field of view of 7 sections holds both sides of the jump, and all others may be
    sides = [OFFSET[0] + AT - 1 - 3, OFFSET[0] + AT + 3]
    wanted = [sides[0] < z < sides[1] for z in range(box.start[0], box.stop[0])]
    assert (masked == np.array(wanted)[:, None, None]).all()
    assert report.masked == pytest.approx(masked.mean())
    with pytest.raises(OptionError, match="threshold 16 is not from 1 to 15"):
        report_shifts(field, threshold=16)


def test_the_masked_share_is_that_of_the_voxels(tmp_path):
    rng = np.random.default_rng(1)
    uri = f"{tmp_path}/f.zarr"
    create_volume(uri, shape=(20, 9, 8), dtype=np.int16, channels=2).close()
    with open_volume(uri, channel=1, writable=True) as volume:
        volume.write(volume.box, (rng.random(volume.shape) < 0.01).astype(np.int16) * 9)
        box = volume.box
    rule = parse_mask(f"shift:{uri},window=-2:3,-10:11,-30:31,scale=8")
    exact = rule.masked(MaskPlace(box=Box((0, 0, 0), (20, 72, 64)))).mean()
    assert 0.1 < exact < 0.9
    assert masked_share(rule, box) == pytest.approx(exact, abs=0.05)


def segmented(tmp_path, image, name, *masks):
    return segment(
        image,
        tmp_path / name,
        model=bright_model(),
        request=SegmentRequest(
            options=FloodOptions(min_segment_size=20),
            masks=[parse_mask(text) for text in masks],
            device="cpu",
        ),
    )


def test_floods_do_not_cross_a_jump_where_the_mask_says_so(tmp_path, image):
    report = report_shifts(measured(image, tmp_path / "f.zarr"), fov=(7, 9, 9))
    crossing = []
    for name, masks in (("open", []), ("closed", [report.mask])):
        with segmented(tmp_path, image, f"{name}.zarr", *masks).open() as volume:
            labels = volume.read()
        below, above = (set(np.unique(part)) - {0} for part in (labels[:AT], labels[AT:]))
        assert below
        assert above
        crossing.append(len(below & above))
        assert all(labels[z].any() for z in (AT - 1, AT))
    assert crossing[0] > 0
    assert crossing[1] == 0


def test_workers_and_shards_leave_the_same_field(tmp_path, image, monkeypatch):
    monkeypatch.setattr("floodem.project.shifts.BLOCK_SECTIONS", 4)
    alone = measured(image, tmp_path / "a.zarr")
    with pytest.raises(ShardDoneError):
        measured(image, tmp_path / "b.zarr", crew=Crew(shard=Shard(number=2, count=2)))
    assert not (tmp_path / "b.zarr").exists()
    shards = measured(image, tmp_path / "b.zarr", crew=Crew(shard=Shard(number=1, count=2)))
    assert files(tmp_path / "a.zarr") == files(tmp_path / "b.zarr")
    for z, counts in alone.pairs.items():
        assert counts.to_json() == shards.pairs[z].to_json()


def test_two_processes_leave_the_field_of_one(tmp_path, image):
    measured(image, tmp_path / "a.zarr")
    measured(image, tmp_path / "b.zarr", crew=Crew(workers=2))
    assert files(tmp_path / "a.zarr") == files(tmp_path / "b.zarr")


def test_a_stopped_run_goes_on_and_repeats_nothing(tmp_path, image, monkeypatch):
    monkeypatch.setattr("floodem.project.shifts.BLOCK_SECTIONS", 4)
    whole = measured(image, tmp_path / "a.zarr")
    answers = iter([False, False, True] + [True] * 99)
    with pytest.raises(StoppedError, match="of 4 tasks"):
        measured(image, tmp_path / "b.zarr", should_stop=lambda: next(answers))
    receipts = tmp_path / "b.zarr.floodem" / "receipts" / "shifts"
    done = {path.name: path.stat().st_mtime_ns for path in receipts.glob("0*.json")}
    assert 0 < len(done) < 4
    assert not (tmp_path / "b.zarr").exists()
    told = []
    resumed = measured(image, tmp_path / "b.zarr", progress=told.append)
    assert told[0].done == len(done)
    assert all((receipts / name).stat().st_mtime_ns == at for name, at in done.items())
    assert files(tmp_path / "a.zarr") == files(tmp_path / "b.zarr")
    assert resumed.pairs[14].to_json() == whole.pairs[14].to_json()


def test_a_killed_run_goes_on(tmp_path, image):
    command = [
        sys.executable, "-m", "floodem", "doctor", image, "--shift-mask", "f.zarr",
        "--stride", "16", "--patch", "80", "--search", "14", "--workers", "1",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (tmp_path / "f.zarr.floodem" / "shifts.zarr").exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    field = measured(image, tmp_path / "f.zarr")
    measured(image, tmp_path / "g.zarr")
    assert files(tmp_path / "f.zarr") == files(tmp_path / "g.zarr")
    assert field.pairs.keys() == set(range(10, 24))


def test_other_options_and_images_are_refused_and_overwriting_begins_again(
    tmp_path, image, sections
):
    destination = tmp_path / "f.zarr"
    measured(image, destination)
    before = files(tmp_path)
    other = Matching(stride=16, patch=112, search=14)
    with pytest.raises(RunConflictError, match="begun with patch = 80, now it is 112"):
        measured(image, destination, matching=other)
    assert files(tmp_path) == before
    assert measured(image, destination, matching=other, overwrite=True).scale == 16
    with open_volume(image, writable=True) as volume:
        volume.write(volume.box, sections[::-1].copy())
    with pytest.raises(RunConflictError, match="was begun with image"):
        measured(image, destination, matching=other)
    foreign = tmp_path / "other.zarr"
    create_volume(foreign, shape=(2, 2, 2), dtype=np.uint8).close()
    with pytest.raises(DestinationExistsError, match=r"other\.zarr exists already"):
        measured(image, foreign)
    with open_volume(foreign) as volume:
        assert volume.shape == (2, 2, 2)


def test_a_coarser_level_gives_shifts_of_the_finest_voxels(tmp_path):
    canvas = shift_cases.tissue(3, edge=160, noise=3)
    fine = shift_cases.cut(canvas, [(0, 0), (0, 0), (12, -8)])
    np.save(tmp_path / "em.npy", fine)
    convert(
        tmp_path / "em.npy",
        tmp_path / "em.zarr",
        voxel_size=NM,
        pyramid=1,
    )
    with open_volume(tmp_path / "em.zarr") as volume:
        assert volume.levels[1].shape == (3, 80, 80)
    field = measured(str(tmp_path / "em.zarr"), tmp_path / "f.zarr", level=1)
    assert (field.scale, field.step) == (32, 2)
    assert np.abs(read(tmp_path / "f.zarr", 1)[1] - 12).max() <= 2
    assert np.abs(read(tmp_path / "f.zarr", 0)[1] + 8).max() <= 2
    with open_volume(tmp_path / "f.zarr", channel=0) as volume:
        assert volume.voxel_size == VoxelSize(30, 192, 192)
    report = report_shifts(field)
    assert report.mask.endswith("scale=32")
    assert report.sections[0].largest in (10, 12, 14)


def test_a_level_without_all_sections_is_refused(tmp_path):
    np.save(tmp_path / "em.npy", np.zeros((8, 128, 128), np.uint8))
    convert(tmp_path / "em.npy", tmp_path / "em.zarr", voxel_size=VoxelSize(6, 6, 6), pyramid=1)
    with pytest.raises(OptionError, match="level 1 of .* is 2,2,2 times"):
        measured(str(tmp_path / "em.zarr"), tmp_path / "f.zarr", level=1)
    with pytest.raises(OptionError, match="has no level 3"):
        measured(str(tmp_path / "em.zarr"), tmp_path / "f.zarr", level=3)
    assert not (tmp_path / "f.zarr.floodem").exists()


@pytest.mark.parametrize("name", ["f.h5", "f.npy", "f.n5"])
def test_formats_without_channels_are_refused_before_anything_is_written(tmp_path, image, name):
    with pytest.raises(VolumeFormatError, match="have no room for the two channels"):
        measured(image, tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["em.zarr"]


def test_a_field_on_a_server_is_the_field_on_a_disk(tmp_path, image, no_servers, bucket):
    uri = f"zarr://{bucket.root}/to/f"
    measured(image, tmp_path / "f.zarr")
    field = measured(image, uri)
    assert (read(uri, 0) == read(tmp_path / "f.zarr", 0)).all()
    assert (read(uri, 1) == read(tmp_path / "f.zarr", 1)).all()
    assert not field.was_finished
    assert measured(image, uri).was_finished
    other = Matching(stride=32, patch=96, search=14)
    assert measured(image, uri, matching=other, overwrite=True).box.shape == (14, 3, 3)
