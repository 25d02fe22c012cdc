"""Meshes, skeletons and measures by shards and clusters: the same files, whoever made them."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from floodem.cli.main import main
from floodem.cluster import ALONE, Crew, Shard, Task, run_tasks
from floodem.cluster.holding import holding
from floodem.cluster.receipts import Receipts
from floodem.cluster.sharing import share_rest
from floodem.errors import LabelError, OtherWorkError, RunConflictError, ShardDoneError
from floodem.geometry import VoxelSize
from floodem.shapes.measures import blocks as blocks_module
from floodem.shapes.measures.measure import measure
from floodem.shapes.meshes import destination as destination_module
from floodem.shapes.meshes import plan as mesh_plan
from floodem.shapes.meshes.job import mesh_segmentation
from floodem.shapes.meshes.options import MeshOptions
from floodem.shapes.skeletons import plan as skeleton_plan
from floodem.shapes.skeletons.job import skeletonize
from floodem.shapes.skeletons.request import SkeletonRequest
from floodem.shapes.skeletons.teasar import TeasarOptions
from floodem.shapes.source import LabelSource
from floodem.volumes import convert, create_volume

SIZE = VoxelSize(20, 10, 10)
MESHES = MeshOptions(block_edge=16)
SKELETONS = SkeletonRequest(teasar=TeasarOptions(const_nm=50), min_voxels=100)
ORDERS = list(itertools.permutations((1, 2, 3)))


def shard(number: int, count: int = 3) -> Crew:
    return Crew(shard=Shard(number=number, count=count))


def some_labels() -> np.ndarray:
    labels = np.zeros((24, 40, 48), np.uint64)
    for number, row in ((5, 2), (7, 14), (2**40, 26)):
        labels[4:12, row : row + 8, 3:45] = number
    labels[14:20, 4:36, 20:26] = 2**64 - 2
    return labels


@pytest.fixture
def seg(tmp_path: Path) -> Path:
    labels = some_labels()
    with create_volume(
        tmp_path / "seg.zarr",
        shape=labels.shape,
        dtype=labels.dtype,
        voxel_size=SIZE,
        chunks=(16, 16, 16),
    ) as volume:
        volume.write(volume.box, labels)
    return tmp_path / "seg.zarr"


@pytest.fixture
def many_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several tasks in every stage."""
    monkeypatch.setattr(blocks_module, "BLOCK_VOXELS", 2**12)
    monkeypatch.setattr(skeleton_plan, "GROUP_VOXELS", 1)
    monkeypatch.setattr(mesh_plan, "_FACES_A_TASK", 500)


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def make_meshes(seg, to, crew=ALONE, **how):
    return mesh_segmentation(seg, to, options=MESHES, crew=crew, **how)


def make_skeletons(seg, to, crew=ALONE, **how):
    return skeletonize(LabelSource(uri=str(seg)), to, request=SKELETONS, crew=crew, **how)


def make_sharded_skeletons(seg, to, crew=ALONE):
    request = SkeletonRequest(teasar=TeasarOptions(const_nm=50), min_voxels=100, is_sharded=True)
    return skeletonize(LabelSource(uri=str(seg)), to, request=request, crew=crew)


MAKERS = {
    "meshes": make_meshes,
    "skeletons": make_skeletons,
    "sharded skeletons": make_sharded_skeletons,
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=list(MAKERS))
@pytest.mark.parametrize("order", [ORDERS[0], ORDERS[3]], ids=str)
def test_shards_one_after_the_other_leave_what_one_run_leaves(
    make, order, seg, tmp_path, many_tasks
):
    make(seg, tmp_path / "whole")
    for number in order[:-1]:
        with pytest.raises(ShardDoneError, match=f"shard {number}/3 is done"):
            make(seg, tmp_path / "shared", shard(number))
    make(seg, tmp_path / "shared", shard(order[-1]))
    assert files_of(tmp_path / "whole") == files_of(tmp_path / "shared")
    assert (tmp_path / "shared.floodem").exists() == (make is not make_meshes)
    again = make(seg, tmp_path / "shared", shard(order[0]))
    assert again.was_finished


