"""Skeletons of whole segmentations: plans, processes, kills, levels, shards, the command."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from array_volume import ArrayVolume
from floodem.cluster import Crew
from floodem.errors import (
    DependencyError,
    DestinationExistsError,
    LabelError,
    OptionError,
    RunConflictError,
    StoppedError,
    VolumeNotFoundError,
)
from floodem.geometry import Box, VoxelSize
from floodem.shapes.measures.blocks import count_volume
from floodem.shapes.skeletons import job as job_module
from floodem.shapes.skeletons import objects as objects_module
from floodem.shapes.skeletons import plan as plan_module
from floodem.shapes.skeletons.folder import SkeletonFolder
from floodem.shapes.skeletons.job import skeletonize
from floodem.shapes.skeletons.plan import plan, readings
from floodem.shapes.skeletons.request import SkeletonRequest
from floodem.shapes.skeletons.teasar import TeasarOptions, skeletonize_mask
from floodem.shapes.source import LabelSource
from floodem.volumes import create_volume
from floodem.volumes.conversion.convert import convert
from skeleton_cases import same, straight, tubes

SIZE = VoxelSize(20, 10, 10)
FINE = TeasarOptions(const_nm=100)
REQUEST = SkeletonRequest(teasar=FINE, min_voxels=100)


def labels_of_tubes() -> np.ndarray:
    """Four tubes with ids of all sizes, one in two pieces, and a crumb."""
    courses = {
        5: ((100, 100, 0), (0, 0, 1), 900),
        7: ((100, 300, 60), (0.3, 0.2, 0.9), 700),
        2**40: ((500, 100, 60), (-0.1, 0.5, 0.8), 700),
        2**64 - 2: ((520, 600, 100), (0, -0.4, 0.8), 500),
    }
    labels = np.zeros((36, 72, 92), np.uint64)
    for number, (start, course, length) in courses.items():
        mask = tubes([straight(start, course, length)], 60, SIZE)
        fitted = np.zeros(labels.shape, bool)
        z, y, x = (min(a, b) for a, b in zip(mask.shape, labels.shape, strict=True))
        fitted[:z, :y, :x] = mask[:z, :y, :x]
        labels[fitted] = number
    labels[:, :, 44:47][labels[:, :, 44:47] == 5] = 0
    labels[0, 0, 0] = 3
    return labels


LABELS = labels_of_tubes()
IDS = [5, 7, 2**40, 2**64 - 2]


@pytest.fixture(scope="module")
def segmentation(tmp_path_factory) -> Path:
    uri = tmp_path_factory.mktemp("labels") / "seg.zarr"
    with create_volume(
        uri,
        shape=LABELS.shape,
        dtype=np.uint64,
        voxel_size=SIZE,
        offset=(10, -4, 6),
        chunks=(16, 32, 32),
    ) as volume:
        volume.write(volume.box, LABELS)
    return uri


@pytest.fixture
def small_blocks(monkeypatch):
    """Several blocks and groups, of one object each."""
    monkeypatch.setattr("floodem.shapes.measures.blocks.BLOCK_VOXELS", 2**15)
    monkeypatch.setattr(plan_module, "GROUP_VOXELS", 1)


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def make(source, destination, request=REQUEST, **how):
    return skeletonize(LabelSource(uri=str(source)), destination, request=request, **how)


def test_every_object_gets_the_skeleton_of_its_mask_where_it_lies(segmentation, tmp_path):
    made = make(segmentation, tmp_path / "out")
    assert made.ids.tolist() == IDS
    assert made.too_small == 1
    assert not made.refused
    folder = SkeletonFolder(tmp_path / "out")
    assert folder.ids() == IDS
    faces = ((True, True),) * 3
    for number, pieces, length in zip(made.ids.tolist(), made.pieces, made.lengths_nm, strict=True):
        alone = skeletonize_mask(
            number == LABELS,
            voxel_size=SIZE,
            start=(10, -4, 6),
            options=TeasarOptions(const_nm=100, min_piece_voxels=100),
            open_sides=faces,
        )
        read = folder.read(number)
        np.testing.assert_allclose(read.vertices_zyx_nm, alone.vertices_zyx_nm, atol=1e-3)
        np.testing.assert_array_equal(read.edges, alone.edges)
        assert length == pytest.approx(alone.length_nm)
        assert pieces == ndimage.label(number == LABELS, np.ones((3, 3, 3)))[1]


def test_processes_blocks_and_groups_make_no_difference(segmentation, tmp_path, small_blocks):
    both = SkeletonRequest(teasar=FINE, min_voxels=100, formats=("precomputed", "swc"))
    make(segmentation, tmp_path / "one", request=both, crew=Crew(workers=2))
    plan_module.GROUP_VOXELS = 2**25
    make(segmentation, tmp_path / "two", request=both)
    one, two = files_of(tmp_path / "one"), files_of(tmp_path / "two")
    assert one == two
    assert set(one) == {"info", *map(str, IDS), *(f"swc/{number}.swc" for number in IDS)}


def test_shards_hold_the_same_skeletons(segmentation, tmp_path, small_blocks):
    make(segmentation, tmp_path / "files")
    request = SkeletonRequest(teasar=FINE, min_voxels=100, is_sharded=True)
    made = make(segmentation, tmp_path / "shards", request=request)
    assert sorted(files_of(tmp_path / "shards")) == ["0.shard", "info"]
    assert made.ids.tolist() == IDS
    files, shards = SkeletonFolder(tmp_path / "files"), SkeletonFolder(tmp_path / "shards")
    assert shards.ids() == IDS
    assert all(same(files.read(number), shards.read(number)) for number in IDS)
    again = make(segmentation, tmp_path / "shards", request=request)
    assert again.was_finished
    assert again.lengths_nm.tolist() == made.lengths_nm.tolist()


def test_swc_alone_lies_in_the_folder_itself(segmentation, tmp_path):
    request = SkeletonRequest(teasar=FINE, min_voxels=100, formats=("swc",), swc_unit="um")
    made = make(segmentation, tmp_path / "out", request=request)
    assert sorted(files_of(tmp_path / "out")) == sorted(f"{number}.swc" for number in IDS)
    text = (tmp_path / "out" / "7.swc").read_text(encoding="utf-8")
    assert text.startswith("# source: id 7 of seg.zarr\n# unit: um\n")
    folder = SkeletonFolder(tmp_path / "out")
    assert folder.read(7).length_nm == pytest.approx(made.lengths_nm[1], rel=1e-5)


def test_named_ids_are_made_whatever_their_size(segmentation, tmp_path):
    request = SkeletonRequest(ids=[3, 7, 99], min_voxels=100)
    made = make(segmentation, tmp_path / "out", request=request)
    assert made.ids.tolist() == [3, 7]
    assert made.missing == (99,)


def test_other_options_and_other_labels_are_refused(segmentation, tmp_path):
    mine = tmp_path / "seg.zarr"
    shutil.copytree(segmentation, mine)
    out = tmp_path / "out"
    make(mine, out)
    before = files_of(out)
    with pytest.raises(RunConflictError, match="other labels or options"):
        make(mine, out, request=SkeletonRequest(min_voxels=100))
    chunk = next(path for path in mine.rglob("*") if path.is_file() and path.name[0] != ".")
    os.utime(chunk, (1, 1))
    with pytest.raises(RunConflictError, match="other labels or options"):
        make(mine, out)
    assert files_of(out) == before
    again = make(mine, out, request=SkeletonRequest(ids=[7]), overwrite=True)
    assert not again.was_finished
    assert set(files_of(out)) == {"info", "7"}


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_not_ours_stays(segmentation, tmp_path, overwrite):
    mine = tmp_path / "letters"
    mine.mkdir()
    (mine / "one.txt").write_text("dear", encoding="utf-8")
    with pytest.raises(DestinationExistsError, match="not from this command"):
        make(segmentation, mine, overwrite=overwrite)
    with pytest.raises(DestinationExistsError):
        make(segmentation, mine / "one.txt", overwrite=overwrite)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["letters", "one.txt"]


def test_a_stopped_run_goes_on_to_the_same_files(segmentation, tmp_path, small_blocks):
    request = SkeletonRequest(teasar=FINE, min_voxels=100, formats=("precomputed", "swc"))
    make(segmentation, tmp_path / "whole", request=request)
    runs = 0
    while runs < 50:
        runs += 1
        asked = iter([False, True])
        try:
            make(
                segmentation,
                tmp_path / "out",
                request=request,
                should_stop=lambda asked=asked: next(asked, True),
            )
            break
        except StoppedError:
            assert not (tmp_path / "out" / "info").exists()
    assert runs > 8
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


KILLED = """
import sys, time
from pathlib import Path
import floodem.shapes.measures.blocks as blocks
from floodem.shapes.skeletons import plan
from floodem.shapes.source import LabelSource
from floodem.shapes.skeletons.job import skeletonize
from floodem.shapes.skeletons.request import SkeletonRequest
blocks.BLOCK_VOXELS, plan.GROUP_VOXELS = 2**15, 1
def wait(report):
    print(report.stage, report.done, flush=True)
    time.sleep(0.02)
