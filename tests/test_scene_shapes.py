"""Meshes and skeletons in scenes: made once, whatever kills the making, and read by others."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from floodem.cli.main import build_app
from floodem.cli.scene import parse_shapes
from floodem.errors import LabelError, OptionError, RunConflictError
from floodem.shapes.precomputed import MeshFolder
from floodem.viewer.scenes import MAKE, NONE, SceneOptions, make_scene, open_scene
from floodem.volumes import create_volume
from scene_cases import NO_SHAPES, OFFSET, SIZE, files_of, grey, labelled, make

IDS = [7, 9, 2**40 + 3]


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """The volumes of `scene_cases` in files, for runs in other processes."""
    folder = tmp_path_factory.mktemp("stored")
    for name, volume in (("image", grey()), ("labels", labelled())):
        address = folder / f"{name}.zarr"
        with create_volume(
            address,
            shape=volume.shape,
            dtype=volume.dtype,
            voxel_size=SIZE,
            offset=OFFSET,
            chunks=(8, 32, 32),
        ) as copy:
            copy.write(copy.box, volume.array)
    return folder


def make_stored(folder, stored, *, options=None, **wanted):
    return make_scene(
        folder,
        images=[stored / "image.zarr"],
        segmentations=[stored / "labels.zarr"],
        options=options or SceneOptions(title="Objects"),
        **wanted,
    )


@pytest.fixture(scope="module")
def whole(stored, tmp_path_factory):
    """A scene with meshes and skeletons that no test changes."""
    return make_stored(tmp_path_factory.mktemp("whole") / "out", stored)


def test_every_object_has_a_mesh_and_a_skeleton(whole):
    folder = whole.folder / "segmentation"
    info = json.loads((folder / "info").read_text())
    assert (info["mesh"], info["skeletons"]) == ("mesh", "skeletons")
    assert sorted(MeshFolder(folder / "mesh").ids()) == sorted(IDS)
    assert {path.name for path in (folder / "skeletons").iterdir()} >= {str(i) for i in IDS}


def test_meshes_lie_where_their_objects_are(whole):
    folder = MeshFolder(whole.folder / "segmentation" / "mesh")
    low, high = folder.mesh(7).box_nm
    voxel_nm = np.array(SIZE.zyx_nm)
    # z 2:-2, y 10:40, x 5:45 of the array.
    wanted_low = (np.array([2, 10, 5]) + OFFSET) * voxel_nm
    wanted_high = (np.array([18, 40, 45]) + OFFSET) * voxel_nm
    assert np.allclose(low, wanted_low, atol=30)
    assert np.allclose(high, wanted_high, atol=30)


def test_no_place_of_this_machine_is_in_the_shapes(whole, stored):
    for name, data in files_of(whole.folder / "segmentation").items():
        for folder in (stored, whole.folder.parent):
            assert str(folder).encode() not in data, name
    assert not (whole.folder / "segmentation" / "mesh" / "floodem.json").exists()


def test_the_record_holds_no_working_files_at_the_end(whole):
    record = whole.folder.with_name("out.floodem")
    assert {path.name for path in record.iterdir()} <= {"parts", "measures", "lock"}


def test_cloudvolume_reads_all_of_a_scene(whole):
    cloudvolume = pytest.importorskip("cloudvolume")
    for name, source in (("image", grey()), ("segmentation", labelled())):
        volume = cloudvolume.CloudVolume(f"file://{whole.folder / name}", progress=False)
        found = np.asarray(volume[volume.bounds])[..., 0].T
        assert np.array_equal(found, source.array)
        assert len(volume.available_mips) == len(volume.info["scales"]) > 1
    for label in IDS:
        mesh = volume.mesh.get(label)
        mesh = mesh[label] if isinstance(mesh, dict) else mesh
        assert len(mesh.faces) > 20
        skeleton = volume.skeleton.get(label)
        assert len(skeleton.vertices) > 2
        inside = volume.bounds.to_list()
        low, high = np.array(inside[:3]) * [10, 10, 30], np.array(inside[3:]) * [10, 10, 30]
        for points in (mesh.vertices, skeleton.vertices):
            assert (points >= low - 1).all()
            assert (points <= high + 1).all()


KILLED = """
import os, signal, sys
from pathlib import Path
from floodem.viewer.scenes import SceneOptions, make_scene

left = int(sys.argv[3])
def told(progress):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)

folder, stored = Path(sys.argv[1]), Path(sys.argv[2])
make_scene(
    folder,
    images=[stored / "image.zarr"],
    segmentations=[stored / "labels.zarr"],
    options=SceneOptions(title="Objects"),
    progress=told,
)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a signal of POSIX systems")
def test_a_scene_that_is_killed_again_and_again_ends_like_one_that_was_not(whole, stored, tmp_path):
    folder = tmp_path / "out"
    for calls in (3, 4, 3):
        code = textwrap.dedent(KILLED)
        arguments = [sys.executable, "-c", code, str(folder), str(stored), str(calls)]
        run = subprocess.run(arguments, check=False, capture_output=True, timeout=120)
        assert run.returncode == -signal.SIGKILL, run.stderr.decode()
        assert not (folder / "scene.json").exists()
    make_stored(folder, stored)
    assert files_of(folder) == files_of(whole.folder)


