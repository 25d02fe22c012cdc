"""Whole segmentations meshed: read back by others, resumed after a kill, refused in a sentence."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from floodem.cli.ids import parse_ids
from floodem.cluster import Crew
from floodem.errors import (
    DestinationExistsError,
    GeometryError,
    LabelError,
    OptionError,
    RunConflictError,
    StoppedError,
    UsageError,
)
from floodem.geometry import Box, VoxelSize
from floodem.progress import Progress
from floodem.shapes.meshes import Mesh
from floodem.shapes.meshes.job import mesh_segmentation
from floodem.shapes.meshes.options import MeshOptions
from floodem.shapes.precomputed import MeshFolder, read_info
from floodem.shapes.source import LabelSource
from floodem.volumes import convert, create_volume
from floodem.volumes.volume import Kind
from mesh_cases import ANISOTROPIC, ISOTROPIC, ball, is_watertight, normals_zyx, tissue
from servers.base import FakeServer

HUGE = 2**64 - 1
SMALL_BLOCKS = MeshOptions(block_edge=16)
OFFSET = (100, 200, 300)
BLOCKS = 2 * 2 * 3
"""Blocks of 16 in the labels below."""

KILLED_AT = """
import os, signal, sys
from floodem.cluster import Crew
from floodem.shapes.meshes.job import mesh_segmentation
from floodem.shapes.meshes.options import MeshOptions

def stop_at(progress):
    if f"{progress.stage} {progress.done}" == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    mesh_segmentation(
        sys.argv[1], sys.argv[2], options=MeshOptions(block_edge=16),
        crew=Crew(workers=int(sys.argv[4])), progress=stop_at,
    )
