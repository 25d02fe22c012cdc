"""Measures of objects: exact counts whatever the blocks, areas and their errors, CSV, lengths."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from array_volume import ArrayVolume
from floodem.cli.main import main
from floodem.cluster import Crew
from floodem.errors import LabelError, OptionError, RunConflictError, StoppedError
from floodem.geometry import Box, VoxelSize
from floodem.shapes.measures import blocks as blocks_module
from floodem.shapes.measures.blocks import count_volume
from floodem.shapes.measures.counting import count_objects
from floodem.shapes.measures.measure import Measures, measure, measures_of, skeleton_lengths
from floodem.shapes.measures.surface import area_per_crossing, crossing_directions
from floodem.shapes.measures.table import ObjectTable
from floodem.shapes.measures.table_file import COLUMNS, write_csv
from floodem.shapes.skeletons.folder import SkeletonFolder
from floodem.shapes.skeletons.swc import swc_text
from floodem.shapes.source import LabelSource, block_edges
from floodem.volumes import create_volume
from mesh_cases import ball
from reference import object_measures
from skeleton_cases import path

ISOTROPIC, THIN, THICK = VoxelSize(10, 10, 10), VoxelSize(30, 6, 6), VoxelSize(40, 4, 4)
SIZES = [ISOTROPIC, THIN, THICK, VoxelSize(8, 6, 3)]
FIELDS = ("ids", "voxels", "position_sums", "first", "last", "crossings")


def equal(one: ObjectTable, other: ObjectTable) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in FIELDS)


@settings(max_examples=60, deadline=None)
@given(
    labels=arrays.arrays(
        np.uint64,
        arrays.array_shapes(min_dims=3, max_dims=3, max_side=6),
        elements=st.sampled_from([0, 1, 5, 2**63, 2**64 - 1]),
    ),
    offset=st.tuples(*[st.integers(-50, 50)] * 3),
    size=st.sampled_from(SIZES),
    limit=st.integers(1, 80),
)
def test_counts_are_exact_whatever_the_blocks(labels, offset, size, limit):
    directions = crossing_directions(size)
    volume = ArrayVolume(labels, offset=offset, chunks=(2, 2, 2))
    table = count_volume(volume, directions=directions, block_voxels=limit)
    expected = object_measures.count(labels, offset, directions)
    assert table.ids.tolist() == list(expected)
    for row, (voxels, sums, first, last, crossings) in enumerate(expected.values()):
        assert table.voxels[row] == voxels
        assert table.position_sums[row].tolist() == sums
        assert table.first[row].tolist() == first
        assert table.last[row].tolist() == last
        assert table.crossings[row].tolist() == crossings


def test_blocks_are_read_with_just_the_rim_that_crossings_need():
    volume = ArrayVolume(np.ones((40, 40, 40), np.uint8), chunks=(8, 8, 8))
    count_volume(volume, directions=crossing_directions(THIN), block_voxels=8**3)
    assert max(read.shape for read in volume.reads) == (10, 18, 18)
    volume.reads.clear()
    count_volume(volume, block_voxels=8**3)
    assert {read.shape for read in volume.reads} == {(8, 8, 8)}


@pytest.mark.parametrize("limit", [1, 100, 5000, 10**9])
def test_blocks_are_whole_chunks_or_parts_of_one(limit):
    volume = ArrayVolume(np.zeros((100, 90, 80), np.uint8), chunks=(16, 8, 32))
    edges = block_edges(volume, voxels=limit)
    assert np.prod(edges) <= max(limit, 1)
    if limit >= 16 * 8 * 32:
        assert all(
            edge % chunk == 0 or edge == extent
            for edge, chunk, extent in zip(edges, volume.chunks, volume.shape, strict=True)
        )


def of(labels, size) -> Measures:
    return measure(ArrayVolume(np.pad(labels, 20), voxel_size=size))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("voxels_across", [10, 30])
def test_areas_of_balls_are_right_within_two_per_cent(size, voxels_across):
    radius = voxels_across * max(size.zyx_nm) / 2
    found = of(ball(radius, size), size)
    assert found.surface_nm2[0] == pytest.approx(4 * np.pi * radius**2, rel=0.025)
    assert found.volume_nm3[0] == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.02)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_areas_of_boxes_are_six_per_cent_too_small(size):
    shape = np.round(1200 / np.array(size.zyx_nm)).astype(int)
    found = of(np.ones(shape, np.uint8), size)
    z, y, x = shape * size.zyx_nm
    assert 0.92 < found.surface_nm2[0] / (2 * (z * y + z * x + y * x)) < 0.96


@settings(max_examples=25, deadline=None)
@given(
    normal=st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda n: np.linalg.norm(n) > 0.1),
    size=st.sampled_from(SIZES[:3]),
)
def test_areas_of_slanted_planes_are_right_within_seven_per_cent(normal, size):
    edges, extent = np.array(size.zyx_nm), 960.0
    normal = np.array(normal) / np.linalg.norm(normal)
    shape = np.round(extent / edges).astype(int)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    labels = (((grid + 0.5) * edges - extent / 2) @ normal < 0.37).astype(np.uint8)
    found = measure(ArrayVolume(labels, voxel_size=size))
    # A ball's worth of the plane is what every slant has alike: count only in there.
    assert found.surface_nm2[0] == pytest.approx(cut_area(normal, extent), rel=0.12)
    error = plane_error(normal, size)
    assert -0.07 < error < 0.035


def plane_error(normal, size) -> float:
    """Error for a plane without end, from the weights alone."""
    edges = np.array(size.zyx_nm)
    total = sum(
        weight * np.abs(np.array(group) * edges @ normal).sum()
        for weight, group in zip(area_per_crossing(size), crossing_directions(size), strict=True)
    )
    return total / edges.prod() - 1


def cut_area(normal, extent) -> float:
    """Area of a plane through the middle of a cube, by counting points of it."""
    one = np.cross(normal, np.eye(3)[np.argmin(np.abs(normal))])
    one /= np.linalg.norm(one)
    other = np.cross(normal, one)
    steps = np.arange(-extent, extent, 4.0) + 2
    points = steps[:, None, None] * one + steps[None, :, None] * other
    return float((np.abs(points) < extent / 2).all(axis=-1).sum() * 16)


def test_errors_of_all_slants_cancel():
    rng = np.random.default_rng(0)
    normals = rng.normal(size=(3000, 3))
    normals /= np.linalg.norm(normals, axis=1)[:, None]
    for size in SIZES:
        errors = np.array([plane_error(normal, size) for normal in normals])
        assert abs(errors.mean()) < 0.002
        assert errors.min() > -0.07
        assert errors.max() < 0.06


def test_touching_objects_have_a_surface_each_and_the_volumes_end_is_none():
    labels = np.ones((40, 40, 40), np.uint8)
    assert measure(ArrayVolume(labels, voxel_size=ISOTROPIC)).surface_nm2.tolist() == [0]
    labels[:, :, 20:] = 2
    first, second = measure(ArrayVolume(labels, voxel_size=ISOTROPIC)).surface_nm2
    assert first == second
    # Pairs over the faces of the volume are missing, so a little less.
    assert first == pytest.approx(400 * 400, rel=0.12)


def test_centroids_and_boxes_are_in_the_volumes_frame():
    labels = np.zeros((9, 9, 9), np.uint16)
    labels[2:4, 3:6, 4] = 7
    found = measure(ArrayVolume(labels, offset=(100, -5, 0), voxel_size=THIN))
    assert found.box_start.tolist() == [[102, -2, 4]]
    assert found.box_stop.tolist() == [[104, 1, 5]]
    assert found.centroid.tolist() == [[103.0, -0.5, 4.5]]
    assert found.volume_nm3.tolist() == [6 * 30 * 36]


def test_what_is_no_segmentation_is_refused():
    with pytest.raises(LabelError, match="float32"):
        measure(ArrayVolume(np.ones((3, 3, 3), np.float32), voxel_size=THIN))
    with pytest.raises(LabelError, match="negative label -2"):
        measure(ArrayVolume(np.full((3, 3, 3), -2, np.int32), voxel_size=THIN))
    with pytest.raises(OptionError, match="does not state its voxel size"):
        measure(ArrayVolume(np.ones((3, 3, 3), np.uint8)))


def test_an_empty_segmentation_has_no_rows(tmp_path):
    found = measure(ArrayVolume(np.zeros((3, 3, 3), np.uint8), voxel_size=THIN))
    assert len(found) == 0
    write_csv(tmp_path / "out.csv", found.with_lengths(found.ids, np.zeros(0)))
    assert (tmp_path / "out.csv").read_text(encoding="utf-8").count("\n") == 1


def test_counting_stops_when_asked():
    volume = ArrayVolume(np.ones((8, 8, 8), np.uint8), voxel_size=THIN)
    with pytest.raises(StoppedError, match="0 of 1 blocks"):
        measure(volume, should_stop=lambda: True)


@given(st.permutations(range(6)))
def test_tables_add_up_in_any_order(order):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, (12, 4, 4)).astype(np.uint32)
    parts = []
    for first in range(0, 12, 2):
        core = Box((first, 0, 0), (first + 2, 4, 4))
        parts.append(count_objects(labels[first : first + 2], halo=core, core=core))
    whole = count_volume(ArrayVolume(labels))
    assert equal(ObjectTable.total([parts[number] for number in order]), whole)


def test_many_tables_are_added_up_little_by_little(monkeypatch):
    rng = np.random.default_rng(0)
    volume = ArrayVolume(rng.integers(0, 500, (16, 16, 16)).astype(np.uint32), chunks=(4, 4, 4))
    whole = count_volume(volume)
    monkeypatch.setattr(blocks_module, "_MERGE_ROWS", 3)
    assert equal(count_volume(volume, block_voxels=64), whole)


def test_a_table_survives_its_file_and_a_damaged_one_is_told(tmp_path):
    labels = np.array([[[0, 3, 2**64 - 1]]], np.uint64)
    table = count_volume(ArrayVolume(labels), directions=crossing_directions(THIN))
    table.write(tmp_path / "t.npy")
    assert equal(ObjectTable.read(tmp_path / "t.npy", groups=7), table)
    from floodem.errors import VolumeFormatError

    with pytest.raises(VolumeFormatError, match="of shape"):
        ObjectTable.read(tmp_path / "t.npy", groups=6)
    data = (tmp_path / "t.npy").read_bytes()
    for cut in (5, 60, len(data) - 1):
        (tmp_path / "t.npy").write_bytes(data[:cut])
        with pytest.raises(VolumeFormatError):
            ObjectTable.read(tmp_path / "t.npy", groups=7)


def some_labels() -> np.ndarray:
    rng = np.random.default_rng(2)
    labels = np.zeros((20, 60, 60), np.uint64)
    for number in (3, 2**40, 8, 2**64 - 1, 11):
        z, y, x = (int(rng.integers(0, size - 14)) for size in labels.shape)
        labels[z : z + 6, y : y + 14, x : x + 14] = number
    return labels


@pytest.fixture
def segmentation(tmp_path) -> Path:
    uri = tmp_path / "seg.zarr"
    labels = some_labels()
    with create_volume(
        uri, shape=labels.shape, dtype=labels.dtype, voxel_size=THIN, chunks=(8, 16, 16)
    ) as volume:
        volume.write(volume.box, labels)
    return uri


def rows_of(file: Path) -> list[dict[str, str]]:
    with open(file, encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def run(*arguments) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def test_processes_give_what_one_gives_and_go_on(segmentation, tmp_path, monkeypatch):
    monkeypatch.setattr(blocks_module, "BLOCK_VOXELS", 5000)
    source = LabelSource(uri=str(segmentation))
    with source.open() as volume:
        alone = measure(volume)
    asked = iter([False, False, True])
    work = tmp_path / "work"
    with pytest.raises(StoppedError):
        measure(source, work=work, should_stop=lambda: next(asked))
    done = []
    found = measure(
        source, work=work, crew=Crew(workers=2), progress=lambda report: done.append(report.done)
    )
    assert done[0] == 2
    for name in ("ids", "voxels", "surface_nm2", "box_start", "box_stop", "centroid"):
        assert np.array_equal(getattr(found, name), getattr(alone, name))
    with pytest.raises(RunConflictError):
        measure(source, voxel_size=ISOTROPIC, work=work)


def test_the_command_writes_a_line_for_each_object(segmentation, tmp_path, capsys):
    out = tmp_path / "out.csv"
    assert run("measure", segmentation, "--csv", out, "--workers", 1) == 0
    assert capsys.readouterr().out == f"{out}: 5 objects, 5,742 voxels of 30,6,6 nm\n"
    rows = rows_of(out)
    labels = some_labels()
    assert tuple(rows[0]) == COLUMNS
    assert [int(row["id"]) for row in rows] == sorted(np.unique(labels)[1:].tolist())
    for row in rows:
        z, y, x = np.nonzero(labels == int(row["id"]))
        assert int(row["voxels"]) == len(z)
        assert float(row["volume_nm3"]) == len(z) * 30 * 36
        box = [int(row[name]) for name in ("z0", "y0", "x0", "z1", "y1", "x1")]
        assert box == [z.min(), y.min(), x.min(), z.max() + 1, y.max() + 1, x.max() + 1]
        assert float(row["centroid_y"]) == pytest.approx(y.mean() + 0.5, abs=0.006)
    # Nothing else is left, and what is there is not replaced by mistake.
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["out.csv", "seg.zarr"]
    assert run("measure", segmentation, "--csv", out) == 3
    assert run("measure", segmentation, "--csv", out, "--overwrite", "--workers", 1) == 0
    assert run("measure", segmentation, "--csv", tmp_path / "none" / "out.csv") == 3


def test_without_a_csv_the_largest_are_shown_and_sums_in_json(segmentation, capsys):
    assert run("measure", segmentation, "--workers", 1) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "5 objects, 5,742 voxels of 30,6,6 nm"
    assert len(shown) == 7
    assert run("measure", segmentation, "--workers", 1, "--json") == 0
    values = json.loads(capsys.readouterr().out)
    assert values["objects"] == 5
    assert values["volume_nm3"] == 5742 * 30 * 36


def test_lengths_come_from_a_folder_or_are_computed(segmentation, tmp_path, capsys):
    folder = tmp_path / "cells"
    folder.mkdir()
    skeleton = path((0, 0, 0), (0, 30, 40))
    for number in (8, 11, 999):
        (folder / f"{number}.swc").write_text(swc_text(skeleton), encoding="utf-8")
    out = tmp_path / "out.csv"
    assert run("measure", segmentation, "--csv", out, "--skeletons", folder, "--workers", 1) == 0
    lengths = {int(row["id"]): row["length_nm"] for row in rows_of(out)}
    assert lengths == {3: "", 8: "50.0", 11: "50.0", 2**40: "", 2**64 - 1: ""}
    assert run("measure", segmentation, "--length", "--skeletons", folder) == 2
    command = ["measure", segmentation, "--csv", out, "--length", "--overwrite", "--workers", 1]
    assert run(*command) == 0
    capsys.readouterr()
    assert [float(row["length_nm"]) > 50 for row in rows_of(out)] == [True] * 5


def test_lengths_are_matched_by_id():
    table = count_volume(
        ArrayVolume(np.array([[[2, 5, 9]]], np.uint32)), directions=crossing_directions(THIN)
    )
    found = measures_of(table, voxel_size=THIN)
    ids = np.array([9, 7, 2], np.uint64)
    with_lengths = found.with_lengths(ids, np.array([90.0, 70, 20]))
    np.testing.assert_array_equal(with_lengths.length_nm, [20, np.nan, 90])
    none = found.with_lengths(np.zeros(0, np.uint64), np.zeros(0))
    assert np.isnan(none.length_nm).all()


def test_reading_lengths_tells_how_far_it_is(tmp_path):
    (tmp_path / "7.swc").write_text(swc_text(path((0, 0, 0), (0, 0, 5))), encoding="utf-8")
    told = []
    ids, lengths = skeleton_lengths(
        SkeletonFolder(tmp_path), np.array([3, 7], np.uint64), progress=told.append
    )
    assert (ids.tolist(), lengths.tolist()) == ([7], [5.0])
    assert told[0].unit == "skeletons"


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_command_goes_on(segmentation, tmp_path, monkeypatch):
    whole, out = tmp_path / "whole.csv", tmp_path / "out.csv"
    assert run("measure", segmentation, "--csv", whole, "--workers", 1) == 0
    script = (
        "import os, signal, sys\n"
        "import floodem.shapes.measures.blocks as blocks\n"
        "count, calls = blocks.count_objects, []\n"
        "def killed(*args, **kwargs):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 3:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return count(*args, **kwargs)\n"
        "blocks.count_objects, blocks.BLOCK_VOXELS = killed, 5000\n"
        "from floodem.cli.main import main\n"
        "main(sys.argv[1:])\n"
    )
    command = [sys.executable, "-c", script, "measure", segmentation, "--csv", out]
    done = subprocess.run([*command, "--workers", "1"], check=False, env=dict(os.environ))
    assert done.returncode == -signal.SIGKILL
    assert not out.exists()
    assert len(list((tmp_path / "out.csv.floodem").rglob("*.npy"))) == 2
    # Blocks that were cut otherwise are not mixed with these.
    assert run("measure", segmentation, "--csv", out, "--workers", 1) == 3
    monkeypatch.setattr(blocks_module, "BLOCK_VOXELS", 5000)
    assert run("measure", segmentation, "--csv", out, "--workers", 1) == 0
    assert out.read_bytes() == whole.read_bytes()


def test_the_published_segmentation_is_measured_as_numpy_does(shared_data, tmp_path):
    file = shared_data / "fib25" / "sample-training2.npz"
    with np.load(file) as archive:
        labels = archive["segmentation"]
    found = measure(ArrayVolume(labels, voxel_size=ISOTROPIC, chunks=(64, 64, 64)))
    assert len(found) == 254
    counts = np.bincount(labels.ravel())
    assert found.voxels.tolist() == counts[found.ids.astype(int)].tolist()
    z, y, x = np.nonzero(labels == 8)
    np.testing.assert_allclose(
        found.centroid[found.ids == 8][0], [z.mean() + 0.5, y.mean() + 0.5, x.mean() + 0.5]
    )
    write_csv(tmp_path / "out.csv", found)
    assert len(rows_of(tmp_path / "out.csv")) == 254