@pytest.mark.parametrize("make", MAKERS.values(), ids=list(MAKERS))
def test_shards_at_the_same_time_leave_what_one_run_leaves(make, seg, tmp_path, many_tasks):
    make(seg, tmp_path / "whole")
    for attempt in range(4):
        to = tmp_path / f"shared-{attempt}"
        ended: list[object] = []

        def work(number, to=to, ended=ended):
            try:
                ended.append(make(seg, to, shard(number)))
            except ShardDoneError as error:
                ended.append(error)
            except BaseException as error:
                ended.append(error)
                raise

        threads = [threading.Thread(target=work, args=(number,)) for number in (1, 2, 3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        problems = [
            one
            for one in ended
            if isinstance(one, BaseException) and not isinstance(one, ShardDoneError)
        ]
        assert not problems
        assert any(not isinstance(one, ShardDoneError) for one in ended), "one has ended it"
        assert files_of(to) == files_of(tmp_path / "whole")


@pytest.mark.parametrize("make", [make_meshes, make_skeletons])
def test_shards_of_other_options_are_refused(make, seg, tmp_path, many_tasks):
    with pytest.raises(ShardDoneError):
        make(seg, tmp_path / "out", shard(1))
    before = files_of(tmp_path / "out.floodem")
    labels = some_labels()
    labels[0, 0, 0] = 1
    with create_volume(
        seg, shape=labels.shape, dtype=labels.dtype, voxel_size=SIZE, overwrite=True
    ) as volume:
        volume.write(volume.box, labels)
    with pytest.raises(RunConflictError, match="other"):
        make(seg, tmp_path / "out", shard(2))
    after = files_of(tmp_path / "out.floodem")
    assert {name: data for name, data in after.items() if "lock" not in name} == {
        name: data for name, data in before.items() if "lock" not in name
    }


@pytest.mark.parametrize("make", [make_meshes, make_skeletons])
def test_a_run_without_shards_keeps_shards_off_and_goes_on_from_them(
    make, seg, tmp_path, many_tasks
):
    make(seg, tmp_path / "whole")
    to = tmp_path / "shared"
    with pytest.raises(ShardDoneError):
        make(seg, to, shard(1))
    folder = tmp_path / "shared.floodem"
    place = folder / "meshing" if make is make_meshes else folder
    with (
        holding(place, crew=ALONE, what="it"),
        pytest.raises(RunConflictError, match="another process is working"),
    ):
        make(seg, to, shard(2))
    with (
        holding(place, crew=shard(3), what="it"),
        pytest.raises(RunConflictError, match="another process is working"),
    ):
        make(seg, to)
    make(seg, to)
    assert files_of(to) == files_of(tmp_path / "whole")


def test_a_shard_that_fails_leaves_what_the_others_need(seg, tmp_path, many_tasks):
    options = MeshOptions(block_edge=16, ids=(999,))
    for number in (1, 2):
        with pytest.raises(ShardDoneError):
            mesh_segmentation(seg, tmp_path / "out", options=options, crew=shard(number))
    for _ in range(2):
        with pytest.raises(LabelError, match="none of the ids 999"):
            mesh_segmentation(seg, tmp_path / "out", options=options, crew=shard(3))
    assert list((tmp_path / "out.floodem" / "meshing" / "blocks").glob("*.pack"))


def test_a_shard_ends_quietly_where_another_has_just_ended_the_work(
    seg, tmp_path, many_tasks, monkeypatch
):
    to = tmp_path / "out"
    for number in (1, 2):
        with pytest.raises(ShardDoneError):
            make_meshes(seg, to, shard(number))

    # The other one comes last as well, and is faster: at each place where that may show.
    def overtaken(moment):
        original = getattr(destination_module.MeshDestination, moment)

        def hook(self, *arguments, **named):
            monkeypatch.setattr(destination_module.MeshDestination, moment, original)
            make_meshes(seg, to, shard(3))
            return original(self, *arguments, **named)

        monkeypatch.setattr(destination_module.MeshDestination, moment, hook)

    overtaken("hold")
    with pytest.raises(ShardDoneError, match="another one has finished"):
        make_meshes(seg, to, shard(1))
    assert not (tmp_path / "out.floodem").exists()
    make_meshes(seg, tmp_path / "whole")
    assert files_of(to) == files_of(tmp_path / "whole")


def test_meshes_by_shards_are_named_in_the_segmentation_around_them(seg, tmp_path):
    convert(seg, f"precomputed://{tmp_path / 'layer'}")
    for number in (3, 1):
        with pytest.raises(ShardDoneError):
            make_meshes(seg, tmp_path / "layer" / "mesh", shard(number))
        assert '"mesh"' not in (tmp_path / "layer" / "info").read_text(encoding="utf-8")
    make_meshes(seg, tmp_path / "layer" / "mesh", shard(2))
    assert '"mesh"' in (tmp_path / "layer" / "info").read_text(encoding="utf-8")


def test_measures_by_shards_are_those_of_one_run(seg, tmp_path, many_tasks):
    source = LabelSource(uri=str(seg))
    with source.open() as volume:
        alone = measure(volume)
    for number in (2, 3):
        with pytest.raises(ShardDoneError):
            measure(source, work=tmp_path / "work", crew=shard(number))
    found = measure(source, work=tmp_path / "work", crew=shard(1))
    for name in ("ids", "voxels", "surface_nm2", "box_start", "box_stop", "centroid"):
        assert np.array_equal(getattr(found, name), getattr(alone, name))


@pytest.mark.slow
@pytest.mark.parametrize("make", [make_meshes, make_skeletons])
def test_a_local_cluster_leaves_what_one_run_leaves(make, seg, tmp_path):
    pytest.importorskip("distributed")
    make(seg, tmp_path / "whole")
    make(seg, tmp_path / "shared", Crew(cluster="local:2"))
    assert files_of(tmp_path / "shared") == files_of(tmp_path / "whole")


@pytest.mark.slow
def test_a_local_cluster_measures_what_one_run_measures(seg, tmp_path, many_tasks):
    pytest.importorskip("distributed")
    source = LabelSource(uri=str(seg))
    with source.open() as volume:
        alone = measure(volume)
    found = measure(source, work=tmp_path / "work", crew=Crew(cluster="local:2"))
    for name in ("ids", "voxels", "surface_nm2", "box_start", "box_stop", "centroid"):
        assert np.array_equal(getattr(found, name), getattr(alone, name))


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return int(ended.value.code or 0)


@pytest.mark.parametrize("command", [["mesh", "--block-size", "16"], ["skeletonize"]])
def test_commands_take_shards_and_say_what_is_left(command, seg, tmp_path, capsys, many_tasks):
    words = (*command, seg, tmp_path / "out", "--workers", 1)
    for number in (1, 2):
        assert run(*words, "--shard", f"{number}/3") == 0
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith(f"shard {number}/3 is done; ")
        assert "error" not in said.err
    assert run(*words, "--shard", "3/3") == 0
    assert str(tmp_path / "out") in capsys.readouterr().out


def test_the_last_shard_of_measure_writes_the_table(seg, tmp_path, capsys, many_tasks):
    assert run("measure", seg, "--csv", tmp_path / "one.csv", "--length", "--workers", 1) == 0
    capsys.readouterr()
    words = ("measure", seg, "--csv", tmp_path / "out.csv", "--length", "--workers", 1)
    for number in (2, 1):
        assert run(*words, "--work", tmp_path / "work", "--shard", f"{number}/3") == 0
        assert not (tmp_path / "out.csv").exists()
    assert run(*words, "--work", tmp_path / "work", "--shard", "3/3") == 0
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()
    assert (tmp_path / "work").is_dir(), "kept for whoever named it"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["mesh", "SEG", "OUT", "--shard", "1/2", "--overwrite"], "remove DST and DST.floodem"),
        (["skeletonize", "SEG", "OUT", "--shard", "1/2", "--overwrite"], "remove DST and"),
        (["measure", "SEG", "--shard", "1/2"], "name it with --work"),
        (["measure", "SEG", "--cluster", "local:2"], "name it with --work"),
        (["evaluate", "SEG", "SEG", "--shard", "1/2"], "name it with --work"),
        (["mesh", "SEG", "OUT", "--shard", "3/2"], "--shard: '3/2' is no shard: write I/N"),
        (["mesh", "SEG", "OUT", "--shard", "1/2", "--cluster", "local:2"], "give one of both"),
        (["mesh", "SEG", "OUT", "--workers", "2", "--cluster", "local:2"], "give one of both"),
    ],
)
def test_options_that_exclude_each_other_are_refused(words, sentence, seg, tmp_path, capsys):
    places = {"SEG": seg, "OUT": tmp_path / "out"}
    assert run(*(places.get(word, word) for word in words)) == 2
    assert sentence in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["seg.zarr"]