"""


@pytest.fixture
def labels() -> np.ndarray:
    array = tissue(5, (30, 28, 34))
    array[array == 3] = HUGE
    return array


@pytest.fixture
def seg(labels: np.ndarray, tmp_path: Path) -> Path:
    return written(labels, tmp_path / "seg.zarr")


def written(array: np.ndarray, path: Path, voxel_size: VoxelSize | None = ANISOTROPIC) -> Path:
    with create_volume(
        path, shape=array.shape, dtype=array.dtype, voxel_size=voxel_size, offset=OFFSET
    ) as new:
        new.write(new.box, array)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def run(*words: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "floodem", "mesh", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def assert_is_mesh_of(mesh: Mesh, voxels: np.ndarray, *, tolerance: float) -> None:
    """A closed mesh around the centres of just these voxels (in the volume's frame)."""
    assert is_watertight(mesh)
    edges = np.array(ANISOTROPIC.zyx_nm)
    size = len(voxels) * np.prod(edges)
    assert mesh.volume_nm3 == pytest.approx(size, rel=tolerance)
    low, high = voxels.min(axis=0) * edges, (voxels.max(axis=0) + 1) * edges
    np.testing.assert_allclose(mesh.box_nm, [low, high], atol=1.5 * edges.max())


@pytest.mark.parametrize("is_sharded", [False, True])
def test_every_object_is_found_where_its_voxels_are(
    is_sharded: bool, labels: np.ndarray, seg: Path, tmp_path: Path
) -> None:
    options = MeshOptions(block_edge=16, is_sharded=is_sharded)
    made = mesh_segmentation(seg, tmp_path / "meshes", options=options)
    folder = MeshFolder(tmp_path / "meshes")
    ids = sorted(set(np.unique(labels).tolist()) - {0})
    assert HUGE in ids
    assert sorted(folder.ids()) == ids
    assert (made.objects, made.voxel_size) == (len(ids), ANISOTROPIC)
    assert len(made.triangles) >= 3
    assert sum(made.levels[2:]) == len(ids), "three levels at least"
    assert made.max_error_nm == pytest.approx((30 * 6 * 6) ** (1 / 3))
    assert (read_info(tmp_path / "meshes").sharding is not None) == is_sharded
    for label in ids:
        voxels = np.argwhere(labels == label) + OFFSET
        for level in range(len(folder.manifest(label).levels)):
            mesh = folder.mesh(label, level=level)
            assert is_watertight(mesh)
            if level == 0:
                assert_is_mesh_of(mesh, voxels, tolerance=0.08)
    assert not (tmp_path / "meshes.floodem").exists()


@pytest.mark.parametrize("is_sharded", [False, True])
def test_cloudvolume_reads_what_was_written(
    is_sharded: bool, labels: np.ndarray, seg: Path, tmp_path: Path
) -> None:
    cloudvolume = pytest.importorskip(
        "cloudvolume", reason="CloudVolume is not installed (extra test)"
    )
    convert(seg, f"precomputed://{tmp_path / 'layer'}")
    options = MeshOptions(is_sharded=is_sharded)
    mesh_segmentation(seg, tmp_path / "layer" / "mesh", options=options)
    volume = cloudvolume.CloudVolume(f"file://{tmp_path / 'layer'}", progress=False)
    for label in set(np.unique(labels).tolist()) - {0}:
        found = volume.mesh.get(label)
        found = found[label] if isinstance(found, dict) else found
        mesh = Mesh.from_xyz(found.vertices.astype(np.float32), found.faces.astype(np.uint32))
        assert_is_mesh_of(mesh.welded(), np.argwhere(labels == label) + OFFSET, tolerance=0.08)


@pytest.mark.parametrize("voxel_size", [ISOTROPIC, ANISOTROPIC], ids=str)
def test_a_ball_has_its_volume_in_the_file(voxel_size: VoxelSize, tmp_path: Path) -> None:
    seg = written(ball(200, voxel_size, label=77), tmp_path / "ball.zarr", voxel_size)
    mesh_segmentation(seg, tmp_path / "meshes", options=SMALL_BLOCKS)
    mesh = MeshFolder(tmp_path / "meshes").mesh(77, level=0)
    assert mesh.volume_nm3 == pytest.approx(4 / 3 * np.pi * 200**3, rel=0.02)
    middle = np.mean(mesh.box_nm, axis=0)
    outwards = (mesh.vertices_zyx_nm[mesh.faces].mean(axis=1) - middle) * normals_zyx(mesh)
    assert (outwards.sum(axis=1) > 0).mean() > 0.99


def test_the_result_does_not_depend_on_the_number_of_workers(seg: Path, tmp_path: Path) -> None:
    mesh_segmentation(seg, tmp_path / "one", options=SMALL_BLOCKS)
    mesh_segmentation(seg, tmp_path / "two", options=SMALL_BLOCKS, crew=Crew(workers=2))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL on Windows")
@pytest.mark.parametrize(
    ("moment", "workers"),
    [("mesh blocks 5", 1), ("mesh blocks 6", 2), ("mesh objects 0", 1), ("mesh files 1", 1)],
)
def test_a_killed_run_ends_with_the_same_bytes_and_repeats_nothing(
    moment: str, workers: int, seg: Path, tmp_path: Path
) -> None:
    mesh_segmentation(seg, tmp_path / "whole", options=SMALL_BLOCKS)
    script = tmp_path / "killed.py"
    script.write_text(KILLED_AT, encoding="utf-8")
    words = [sys.executable, str(script), str(seg), str(tmp_path / "meshes"), moment, str(workers)]
    ended = subprocess.run(words, capture_output=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert not (tmp_path / "meshes").exists()
    work = tmp_path / "meshes.floodem" / "meshing"
    done = {path.stem: path for path in work.glob("blocks/receipts/*.json")}
    assert done
    before = {name: (work / f"blocks/{name}.pack").stat().st_mtime_ns for name in done}
    seen = []

    def look(progress: Progress) -> None:
        if progress.stage == "mesh blocks":
            seen.append(progress.done)
        elif progress.stage == "mesh objects" and progress.done == 0:
            for name, changed in before.items():
                assert (work / f"blocks/{name}.pack").stat().st_mtime_ns == changed

    mesh_segmentation(seg, tmp_path / "meshes", options=SMALL_BLOCKS, progress=look)
    assert seen[0] == len(done)
    assert contents(tmp_path / "meshes") == contents(tmp_path / "whole")
    assert not (tmp_path / "meshes.floodem").exists()


@pytest.mark.parametrize("asked", [0, 1, 5, BLOCKS, BLOCKS + 1])
def test_a_stopped_run_goes_on(asked: int, seg: Path, tmp_path: Path) -> None:
    questions = iter(range(10**6))
    with pytest.raises(StoppedError, match="run the same command again"):
        mesh_segmentation(
            seg,
            tmp_path / "meshes",
            options=SMALL_BLOCKS,
            should_stop=lambda: next(questions) >= asked,
        )
    assert not (tmp_path / "meshes").exists()
    assert (tmp_path / "meshes.floodem").exists() == (asked > 0), "nothing begun, nothing left"
    mesh_segmentation(seg, tmp_path / "meshes", options=SMALL_BLOCKS)
    mesh_segmentation(seg, tmp_path / "whole", options=SMALL_BLOCKS)
    assert contents(tmp_path / "meshes") == contents(tmp_path / "whole")


def test_a_finished_run_is_not_repeated(seg: Path, tmp_path: Path) -> None:
    made = mesh_segmentation(seg, tmp_path / "meshes")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "meshes").iterdir()}
    again = mesh_segmentation(seg, tmp_path / "meshes", crew=Crew(workers=2))
    assert again.was_finished
    assert again.triangles == made.triangles
    assert {path: path.stat().st_mtime_ns for path in before} == before