def test_shapes_may_be_added_to_a_finished_scene(whole, stored, tmp_path):
    folder = tmp_path / "out"
    bare = SceneOptions(title="Objects", meshes=NONE, skeletons=NONE)
    make_stored(folder, stored, options=bare)
    stamps = {path: path.stat().st_mtime_ns for path in (folder / "image").rglob("*")}
    make_stored(folder, stored)
    assert files_of(folder) == files_of(whole.folder)
    assert {path: path.stat().st_mtime_ns for path in (folder / "image").rglob("*")} == stamps


def test_shapes_of_other_objects_do_not_mix(stored, tmp_path):
    folder = tmp_path / "out"
    some = SceneOptions(only_ids=frozenset({7}), skeletons=NONE)
    made = make_stored(folder, stored, options=some)
    assert list(MeshFolder(made.folder / "segmentation" / "mesh").ids()) == [7]
    with pytest.raises(RunConflictError, match="none"):
        make_stored(folder, stored, options=replace(some, only_ids=frozenset({9})))
    make_stored(folder, stored, options=replace(some, meshes=NONE))
    made = make_stored(folder, stored, options=replace(some, only_ids=frozenset({9})))
    assert list(MeshFolder(made.folder / "segmentation" / "mesh").ids()) == [9]


def test_a_refused_command_leaves_a_finished_scene_as_it_was(stored, tmp_path):
    folder = tmp_path / "out"
    some = SceneOptions(only_ids=frozenset({7}))
    before = files_of(make_stored(folder, stored, options=some).folder)
    others = replace(some, only_ids=frozenset({9}), meshes=NONE)
    with pytest.raises(RunConflictError, match="skeletons"):
        make_stored(folder, stored, options=others)
    assert files_of(folder) == before
    open_scene(folder)


def test_a_segmentation_without_objects_makes_a_scene(tmp_path):
    empty = labelled()
    empty.array[:] = 0
    made = make(tmp_path / "out", segmentations=[empty], options=SceneOptions())
    assert made.summary["objects"] == {"segmentation": 0}
    assert made.state["layers"][1]["segments"] == []


def test_each_segmentation_has_its_own_shapes(tmp_path):
    options = SceneOptions(meshes={"a": MAKE}, skeletons=NONE)
    make(tmp_path / "out", segmentations={"a": labelled(), "b": labelled()}, options=options)
    assert (tmp_path / "out" / "a" / "mesh").is_dir()
    assert not (tmp_path / "out" / "b" / "mesh").exists()


# --- the command ---------------------------------------------------------------------


def run(*arguments):
    words = ["scene", *map(str, arguments)]
    return CliRunner().invoke(build_app(words), words)


def test_command_makes_a_scene_tells_its_size_first_and_how_to_see_it(stored, tmp_path):
    out = tmp_path / "out"
    (tmp_path / "names.csv").write_text("id,name\n7,left\n")
    ended = run(
        out,
        "--image",
        f"raw={stored / 'image.zarr'}",
        "--segmentation",
        stored / "labels.zarr",
        "--skeletons",
        "none",
        "--names",
        tmp_path / "names.csv",
        "--only-ids",
        "7,9",
        "--workers",
        1,
        "--title",
        "Mine",
    )
    assert ended.exit_code == 0, ended.output
    assert "raw: 20 x 70 x 150 uint8 in 3 levels" in ended.stderr
    assert "about" in ended.stderr
    assert "2 objects" in ended.stdout
    assert f"floodem view {out}" in ended.stdout
    assert open_scene(out).title == "Mine"


def test_command_prints_json_alone(stored, tmp_path):
    ended = run(tmp_path / "out", "--image", stored / "image.zarr", "--no-client", "--json")
    assert ended.exit_code == 0, ended.output
    facts = json.loads(ended.stdout)
    assert facts["layers"] == {"image": "image"}
    assert facts["has_client"] is False


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([], 2, "nothing to show"),
        (["--image", "missing.zarr"], 3, "missing.zarr"),
        (["--image", "x.zarr", "--box", "1:2"], 2, "--box"),
        (["--image", "x.zarr", "--voxel-size", "a"], 2, "--voxel-size"),
        (["--image", "x.zarr", "--pyramid", "many"], 2, "--pyramid"),
        (["--image", "x.zarr", "--only-ids", "seven"], 2, "--only-ids"),
        (["--image", "x.zarr", "--names", "missing.csv"], 2, "missing.csv"),
    ],
)
def test_mistakes_end_in_one_sentence(tmp_path, monkeypatch, arguments, code, says):
    monkeypatch.chdir(tmp_path)
    ended = run("out", *arguments)
    assert ended.exit_code == code
    assert says in ended.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_folders_of_shapes_are_given_once_or_by_name():
    assert parse_shapes(None) == MAKE
    assert parse_shapes(["none"]) == "none"
    assert parse_shapes(["a=make", "b=some/folder"]) == {"a": "make", "b": "some/folder"}
    with pytest.raises(OptionError, match="NAME=DIR"):
        parse_shapes(["make", "none"])


def test_missing_ids_are_refused_before_shapes_are_made(tmp_path):
    with pytest.raises(LabelError, match="no object 8"):
        make(tmp_path / "out", options=SceneOptions(only_ids=frozenset({7, 8})))
    assert not (tmp_path / "out" / "segmentation" / "mesh").exists()
    assert NO_SHAPES.meshes == NONE
