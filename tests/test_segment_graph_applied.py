"""Merged volumes: equal to renaming all labels at once, whoever does it, wherever the base is."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from floodem.assembly.agglomeration.graph import applying
from floodem.assembly.agglomeration.graph.applying import apply_merges
from floodem.assembly.agglomeration.graph.graph import SegmentGraph
from floodem.assembly.agglomeration.graph.rule import MergeRule
from floodem.assembly.verification import verify_cut_run
from floodem.cluster import Crew
from floodem.cluster.crew import Shard
from floodem.errors import (
    LabelError,
    OptionError,
    OtherWorkError,
    RunConflictError,
    ShardDoneError,
    StoppedError,
    VolumeFormatError,
    VolumeNotFoundError,
)
from floodem.shapes.source import LabelSource
from floodem.volumes import open_volume
from segment_graph_cases import LARGEST, OFFSET, SIZE, graph_over, mapping_of, write_labels

EDGES = {(1, 2): 0.9, (2, 3): 0.5, (3, 4): 0.95, (7, LARGEST): 0.99}
SHAPE = (40, 50, 60)
BLOCK = (20, 16, 32)
CUT = {"block": BLOCK}


def base_labels(shape=SHAPE):
    """Blobs of some voxels, among them the largest id and background."""
    names = np.array([0, 1, 2, 3, 4, 5, 7, 2**40, LARGEST], np.uint64)
    coarse = np.random.default_rng(3).integers(0, len(names), [-(-n // 5) for n in shape])
    fine = np.kron(coarse, np.ones((5, 5, 5), np.int64))[tuple(slice(n) for n in shape)]
    return names[fine]


def renamed_all(labels, mapping):
    """All labels renamed at once, the slow way."""
    found = labels.copy()
    for old, new in mapping.items():
        found[labels == np.uint64(old)] = np.uint64(new)
    return found


def read(uri):
    with open_volume(str(uri)) as volume:
        assert (volume.offset, volume.voxel_size) == (OFFSET, SIZE)
        return volume.read()


@pytest.fixture(scope="module")
def labels():
    return base_labels()


@pytest.fixture
def graph(tmp_path, labels):
    return graph_over(tmp_path, labels, EDGES)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("whole.zarr", {}),
        ("cut.zarr", CUT),
        ("zarr3://cut3", CUT),
        ("precomputed://cut", CUT),
        ("n5://cut", CUT),
        ("whole.h5@labels", CUT),
    ],
)
def test_a_merged_volume_equals_renaming_all_labels(tmp_path, graph, labels, name, how):
    prefix, _, path = name.rpartition("://")
    destination = f"{prefix}://{tmp_path / path}" if prefix else str(tmp_path / path)
    made = apply_merges(graph, destination, **how)
    expected = renamed_all(labels, {2: 1, 4: 3, LARGEST: 7})
    assert np.array_equal(read(destination), expected)
    assert made.segments == len(np.unique(expected)) - 1
    assert (made.joined, made.wholes, made.voxels) == (6, 3, labels.size)
    assert made.labelled == np.count_nonzero(labels)
    assert np.array_equal(read(tmp_path / "base.zarr"), labels)
    again = apply_merges(graph, destination, **how)
    assert again.was_finished
    assert again.segments == made.segments


def test_what_is_written_can_be_verified(tmp_path, graph):
    made = apply_merges(graph, tmp_path / "m.zarr", **CUT)
    checked = verify_cut_run(str(tmp_path / "m.zarr"))
    assert checked.is_whole
    assert checked.segments == made.segments


def test_several_processes_write_what_one_writes(tmp_path, graph, labels):
    apply_merges(graph, tmp_path / "m.zarr", crew=Crew(workers=2), **CUT)
    assert np.array_equal(read(tmp_path / "m.zarr"), renamed_all(labels, mapping_of(graph)))


def test_shards_write_together_what_one_writes(tmp_path, graph, labels):
    for number in (1, 2):
        shard = Crew(shard=Shard(number=number, count=3))
        with pytest.raises(ShardDoneError):
            apply_merges(graph, tmp_path / "m.zarr", crew=shard, **CUT)
    made = apply_merges(
        graph, tmp_path / "m.zarr", crew=Crew(shard=Shard(number=3, count=3)), **CUT
    )
    assert np.array_equal(read(tmp_path / "m.zarr"), renamed_all(labels, mapping_of(graph)))
    assert made.labelled == np.count_nonzero(labels)


def test_undoing_every_merge_gives_the_base_back_to_the_voxel(tmp_path, graph, labels):
    with SegmentGraph.open(graph, writable=True) as opened:
        undone = opened.undo_all()
    made = apply_merges(graph, tmp_path / "m.zarr", **CUT)
    assert np.array_equal(read(tmp_path / "m.zarr"), labels)
    assert (made.joined, made.wholes) == (0, 0)
    with SegmentGraph.open(graph, writable=True) as opened:
        opened.undo_entry(undone.number)
    for how in (CUT, {}):
        with pytest.raises(OtherWorkError, match=r"m\.zarr was made before these decisions"):
            apply_merges(graph, tmp_path / "m.zarr", **how)
    apply_merges(graph, tmp_path / "m.zarr", overwrite=True, **CUT)
    with pytest.raises(RunConflictError, match="was begun with plan"):
        apply_merges(graph, tmp_path / "m.zarr", block=(10, 16, 32))
    assert np.array_equal(read(tmp_path / "m.zarr"), renamed_all(labels, mapping_of(graph)))


def test_a_stopped_run_goes_on(tmp_path, graph, labels, monkeypatch):
    written = []

    def count(*arguments):
        written.append(arguments)
        return renamed(*arguments)

    renamed = applying.renamed
    monkeypatch.setattr(applying, "renamed", count)
    with pytest.raises(StoppedError):
        apply_merges(graph, tmp_path / "m.zarr", should_stop=lambda: len(written) > 4, **CUT)
    first = len(written)
    assert 4 < first < 16
    apply_merges(graph, tmp_path / "m.zarr", **CUT)
    blocks = 2 * 4 * 2
    assert len(written) <= blocks + 1
    assert np.array_equal(read(tmp_path / "m.zarr"), renamed_all(labels, mapping_of(graph)))


def test_a_base_that_was_changed_is_refused(tmp_path, graph, labels):
    write_labels(tmp_path / "base.zarr", labels + np.uint64(1), overwrite=True)
    with pytest.raises(OtherWorkError, match="was changed since"):
        apply_merges(graph, tmp_path / "m.zarr")
    assert not (tmp_path / "m.zarr").exists()


def test_a_base_that_was_moved_is_known_again_and_others_are_not(tmp_path, graph, labels):
    (tmp_path / "away").mkdir()
    moved = shutil.move(tmp_path / "base.zarr", tmp_path / "away" / "b.zarr")
    with pytest.raises(VolumeNotFoundError, match="--segmentation"):
        apply_merges(graph, tmp_path / "m.zarr")
    apply_merges(graph, tmp_path / "m.zarr", segmentation=moved)
    expected = renamed_all(labels, mapping_of(graph))
    assert np.array_equal(read(tmp_path / "m.zarr"), expected)
    # A copy in another format has other times and sizes.
    copy = write_labels(tmp_path / "copy.h5@labels", labels)
    apply_merges(graph, tmp_path / "n.zarr", segmentation=LabelSource(uri=copy))
    assert np.array_equal(read(tmp_path / "n.zarr"), expected)
    other = labels.copy()
    other[:, 25:] += np.uint64(1)
    for number, wrong in enumerate((other, labels[:-1])):
        uri = write_labels(tmp_path / f"other{number}.zarr", wrong)
        with pytest.raises(OtherWorkError, match="is not the segmentation"):
            apply_merges(graph, tmp_path / "o.zarr", segmentation=uri)
    assert not (tmp_path / "o.zarr").exists()


def test_the_base_is_never_the_destination(tmp_path, graph, labels):
    with pytest.raises(OptionError, match="stays as it is"):
        apply_merges(graph, tmp_path / "base.zarr", overwrite=True)
    assert np.array_equal(read(tmp_path / "base.zarr"), labels)


def test_a_format_that_ids_do_not_fit_is_refused_before_the_work(tmp_path, graph):
    with pytest.raises((VolumeFormatError, LabelError, OptionError)):
        apply_merges(graph, tmp_path / "m.jpg")
    assert not list(tmp_path.glob("m.jpg*"))


def test_a_damaged_mapping_in_the_run_is_refused(tmp_path, graph, monkeypatch):
    tasks = []

    def keep(task):
        tasks.append(task)
        raise StoppedError("stop here")

    write_merged_task = applying.write_merged_task
    monkeypatch.setattr(applying, "write_merged_task", keep)
    with pytest.raises(StoppedError):
        apply_merges(graph, tmp_path / "m.zarr", **CUT)
    mapping = tmp_path / "m.zarr.floodem" / "mapping" / "merges.npz"
    mapping.write_bytes(mapping.read_bytes()[:-30])
    applying._read_mapping.cache_clear()
    with pytest.raises(VolumeFormatError):
        write_merged_task(tasks[0])


def test_another_rule_gives_another_volume(tmp_path, graph, labels):
    with SegmentGraph.open(graph, writable=True) as opened:
        opened.set_rule(MergeRule(iou=0.4))
    apply_merges(graph, tmp_path / "m.zarr")
    expected = renamed_all(labels, {2: 1, 3: 1, 4: 1, LARGEST: 7})
    assert np.array_equal(read(tmp_path / "m.zarr"), expected)