def stopped_after_a_block(seg: Path, to: Path, *, overwrite: bool = False) -> None:
    questions = iter(range(10**6))
    with pytest.raises(StoppedError):
        mesh_segmentation(
            seg,
            to,
            options=SMALL_BLOCKS,
            overwrite=overwrite,
            should_stop=lambda: next(questions) >= 1,
        )


def test_unfinished_work_with_other_options_is_not_mixed(seg: Path, tmp_path: Path) -> None:
    to = tmp_path / "meshes"
    stopped_after_a_block(seg, to)
    other = MeshOptions(block_edge=16, max_error_nm=3)
    with pytest.raises(RunConflictError, match=r"other options.*--overwrite"):
        mesh_segmentation(seg, to, options=other)
    mesh_segmentation(seg, to, options=other, overwrite=True)
    mesh_segmentation(seg, tmp_path / "whole", options=other)
    assert contents(to) == contents(tmp_path / "whole")


def test_unfinished_work_of_changed_labels_is_not_mixed(
    labels: np.ndarray, seg: Path, tmp_path: Path
) -> None:
    stopped_after_a_block(seg, tmp_path / "meshes")
    shutil.rmtree(seg)
    written(labels[::-1].copy(), seg)
    with pytest.raises(RunConflictError, match="other data"):
        mesh_segmentation(seg, tmp_path / "meshes", options=SMALL_BLOCKS)


def test_meshes_of_something_else_are_replaced_only_when_asked(seg: Path, tmp_path: Path) -> None:
    to = tmp_path / "meshes"
    mesh_segmentation(seg, to, options=MeshOptions(ids=(1, 2)))
    before = contents(to)
    with pytest.raises(DestinationExistsError, match=r"other options.*--overwrite"):
        mesh_segmentation(seg, to)
    stopped_after_a_block(seg, to, overwrite=True)
    assert contents(to) == before
    # As the command line says: the same command without --overwrite goes on.
    mesh_segmentation(seg, to, options=SMALL_BLOCKS)
    mesh_segmentation(seg, tmp_path / "whole", options=SMALL_BLOCKS)
    assert contents(to) == contents(tmp_path / "whole")


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_folder_of_meshes_stays(overwrite: bool, seg: Path, tmp_path: Path) -> None:
    folder, file = tmp_path / "notes", tmp_path / "file"
    folder.mkdir()
    (folder / "diary.txt").write_text("dear", encoding="utf-8")
    file.write_text("dear", encoding="utf-8")
    for to in (folder, file, seg):
        with pytest.raises(DestinationExistsError, match="left as it is"):
            mesh_segmentation(seg, to, overwrite=overwrite)
    assert contents(folder) == {"diary.txt": b"dear"}
    assert file.read_bytes() == b"dear"
    assert not list(tmp_path.glob("*.floodem/meshing"))


