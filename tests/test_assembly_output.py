"""The final segmentation: cores become part of one volume, whatever format holds it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assembly_cases import (
    PLAN,
    SIZE,
    complete,
    files,
    fill_blocks,
    made,
    table,
    truth,
    write_all,
    write_levels,
    write_mapping,
)
from floodem.assembly import placing, writing
from floodem.assembly.block_store import BlockStore
from floodem.assembly.blocks import BlockPlan
from floodem.assembly.destination import LabelDestination
from floodem.assembly.output_chunks import are_whole, chunks_of, shards_of
from floodem.assembly.output_levels import level_tasks
from floodem.assembly.place import Place
from floodem.assembly.placing import finish, require_complete
from floodem.assembly.writing import WriteTask, pieces, write_core_task, write_tasks
from floodem.cluster.context import TaskContext, entering
from floodem.errors import (
    DestinationExistsError,
    GeometryError,
    LabelError,
    OptionError,
    RunConflictError,
    StoppedError,
    StorageError,
    VolumeFormatError,
)
from floodem.geometry import Box
from floodem.volumes import convert, create_volume, open_volume, verify
from floodem.volumes.conversion.receipts import checksum
from floodem.volumes.volume import Kind

CHUNKED = {
    "zarr": "{}/seg.zarr",
    "zarr-inside": "{}/store.zarr@seg",
    "zarr3": "zarr3://{}/seg",
    "ome-zarr-0.4": "{}/seg.ome.zarr",
    "ome-zarr-0.5": "zarr3://{}/seg.ome.zarr",
    "n5": "{}/seg.n5",
    "precomputed": "precomputed://{}/seg",
    "Japanese letters and spaces": "{}/脳 の seg.zarr",
}
WHOLE = {
    "hdf5": "{}/seg.h5@labels",
    "npz": "{}/seg.npz",
    "npy": "{}/seg.npy",
    "nifti": "{}/seg.nii",
    "nifti-gz": "{}/seg.nii.gz",
    "tiff-pages": "{}/seg.tif",
    "tiff": "tiff://{}/sections",
    "png": "png://{}/sections",
}
OFFSETLESS = {"npy"}


def small_ids() -> np.ndarray:
    """The same objects with ids that 16 bits hold."""
    return np.where(truth() > 0, truth() - 2**40, 0).astype(np.uint64)


def require_labels(uri: str, expected: np.ndarray, *, has_offset: bool = True) -> None:
    with open_volume(uri) as labels:
        np.testing.assert_array_equal(labels.read(), expected)
        if has_offset:
            assert labels.box == PLAN.box
            assert labels.voxel_size == SIZE


@pytest.mark.parametrize("name", CHUNKED)
def test_cores_of_all_blocks_and_their_levels_are_what_convert_makes_of_the_labels(tmp_path, name):
    uri = CHUNKED[name].format(tmp_path)
    destination = complete(uri, levels=2)
    require_labels(uri, truth())
    np.save(tmp_path / "labels.npy", truth())
    convert(
        tmp_path / "labels.npy",
        tmp_path / "expected.zarr",
        offset=PLAN.box.start,
        voxel_size=SIZE,
        pyramid=2,
        kind=Kind.LABELS,
    )
    with open_volume(uri) as labels, open_volume(tmp_path / "expected.zarr") as expected:
        assert [one.box for one in labels.levels] == [one.box for one in expected.levels]
        for ours, theirs in zip(labels.levels, expected.levels, strict=True):
            np.testing.assert_array_equal(ours.read(), theirs.read())
            assert ours.voxel_size == theirs.voxel_size
            assert ours.kind == "labels"
    assert not Path(destination.growing).exists()
    assert destination.place() is Place.PLACED


@pytest.mark.parametrize("name", WHOLE)
def test_files_that_are_written_whole_are_converted_last(tmp_path, name, monkeypatch):
    ids = truth() if name in {"hdf5", "npz", "npy", "nifti", "nifti-gz"} else small_ids()
    monkeypatch.setattr("assembly_cases.truth", lambda box: ids)
    uri = WHOLE[name].format(tmp_path)
    destination = LabelDestination.choose(uri, plan=PLAN, voxel_size=SIZE)
    destination.require_possible()
    assert list(tmp_path.iterdir()) == []
    assert destination.factors == ()
    complete(uri)
    require_labels(uri, ids, has_offset=name not in OFFSETLESS)
    assert not Path(destination.growing).exists()
    assert verify(uri).is_whole


def test_ids_that_a_format_does_not_hold_are_kept_beside_it(tmp_path):
    uri = f"tiff://{tmp_path}/sections"
    with pytest.raises(LabelError, match=r"do not fit uint32.*the labels are complete in .*zarr3"):
        complete(uri)
    require_labels(f"zarr3://{tmp_path}/sections.floodem/labels.zarr3", truth())
    assert not (tmp_path / "sections").exists()


def test_what_tasks_return_says_what_was_written(tmp_path):
    destination, store = made(tmp_path / "seg.zarr", levels=1)
    results = write_all(destination, store)
    levels = write_levels(destination)[0]
    assert sum(one["voxels"] for one in results) == PLAN.box.size
    assert sum(one["labelled"] for one in results) == np.count_nonzero(truth())
    assert write_all(destination, store) == results
    with open_volume(destination.target, level=1) as level:
        assert sum(one["voxels"] for one in levels) == level.box.size
        assert sum(one["labelled"] for one in levels) == np.count_nonzero(level.read())
    block = store.plan.block(3)
    core = truth()[block.core.slices(origin=PLAN.box.start)]
    with open_volume(destination.target, writable=True) as labels:
        sums = [
            checksum(core[part.slices(origin=block.core.start)])
            for part in pieces(block.core, chunks=labels.chunks, voxels=1)
        ]
    assert results[3]["crc32c"] == checksum(np.array(sums, ">u4"))


@pytest.mark.parametrize("voxels", [1, 300, 10**9])
def test_the_checksum_does_not_depend_on_the_pieces_in_which_a_core_is_written(
    tmp_path, monkeypatch, voxels
):
    destination, store = made(tmp_path / "seg.zarr", levels=0)
    results = write_all(destination, store)
    written = files(tmp_path)
    monkeypatch.setattr(
        writing, "pieces", lambda box, *, chunks: pieces(box, chunks=chunks, voxels=voxels)
    )
    assert write_all(destination, store) == results
    assert files(tmp_path) == written
    assert len(written) > len(PLAN) * 3


def test_a_block_without_segments_is_background_that_is_stored(tmp_path):
    destination = LabelDestination.choose(str(tmp_path / "a.zarr"), plan=PLAN, voxel_size=SIZE)
    store = BlockStore(address=destination.work, plan=PLAN)
    destination.create()
    block = PLAN.block(0)
    store.write(block, np.zeros(block.halo.shape, np.uint32), table=table(0))
    write_mapping(store, block, np.zeros(1, np.uint64))
    task = WriteTask(store=store, block=block, target=destination.target)
    assert write_core_task(task)["labelled"] == 0
    with open_volume(destination.target, writable=True) as labels:
        assert labels.missing(block.core) == []
        assert labels.missing() != []


@pytest.mark.parametrize("name", CHUNKED)
@pytest.mark.parametrize("level", [0, 1])
def test_a_lost_chunk_is_missing_be_it_background_or_not(tmp_path, name, level):
    uri = CHUNKED[name].format(tmp_path)
    destination, store = made(uri, levels=1)
    write_all(destination, store)
    write_levels(destination)
    require_complete(destination)
    with open_volume(destination.target, level=level, writable=True) as labels:
        corner = Box.from_shape(labels.chunks, start=labels.offset)
        assert level or not labels.read(corner).any()
        last = list(pieces(labels.box, chunks=labels.chunks, voxels=1))[-1]
        for box in {corner, last}:
            write_background_again(destination, level, box)
            assert labels.missing(most=10) == [box]
            with pytest.raises(StorageError, match=f"lacks the chunk {box} .* of level {level}"):
                finish(destination)
            write_all(destination, store)
            write_levels(destination)
    finish(destination)
    require_labels(uri, truth())


def write_background_again(destination: LabelDestination, level: int, box: Box) -> None:
    """Let tensorstore remove a chunk, which it does with background by default."""
    with open_volume(destination.target, level=level, writable=True) as labels:
        labels.write(box, np.zeros(box.shape, np.uint64))


def test_shards_are_written_by_one_task_each(tmp_path):
    plan = BlockPlan(box=Box((0, 0, 0), (128, 150, 260)), core=(128, 128, 128), margin=(8, 8, 8))
    uri = f"zarr3://{tmp_path}/seg"
    destination = complete(uri, plan=plan, is_sharded=True, levels=1)
    assert destination.shards == (128, 128, 128)
    require_files = [p for p in (tmp_path / "seg" / "0").rglob("*") if p.is_file()]
    assert len(require_files) == 1 + len(plan)
    with open_volume(uri) as labels:
        np.testing.assert_array_equal(labels.read(), truth(plan.box))


@given(
    core=st.tuples(*[st.integers(1, 600)] * 3),
    grid=st.tuples(*[st.integers(1, 3)] * 3),
    cut=st.tuples(*[st.integers(0, 599)] * 3),
)
def test_cores_are_made_of_whole_chunks_and_shards(core, grid, cut):
    edges = [
        max(1, size * count - less % size)
        for size, count, less in zip(core, grid, cut, strict=True)
    ]
    plan = BlockPlan(
        box=Box.from_shape((edges[0], edges[1], edges[2])), core=core, margin=(0, 0, 0)
    )
    try:
        chunks, shards = chunks_of(plan), shards_of(plan)
    except GeometryError as error:
        bad = int(str(error).split("because ")[1].split()[0])
        assert bad > 64
        assert not [edge for edge in range(16, 257) if bad % edge == 0]
        return
    assert are_whole(chunks, plan)
    assert are_whole(shards, plan)
    for size, chunk, shard, count in zip(core, chunks, shards, plan.grid, strict=True):
        assert shard % chunk == 0
        assert 1 <= chunk <= 256
        assert shard <= 256
        assert count == 1 or chunk == size or chunk >= 16


def test_a_block_with_a_large_prime_edge_is_refused_with_a_better_one():
    plan = BlockPlan(box=Box.from_shape((64, 64, 998)), core=(64, 64, 499), margin=(0, 0, 0))
    with pytest.raises(GeometryError, match="499 has no divisor.* for example 512"):
        LabelDestination.choose("seg.zarr", plan=plan, voxel_size=SIZE)


@settings(deadline=None, max_examples=50)
@given(
    shape=st.tuples(*[st.integers(1, 20)] * 3),
    chunks=st.tuples(*[st.integers(1, 12)] * 3),
    voxels=st.integers(1, 5000),
)
def test_pieces_are_whole_chunks_and_partition_the_box(shape, chunks, voxels):
    box = Box.from_shape(shape, start=(5, -6, 7))
    counts = np.zeros(shape, int)
    for piece in pieces(box, chunks=chunks, voxels=voxels):
        counts[piece.slices(origin=box.start)] += 1
        for a, b, first, stop, chunk in zip(
            piece.start, piece.stop, box.start, box.stop, chunks, strict=True
        ):
            assert (a - first) % chunk == 0
            assert b == stop or (b - first) % chunk == 0
        assert piece.size <= max(voxels, np.prod(np.minimum(chunks, shape)))
    assert (counts == 1).all()


def test_levels_are_cut_into_the_same_tasks_every_time(tmp_path):
    destination, _ = made(tmp_path / "seg.zarr", levels=2)
    tasks = level_tasks(destination, 2)
    assert tasks == level_tasks(destination, 2)
    assert sum(task.argument.box.size for task in tasks) == 12 * 6 * 8 or len(tasks) >= 1


def test_a_stopped_task_ends_between_pieces(tmp_path):
    destination, store = made(tmp_path / "seg.zarr", levels=1)
    argument = write_tasks(destination, store=store)[0].argument
    with (
        entering(TaskContext(asks=lambda: True)),
        pytest.raises(StoppedError, match="same command"),
    ):
        write_core_task(argument)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:40]), "mapping"),
        (lambda path: path.unlink(), "it is not there"),
        (
            lambda path: np.savez(path, version=np.int64(1), ids=np.zeros(0, np.uint64)),
            "background",
        ),
        (
            lambda path: np.savez(path, version=np.int64(1), ids=np.zeros(2, np.uint64)),
            "holds label . and its mapping ends with 1",
        ),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused(tmp_path, damage, says):
    destination, store = made(tmp_path / "seg.zarr", levels=0)
    damage(Path(destination.work) / "mapping" / f"{PLAN.block(7).key}.npz")
    with pytest.raises(VolumeFormatError, match=says.replace(". and", r"\d+, and")):
        write_all(destination, store)


def test_what_is_to_be_replaced_stays_until_the_labels_are_complete(tmp_path):
    uri = tmp_path / "seg.zarr"
    old = np.full(PLAN.box.shape, 7, np.uint64)
    np.save(tmp_path / "old.npy", old)
    convert(tmp_path / "old.npy", uri)
    destination, store = made(uri, overwrite=True)
    write_all(destination, store)
    write_levels(destination)
    with open_volume(uri) as labels:
        np.testing.assert_array_equal(labels.read(), old)
    finish(destination)
    require_labels(str(uri), truth())
    assert not (tmp_path / "seg.zarr.floodem" / "conversion.json").exists()
    assert not (tmp_path / "seg.zarr.floodem" / "labels.zarr").exists()


@pytest.mark.parametrize("name", ["zarr", "hdf5"])
def test_what_appeared_meanwhile_is_not_replaced(tmp_path, name):
    uri = (CHUNKED | WHOLE)[name].format(tmp_path)
    destination, store = made(uri)
    write_all(destination, store)
    write_levels(destination)
    with create_volume(uri, shape=(4, 4, 4), dtype="uint64") as other:
        other.write(other.box, np.full((4, 4, 4), 3, np.uint64))
    with pytest.raises(DestinationExistsError, match="exists already|holds labels already"):
        finish(destination)
    with open_volume(uri) as other:
        assert other.shape == (4, 4, 4)


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_process_killed_around_the_renaming_goes_on(tmp_path, monkeypatch, can_exchange):
    """Every moment from the first word about it to the last."""
    if not can_exchange:
        monkeypatch.setattr("floodem.volumes.staging.exchange", lambda first, second: False)

    class KilledError(BaseException):
        pass

    def die(*what, **more):
        raise KilledError

    moments = ("put_into_place", "_forget_earlier", "_remove_left")
    for moment in moments:
        uri = tmp_path / moment / "seg.zarr"
        np.save(tmp_path / "old.npy", np.zeros((4, 4, 4), np.uint64))
        convert(tmp_path / "old.npy", uri)
        destination, store = made(uri, overwrite=True, levels=0)
        write_all(destination, store)
        for does_first in (False, True):
            real = getattr(placing, moment)

            def act_and_die(*what, does_first=does_first, real=real, **more):
                if does_first:
                    real(*what, **more)
                raise KilledError

            with monkeypatch.context() as patch:
                patch.setattr(placing, moment, act_and_die)
                if destination.place() is not Place.PLACED:
                    with pytest.raises(KilledError):
                        finish(destination)
            if destination.place() is not Place.PLACED:
                destination.create()
        finish(destination)
        require_labels(str(uri), truth())
        assert not Path(destination.growing).exists()


def test_another_plan_in_the_same_place_is_refused(tmp_path):
    made(tmp_path / "seg.zarr")
    other = BlockPlan(box=PLAN.box, core=(24, 20, 30), margin=(2, 2, 2))
    destination = LabelDestination.choose(str(tmp_path / "seg.zarr"), plan=other, voxel_size=SIZE)
    destination.create()
    smaller = BlockPlan(box=Box((3, -5, 10), (23, 15, 40)), core=(12, 10, 20), margin=(2, 2, 2))
    destination = LabelDestination.choose(str(tmp_path / "seg.zarr"), plan=smaller, voxel_size=SIZE)
    with pytest.raises(RunConflictError, match="3:27,-5:15,10:40 uint64.*begin again"):
        destination.create()


def test_labels_that_are_gone_are_not_begun_again_unseen(tmp_path):
    destination, _ = made(tmp_path / "seg.zarr")
    shutil.rmtree(destination.growing)
    with pytest.raises(RunConflictError, match="was begun and is gone"):
        destination.create()
    with pytest.raises(StorageError, match="are gone"):
        finish(destination)


@pytest.mark.parametrize(
    ("uri", "options", "error", "says"),
    [
        ("seg.h5", {"levels": 2}, OptionError, "have no levels"),
        ("seg.zarr", {"is_sharded": True}, OptionError, "no shards"),
        ("precomputed://seg", {"is_sharded": True}, OptionError, "no shards"),
        ("seg", {}, VolumeFormatError, "cannot tell the format"),
    ],
)
def test_what_a_format_does_not_have_is_refused(uri, options, error, says):
    with pytest.raises(error, match=says):
        LabelDestination.choose(uri, plan=PLAN, voxel_size=SIZE, **options)


@pytest.mark.parametrize(
    ("uri", "size", "says"),
    [
        ("precomputed://{}/seg", None, "must state a voxel size"),
        ("precomputed://s3://bucket/seg", None, "must state a voxel size"),
        ("{}/seg.dm4", SIZE, "read, not written"),
        ("zarr://http://host/seg", SIZE, "http addresses are for reading only"),
        ("s3://bucket/seg.h5", SIZE, "written to local files only"),
        ("{}/em.zarr/inside.zarr", SIZE, "would lie inside the zarr volume"),
        ("{}/file/seg.zarr", SIZE, "is a file, not a folder"),
    ],
)
def test_impossible_destinations_are_refused_before_anything_is_computed(
    tmp_path, no_servers, uri, size, says
):
    (tmp_path / "file").write_bytes(b"")
    create_volume(tmp_path / "em.zarr", shape=(4, 4, 4), dtype="uint8").close()
    before = files(tmp_path)
    destination = LabelDestination.choose(uri.format(tmp_path), plan=PLAN, voxel_size=size)
    with pytest.raises(
        (VolumeFormatError, StorageError, DestinationExistsError, OSError), match=says
    ):
        destination.require_possible()
    assert files(tmp_path) == before


def test_blocks_may_be_written_in_any_order_by_two_starters(tmp_path):
    destination, store = made(tmp_path / "seg.zarr")
    destination.create()
    tasks = write_tasks(destination, store=store)
    for task in (*tasks[::-1], *tasks[::2]):
        write_core_task(task.argument)
    write_levels(destination)
    finish(destination)
    finish(destination)
    require_labels(str(tmp_path / "seg.zarr"), truth())


def test_block_stores_of_any_address_can_be_read_back(tmp_path):
    destination = LabelDestination.choose(
        f"{tmp_path}/a.zarr3@labels", plan=PLAN, voxel_size=SIZE, levels=0
    )
    store = BlockStore(address=destination.work, plan=PLAN)
    fill_blocks(store, truth())
    assert (tmp_path / "a.zarr3@labels.floodem" / "blocks").is_dir()
    destination.create()
    write_all(destination, store)
    finish(destination)
    require_labels(f"{tmp_path}/a.zarr3@labels", truth())