def test_shards_are_processes_that_need_not_know_of_each_other(seg, tmp_path):
    make_meshes(seg, tmp_path / "whole")
    command = [sys.executable, "-m", "floodem", "mesh", str(seg), str(tmp_path / "out")]
    command += ["--block-size", "16", "--workers", "1", "--shard"]
    started = [
        subprocess.Popen([*command, f"{number}/2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for number in (1, 2)
    ]
    told = [process.communicate()[1].decode() for process in started]
    assert [process.returncode for process in started] == [0, 0], told
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def test_a_later_stage_is_done_by_whoever_is_there():
    done: set[int] = set()
    busy = {2}

    def run_stage(crew: Crew) -> str:
        assert crew.shard is not None
        if crew.shard.number in busy:
            raise RunConflictError("locked")
        done.add(crew.shard.number)
        if len(done) < crew.shard.count:
            raise ShardDoneError("others are left")
        return "all"

    with pytest.raises(ShardDoneError, match="shard 3/4 is done, and others are at work"):
        share_rest(run_stage, crew=shard(3, 4))
    assert done == {1, 3, 4}
    busy.clear()
    assert share_rest(run_stage, crew=shard(2, 4)) == "all"
    assert share_rest(lambda crew: crew, crew=ALONE) == ALONE

    def refuse(crew: Crew) -> None:
        raise OtherWorkError(f"other options, says {crew.shard}")

    with pytest.raises(OtherWorkError, match="says 3/4"):
        share_rest(refuse, crew=shard(3, 4))


def test_a_shard_ends_where_receipts_go_while_it_reads_them(tmp_path):
    receipts = tmp_path / "receipts"
    tasks = [Task(key=str(number), argument=number) for number in range(4)]
    how = {"receipts": receipts, "identity": {}}
    with pytest.raises(ShardDoneError):
        run_tasks(no_work, tasks, crew=shard(2, 2), **how)

    def read_all_but_late(self, keys):
        found = original(self, keys)
        return {key: result for key, result in found.items() if key != "3"}

    original = Receipts.read_all
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Receipts, "read_all", read_all_but_late)
        with pytest.raises(ShardDoneError, match="shard 1/2 is done; 1 of"):
            run_tasks(no_work, tasks, crew=shard(1, 2), **how)
    assert len(run_tasks(no_work, tasks, crew=shard(1, 2), **how)) == 4


def no_work(argument):
    return {"number": argument}