def test_an_empty_folder_is_taken(seg: Path, tmp_path: Path) -> None:
    (tmp_path / "meshes").mkdir()
    assert mesh_segmentation(seg, tmp_path / "meshes", options=MeshOptions(ids=(1,))).objects == 1


def test_a_volume_without_objects_gives_a_folder_without_meshes(tmp_path: Path) -> None:
    seg = written(np.zeros((9, 9, 9), np.uint32), tmp_path / "seg.zarr")
    made = mesh_segmentation(seg, tmp_path / "meshes")
    assert (made.objects, made.triangles, made.bytes) == (0, (), 0)
    assert sorted(contents(tmp_path / "meshes")) == ["floodem.json", "info"]
    sharded = mesh_segmentation(seg, tmp_path / "shards", options=MeshOptions(is_sharded=True))
    assert sharded.objects == 0


def test_objects_of_one_voxel_have_meshes(tmp_path: Path) -> None:
    array = np.zeros((9, 9, 20), np.uint32)
    array[4, 4, 2], array[0, 0, 8], array[8, 8, 19] = 5, 6, 7
    seg = written(array, tmp_path / "seg.zarr")
    assert (
        mesh_segmentation(seg, tmp_path / "meshes", options=MeshOptions(block_edge=8)).objects == 3
    )
    folder = MeshFolder(tmp_path / "meshes")
    for label, place in ((5, (4, 4, 2)), (6, (0, 0, 8)), (7, (8, 8, 19))):
        low = (np.array(place) + OFFSET) * ANISOTROPIC.zyx_nm
        mesh = folder.mesh(label, level=0)
        np.testing.assert_allclose(mesh.box_nm, [low, low + ANISOTROPIC.zyx_nm], atol=0.1)
        assert is_watertight(mesh)


def test_only_the_wanted_objects_are_meshed(labels: np.ndarray, seg: Path, tmp_path: Path) -> None:
    ids, sizes = np.unique(labels[labels > 0], return_counts=True)
    least = int(np.sort(sizes)[2])
    options = MeshOptions(min_voxels=least, block_edge=16)
    mesh_segmentation(seg, tmp_path / "large", options=options)
    assert sorted(MeshFolder(tmp_path / "large").ids()) == sorted(ids[sizes >= least].tolist())
    made = mesh_segmentation(seg, tmp_path / "some", options=MeshOptions(ids=(HUGE, 2, 999)))
    assert sorted(MeshFolder(tmp_path / "some").ids()) == [2, HUGE]
    assert made.notices == ("no mesh for 999: they are not in the segmentation, or too small",)
    with pytest.raises(LabelError, match="none of the ids 999"):
        mesh_segmentation(seg, tmp_path / "none", options=MeshOptions(ids=(999,)))


def test_a_box_is_closed_at_its_border(labels: np.ndarray, seg: Path, tmp_path: Path) -> None:
    box = Box((105, 205, 305), (125, 220, 330))
    mesh_segmentation(seg, tmp_path / "part", options=MeshOptions(box=box, block_edge=8))
    part = labels[5:25, 5:20, 5:30]
    folder = MeshFolder(tmp_path / "part")
    assert sorted(folder.ids()) == sorted(set(np.unique(part).tolist()) - {0})
    for label in folder.ids():
        mesh = folder.mesh(label, level=0)
        assert is_watertight(mesh)
        low, high = np.array(mesh.box_nm)
        assert (low >= np.array(box.start) * ANISOTROPIC.zyx_nm - 11).all()
        assert (high <= np.array(box.stop) * ANISOTROPIC.zyx_nm + 11).all()