skeletonize(
    LabelSource(uri=sys.argv[1]),
    Path(sys.argv[2]),
    request=SkeletonRequest(min_voxels=100, is_sharded=True, formats=("precomputed", "swc")),
    progress=wait,
)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize("moment", ["counting objects 3", "skeletonising 2", "writing shards 0"])
def test_a_killed_run_goes_on_to_the_same_files(segmentation, tmp_path, small_blocks, moment):
    request = SkeletonRequest(min_voxels=100, is_sharded=True, formats=("precomputed", "swc"))
    make(segmentation, tmp_path / "whole", request=request)
    command = [sys.executable, "-c", KILLED, str(segmentation), str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        for line in running.stdout:
            if line.strip() == moment:
                running.send_signal(signal.SIGKILL)
                break
        running.wait()
    assert running.returncode == -signal.SIGKILL
    made = make(segmentation, tmp_path / "out", request=request)
    assert not made.was_finished
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def test_inside_a_precomputed_segmentation_its_info_names_them(segmentation, tmp_path):
    root = tmp_path / "seg"
    convert(str(segmentation), f"precomputed://{root}")
    source = LabelSource(uri=f"precomputed://{root}")
    skeletonize(source, root / "skeletons", request=REQUEST)
    info = json.loads((root / "info").read_text(encoding="utf-8"))
    assert info["skeletons"] == "skeletons"
    # Neither the link nor the folder makes the labels others.
    assert skeletonize(source, root / "skeletons", request=REQUEST).was_finished
    cloudvolume = pytest.importorskip("cloudvolume", exc_type=ImportError)
    volume = cloudvolume.CloudVolume(f"file://{root}", progress=False)
    ours = SkeletonFolder(root / "skeletons")
    for number in IDS:
        theirs = volume.skeleton.get(number)
        assert theirs.cable_length() == pytest.approx(ours.read(number).length_nm)


def with_levels(tmp_path, labels, **facts) -> str:
    uri = f"{tmp_path / 'pyramid.zarr'}"
    with create_volume(
        uri,
        shape=labels.shape,
        dtype=labels.dtype,
        chunks=(32, 32, 32),
        levels=((2, 2, 2), (4, 4, 4)),
        **facts,
    ) as volume:
        for step, level in zip((1, 2, 4), volume.levels, strict=True):
            level.write(level.box, np.ascontiguousarray(labels[::step, ::step, ::step]))
    return uri


def one_tube() -> tuple[np.ndarray, float]:
    line = straight((160, 160, 160), (0.5, 0.5, 0.7), 900)
    mask = tubes([line], 80, VoxelSize(10, 10, 10))
    labels = np.zeros([-(-size // 8) * 8 for size in mask.shape], np.uint64)
    labels[tuple(map(slice, mask.shape))] = mask * np.uint64(9)
    return labels, 900.0


def test_large_objects_are_read_at_a_coarser_level_and_lie_in_the_same_place(tmp_path):
    labels, length = one_tube()
    uri = with_levels(tmp_path, labels, voxel_size=VoxelSize(10, 10, 10), offset=(40, 80, -40))
    made = {}
    for name, memory in (("fine", 2**31), ("coarse", 2_500_000), ("coarsest", 2**20)):
        request = SkeletonRequest(teasar=FINE, memory_bytes=memory)
        found = make(uri, tmp_path / name, request=request)
        assert found.coarse == (name != "fine")
        made[name] = SkeletonFolder(tmp_path / name).read(9)
        assert made[name].length_nm == pytest.approx(length, rel=0.05)
    middles = [skeleton.vertices_zyx_nm.mean(axis=0) for skeleton in made.values()]
    assert np.ptp(middles, axis=0).max() < 25
    assert len(made["coarse"]) < len(made["fine"])


def test_without_levels_voxels_are_taken_together(tmp_path):
    labels, length = one_tube()
    labels[labels.shape[0] // 2] = 0
    uri = tmp_path / "flat.zarr"
    with create_volume(
        uri, shape=labels.shape, dtype=np.uint64, voxel_size=VoxelSize(10, 10, 10), offset=(3, 5, 7)
    ) as volume:
        volume.write(volume.box, labels)
    found = make(uri, tmp_path / "out", request=SkeletonRequest(memory_bytes=1_500_000))
    assert found.coarse == 1
    skeleton = SkeletonFolder(tmp_path / "out").read(9)
    assert skeleton.length_nm == pytest.approx(length, rel=0.06)
    moved = skeleton.vertices_zyx_nm.mean(axis=0) - np.array((3, 5, 7)) * 10
    np.testing.assert_allclose(moved, 160 + 450 * np.array((0.5, 0.5, 0.7)) / 0.995, atol=30)


def test_an_object_too_large_for_the_memory_is_refused_and_the_others_are_made(tmp_path):
    labels = np.zeros((64, 128, 128), np.uint64)
    labels[2:62, 2:126, 2:126] = 1
    labels[20:24, 40:44, 10:120] = 2
    with create_volume(
        tmp_path / "seg.zarr", shape=labels.shape, dtype=np.uint64, voxel_size=SIZE
    ) as volume:
        volume.write(volume.box, labels)
    request = SkeletonRequest(memory_bytes=2**20, is_level_fixed=True)
    made = make(tmp_path / "seg.zarr", tmp_path / "out", request=request)
    assert made.refused == (1,)
    assert made.ids.tolist() == [2]


def test_a_plan_bounds_what_is_read_at_once():
    rng = np.random.default_rng(1)
    labels = np.zeros((64, 96, 96), np.uint64)
    for number in range(1, 200):
        z, y, x = (int(rng.integers(0, size - 9)) for size in labels.shape)
        labels[z : z + 5, y : y + 8, x : x + 8] = number
    volume = ArrayVolume(labels, chunks=(32, 32, 32))
    table = count_volume(volume)
    (way,) = readings(volume, voxel_size=SIZE, is_fixed=True)
    limit = 2**14
    plan_module_limit, plan_module.GROUP_VOXELS = plan_module.GROUP_VOXELS, limit
    try:
        made = plan(table, [way], memory_bytes=2**30)
    finally:
        plan_module.GROUP_VOXELS = plan_module_limit
    assert not len(made.refused)
    together = np.concatenate([group.ids for group in made.groups])
    assert sorted(together) == table.ids.tolist()
    assert len({group.key for group in made.groups}) == len(made.groups) > 5
    for group in made.groups:
        span = np.prod(group.stops.max(axis=0) - group.starts.min(axis=0))
        assert span <= limit
        assert np.prod(group.stops - group.starts, axis=1).sum() <= limit
    # Small tables of other objects make the same groups again.
    assert [group.key for group in plan(table, [way], memory_bytes=2**30).groups] == [
        group.key for group in plan(table, [way], memory_bytes=2**30).groups
    ]


def test_large_boxes_are_read_slab_by_slab(monkeypatch):
    labels, _ = one_tube()
    volume = ArrayVolume(labels, offset=(3, 5, 7), voxel_size=SIZE)
    box = Box((4, 6, 8), (60, 70, 90))
    for pool in ((1, 1, 1), (2, 2, 2), (4, 8, 8)):
        whole = objects_module._mask(volume, box, (9, pool))
        monkeypatch.setattr(objects_module, "_SLAB_VOXELS", 20_000)
        volume.reads.clear()
        np.testing.assert_array_equal(objects_module._mask(volume, box, (9, pool)), whole)
        assert len(volume.reads) > 3
        assert max(read.size for read in volume.reads) <= 8 * 64 * 82
        monkeypatch.undo()
        z, y, x = np.nonzero(labels[box.slices(origin=volume.offset)] == 9)
        corner = np.array(box.start) // pool
        places = (np.stack([z, y, x], axis=1) + box.start) // pool - corner
        expected = np.zeros_like(whole)
        expected[tuple(places.T)] = True
        np.testing.assert_array_equal(whole, expected)


MEASURED = """
import resource, sys
import numpy as np
import scipy.sparse.csgraph
from floodem.geometry import VoxelSize
from floodem.shapes.skeletons.teasar import skeletonize_mask
skeletonize_mask(np.ones((3, 3, 3), bool), voxel_size=VoxelSize(10, 10, 10))
mask = np.zeros((110, 110, 110), bool)
mask[:, : int(sys.argv[1])] = True
mask[-1, -1, -1] = True
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
skeletonize_mask(mask, voxel_size=VoxelSize(10, 10, 10))
print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before), mask.sum())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted otherwise")
@pytest.mark.parametrize("width", [1, 110])
def test_an_object_takes_no_more_memory_than_the_plan_thinks(width):
    command = [sys.executable, "-c", MEASURED, str(width)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    taken, voxels = map(int, done.stdout.split())
    expected = 110**3 * plan_module.BYTES_PER_BOX_VOXEL + voxels / 8 * plan_module.BYTES_PER_CELL
    assert taken < 1.3 * expected


def test_what_is_no_segmentation_is_refused(segmentation, tmp_path):
    with create_volume(
        tmp_path / "image.zarr", shape=(8, 8, 8), dtype=np.float32, voxel_size=SIZE
    ) as volume:
        volume.write(volume.box, np.ones((8, 8, 8), np.float32))
    with pytest.raises(LabelError, match="float32"):
        make(tmp_path / "image.zarr", tmp_path / "out")
    with create_volume(tmp_path / "bare.zarr", shape=(8, 8, 8), dtype=np.uint32) as volume:
        volume.write(volume.box, np.ones((8, 8, 8), np.uint32))
    with pytest.raises(OptionError, match="does not state its voxel size"):
        make(tmp_path / "bare.zarr", tmp_path / "out")
    with pytest.raises(VolumeNotFoundError):
        make(tmp_path / "none.zarr", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    # What was refused stands in nobody's way.
    with create_volume(
        tmp_path / "seg.zarr", shape=(8, 8, 8), dtype=np.uint32, voxel_size=SIZE
    ) as volume:
        volume.write(volume.box, np.ones((8, 8, 8), np.uint32))
    assert make(tmp_path / "seg.zarr", tmp_path / "out").ids.tolist() == [1]


def test_a_segmentation_without_objects_has_an_empty_folder(tmp_path):
    with create_volume(
        tmp_path / "seg.zarr", shape=(8, 8, 8), dtype=np.uint32, voxel_size=SIZE
    ) as volume:
        volume.write(volume.box, np.zeros((8, 8, 8), np.uint32))
    for sharded in (False, True):
        request = SkeletonRequest(is_sharded=sharded)
        out = tmp_path / f"out{sharded}"
        assert not len(make(tmp_path / "seg.zarr", out, request=request).ids)
        assert SkeletonFolder(out).ids() == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"method": "magic"},
        {"formats": ("obj",)},
        {"formats": ()},
        {"formats": ("swc",), "is_sharded": True},
        {"swc_unit": "mm"},
        {"min_voxels": 0},
        {"memory_bytes": 5},
    ],
)
def test_impossible_requests_are_refused(wrong):
    with pytest.raises(OptionError):
        SkeletonRequest(**wrong)


def test_kimimaro_is_asked_for_by_name_and_never_needed(segmentation, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "kimimaro", None)
    request = SkeletonRequest(method="kimimaro")
    with pytest.raises(DependencyError, match=r"floodem\[kimimaro\]"):
        make(segmentation, tmp_path / "out", request=request)
    assert not (tmp_path / "out").exists()


def test_kimimaro_and_ours_agree_where_it_is_installed():
    pytest.importorskip("kimimaro", exc_type=ImportError)
    size = VoxelSize(10, 10, 10)
    mask = tubes([straight((130, 120, 125), (0, 0, 1), 1100)], 65, size)
    kwargs = {"voxel_size": size, "start": (5, 6, 7), "options": FINE}
    ours = skeletonize_mask(mask, **kwargs)
    theirs = objects_module.METHODS["kimimaro"](mask, **kwargs)
    assert theirs.length_nm == pytest.approx(ours.length_nm, rel=0.15)
    near = np.abs(ours.vertices_zyx_nm.mean(axis=0) - theirs.vertices_zyx_nm.mean(axis=0))
    assert near.max() < 30


def test_a_record_lies_beside_the_folder(segmentation, tmp_path):
    make(segmentation, tmp_path / "out")
    record = tmp_path / f"out{job_module.WORK_ENDING}"
    assert (record / "finished").exists()
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]
    assert time.time() - (record / "run.json").stat().st_mtime < 600