def test_a_coarser_level_gives_the_same_places(
    labels: np.ndarray, seg: Path, tmp_path: Path
) -> None:
    convert(seg, tmp_path / "pyramid.zarr", pyramid=1, kind=Kind.LABELS)
    source = LabelSource(uri=str(tmp_path / "pyramid.zarr"), level=1)
    made = mesh_segmentation(source, tmp_path / "meshes")
    assert made.voxel_size != ANISOTROPIC
    mesh = MeshFolder(tmp_path / "meshes").mesh(1, level=0)
    voxels = (np.argwhere(labels == 1) + OFFSET) * ANISOTROPIC.zyx_nm
    np.testing.assert_allclose(mesh.box_nm[0], voxels.min(axis=0), atol=40)


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"box": Box((0, 0, 0), (5, 5, 5))}, GeometryError, "is not inside"),
        ({"ids": ()}, OptionError, "ids"),
        ({"ids": (0,)}, OptionError, "0 is no object's id"),
        ({"ids": (2**64,)}, OptionError, "is no object's id"),
        ({"max_error_nm": 0.0}, OptionError, "positive"),
        ({"max_error_nm": float("nan")}, OptionError, "positive"),
        ({"block_edge": 4}, OptionError, "edge of blocks"),
        ({"min_voxels": -1}, OptionError, "0 or more"),
        ({"file_format": "objj"}, OptionError, "did you mean obj"),
        ({"file_format": "ply", "is_sharded": True}, OptionError, "one object each"),
    ],
)
def test_impossible_wishes_are_refused(
    change: dict, error: type[Exception], sentence: str, seg: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=sentence):
        mesh_segmentation(seg, tmp_path / "meshes", options=MeshOptions(**change))
    assert not list(tmp_path.glob("meshes*"))


def test_unknown_voxel_sizes_and_images_are_refused(labels: np.ndarray, tmp_path: Path) -> None:
    unknown = written(labels.astype(np.uint32), tmp_path / "seg.h5@labels", None)
    with pytest.raises(OptionError, match="--voxel-size"):
        mesh_segmentation(unknown, tmp_path / "meshes")
    made = mesh_segmentation(
        unknown, tmp_path / "meshes", options=MeshOptions(voxel_size=ISOTROPIC, ids=(1,))
    )
    assert made.voxel_size == ISOTROPIC
    image = written(np.ones((4, 4, 4), np.float32), tmp_path / "image.zarr")
    with pytest.raises(LabelError, match="float32"):
        mesh_segmentation(image, tmp_path / "other")
    with pytest.raises(UsageError, match="names no folder"):
        mesh_segmentation(unknown, "/", options=MeshOptions(voxel_size=ISOTROPIC))


def test_a_segmentation_around_the_meshes_names_them(seg: Path, tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    convert(seg, f"precomputed://{layer}")
    info = json.loads((layer / "info").read_text(encoding="utf-8"))
    (layer / "info").write_text(json.dumps(info | {"note": [1, 2]}), encoding="utf-8")
    made = mesh_segmentation(layer, layer / "mesh", options=SMALL_BLOCKS)
    named = json.loads((layer / "info").read_text(encoding="utf-8"))
    assert named == info | {"note": [1, 2], "mesh": "mesh"}
    assert mesh_segmentation(layer, layer / "mesh", options=SMALL_BLOCKS).was_finished
    with pytest.raises(DestinationExistsError, match="names other meshes, 'mesh'"):
        mesh_segmentation(layer, layer / "more", options=SMALL_BLOCKS)
    mesh_segmentation(layer, layer / "more", options=SMALL_BLOCKS, overwrite=True)
    assert json.loads((layer / "info").read_text(encoding="utf-8"))["mesh"] == "more"
    assert made.objects == len(list(MeshFolder(layer / "more").ids()))


@pytest.mark.parametrize("file_format", ["obj", "ply", "stl", "glb"])
def test_single_files_hold_the_objects(
    file_format: str, labels: np.ndarray, seg: Path, tmp_path: Path
) -> None:
    trimesh = pytest.importorskip("trimesh", reason="trimesh is not installed (extra test)")
    options = MeshOptions(ids=(1, 2), file_format=file_format, block_edge=16)
    mesh_segmentation(seg, tmp_path / "files", options=options)
    names = [f"1.{file_format}", f"2.{file_format}", "floodem.json"]
    assert sorted(contents(tmp_path / "files")) == names
    one = tmp_path / f"one.{file_format}"
    mesh_segmentation(seg, one, options=MeshOptions(ids=(1,), block_edge=16))
    assert not (tmp_path / f"{one.name}.floodem").exists()
    for path in (one, tmp_path / "files" / names[0]):
        found = trimesh.load_mesh(path)
        assert found.is_watertight
        voxels = (labels == 1).sum() * np.prod(ANISOTROPIC.zyx_nm)
        assert found.volume == pytest.approx(voxels, rel=0.08)
    with pytest.raises(DestinationExistsError, match="left as it was|left as it is"):
        mesh_segmentation(seg, one, options=MeshOptions(ids=(2,)))
    before = one.read_bytes()
    mesh_segmentation(seg, one, options=MeshOptions(ids=(2,)), overwrite=True)
    assert one.read_bytes() != before


def test_one_file_holds_one_object_of_its_own_format(seg: Path, tmp_path: Path) -> None:
    for ids in (None, (1, 2)):
        with pytest.raises(OptionError, match="holds one object"):
            mesh_segmentation(seg, tmp_path / "all.obj", options=MeshOptions(ids=ids))
    with pytest.raises(OptionError, match="would be obj and not ply"):
        mesh_segmentation(
            seg, tmp_path / "one.obj", options=MeshOptions(ids=(1,), file_format="ply")
        )


@pytest.mark.usefixtures("no_servers")
def test_meshes_go_to_a_server_in_shards(seg: Path, bucket: FakeServer, tmp_path: Path) -> None:
    to, local = f"{bucket.root}/cells/mesh", tmp_path / "local"
    with pytest.raises(UsageError, match="--work"):
        mesh_segmentation(seg, to)
    made = mesh_segmentation(seg, to, work=tmp_path / "work")
    assert made.destination == to
    assert not (tmp_path / "work").exists()
    mesh_segmentation(seg, local, options=MeshOptions(is_sharded=True))
    assert bucket_contents(bucket, "cells/mesh/") == contents(local)
    assert mesh_segmentation(seg, to, work=tmp_path / "work").was_finished
    with pytest.raises(DestinationExistsError, match="other options"):
        mesh_segmentation(seg, to, options=SMALL_BLOCKS, work=tmp_path / "work")
    single = MeshOptions(is_sharded=False, ids=(1,))
    mesh_segmentation(seg, to, options=single, work=tmp_path / "work", overwrite=True)
    names = sorted(bucket_contents(bucket, "cells/mesh/"))
    assert names == ["1", "1.index", "floodem.json", "info"]


def bucket_contents(bucket: FakeServer, prefix: str) -> dict[str, bytes]:
    from floodem.volumes.servers.transport import open_store

    store = open_store(f"{bucket.root}/{prefix}")
    return {name: store.read(name) or b"" for name in store.names()}


def test_the_command_tells_what_it_made(seg: Path, tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("1, 2\n2 999\n", encoding="utf-8")
    words = [seg, tmp_path / "meshes", "--ids-file", tmp_path / "ids.txt", "--workers", 1]
    ended = run(*words)
    assert ended.returncode == 0, ended.stderr
    assert "2 objects" in ended.stdout
    assert "triangles" in ended.stdout
    assert ended.stderr.startswith("note: no mesh for 999")
    again = run(*words)
    assert "was finished by an earlier run" in again.stdout
    told = json.loads(run(*words, "--json").stdout)
    assert (told["objects"], told["was_finished"]) == (2, True)


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["--ids", "1,x"], 2, "'x' is not an id"),
        (["--ids-file", "nowhere.txt"], 2, "cannot be read"),
        (["--voxel-size", "3"], 2, "--voxel-size"),
        (["--box", "1:2"], 2, "--box"),
        (["--error", "-1"], 2, "positive"),
        (["--work", "here"], 2, "--work is for destinations on servers"),
        (["--ids", "999"], 3, "none of the ids"),
        (["--level", "7"], 2, "level 7"),
    ],
)
def test_the_command_refuses_in_one_sentence(
    words: list[str], code: int, sentence: str, seg: Path, tmp_path: Path
) -> None:
    from floodem.cli.main import build_app

    ended = CliRunner().invoke(
        build_app(["mesh"]), ["mesh", str(seg), str(tmp_path / "meshes"), "--workers", "1", *words]
    )
    assert ended.exit_code == code
    assert sentence in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.glob("meshes*"))


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to one process on Windows")
def test_ctrl_c_stops_the_command_and_the_same_command_goes_on(tmp_path: Path) -> None:
    seg = written(tissue(7, (40, 40, 40)).astype(np.uint32), tmp_path / "seg.zarr")
    to = tmp_path / "meshes"
    words = [str(seg), str(to), "--workers", "1", "--block-size", "8"]
    process = subprocess.Popen(
        [sys.executable, "-m", "floodem", "mesh", *words], stderr=subprocess.PIPE, text=True
    )
    receipts = to.with_name("meshes.floodem") / "meshing" / "blocks" / "receipts"
    while process.poll() is None and len(list(receipts.glob("*.json"))) < 3:
        pass
    os.kill(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 4, told
    assert "run the same command again" in told
    assert run(*words).returncode == 0
    assert not receipts.exists()


def test_ids_are_read_from_options_and_files(tmp_path: Path) -> None:
    file = tmp_path / "ids"
    file.write_bytes(b"7,8\n\n9\t10\r\n")
    assert parse_ids(["1,2", "3"], file) == (1, 2, 3, 7, 8, 9, 10)
    assert parse_ids(None, None) is None
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(OptionError, match="it is no text"):
        parse_ids(None, file)


def test_two_runs_on_one_destination_refuse_each_other(seg: Path, tmp_path: Path) -> None:
    inner: list[BaseException] = []

    def try_another(_: Progress) -> None:
        if not inner:
            with pytest.raises(RunConflictError, match="another process is working") as refused:
                mesh_segmentation(seg, tmp_path / "meshes", options=SMALL_BLOCKS)
            inner.append(refused.value)

    listener: Callable[[Progress], None] = try_another
    mesh_segmentation(seg, tmp_path / "meshes", options=SMALL_BLOCKS, progress=listener)
    assert inner
    assert (tmp_path / "meshes" / "info").exists()


def test_real_neurons_are_closed(shared_data: Path, tmp_path: Path) -> None:
    options = MeshOptions(voxel_size=ISOTROPIC, box=Box((0, 0, 0), (70, 80, 80)))
    made = mesh_segmentation(
        shared_data / "fib25" / "sample-training2.npz", tmp_path / "meshes", options=options
    )
    folder = MeshFolder(tmp_path / "meshes")
    ids = list(folder.ids())
    assert made.objects == len(ids) > 5
    for label in ids:
        for level in range(len(folder.manifest(label).levels)):
            assert is_watertight(folder.mesh(label, level=level)), (label, level)


def test_a_segmentation_that_changed_at_its_address_is_read_anew(tmp_path: Path) -> None:
    from floodem.shapes import source

    place = tmp_path / "seg.h5@labels"
    for label in (1, 2):
        array = np.zeros((8, 8, 8), np.uint32)
        array[2:6, 2:6, 2:6] = label
        (tmp_path / "seg.h5").unlink(missing_ok=True)
        uri = written(array, place, ISOTROPIC)
        mesh_segmentation(uri, tmp_path / f"meshes-{label}")
        assert list(MeshFolder(tmp_path / f"meshes-{label}").ids()) == [label]
        assert not source._open
