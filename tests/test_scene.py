"""Scenes on disk: what is in the folder, what it is made from, and what may be in the way."""

from __future__ import annotations

import getpass
import itertools
import json
import socket
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from array_volume import ArrayVolume
from floodem.errors import (
    DestinationExistsError,
    GeometryError,
    LabelError,
    OptionError,
    ResourceError,
    RunConflictError,
    StoppedError,
    VolumeNotFoundError,
)
from floodem.geometry import Box, VoxelSize
from floodem.shapes.precomputed import read_segment_properties
from floodem.viewer import Kind
from floodem.viewer.scenes import SceneOptions, make_scene, open_scene
from floodem.viewer.scenes.inputs import split_name
from floodem.viewer.serving.pages import client_folder
from floodem.volumes import create_volume, open_volume
from scene_cases import NO_SHAPES, OFFSET, SHAPE, SIZE, files_of, grey, labelled, make


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A scene that no test changes."""
    folder = tmp_path_factory.mktemp("scene") / "out"
    return make(folder, options=replace(NO_SHAPES, title="Two <b>objects</b> & one"))


def test_scene_holds_volumes_list_viewer_and_state(scene):
    names = set(files_of(scene.folder))
    assert {
        "index.html",
        "scene.json",
        "README.txt",
        "image/info",
        "segmentation/info",
        "segmentation/segment_properties/info",
        "v/scene/index.html",
        "v/scene/LICENSE-neuroglancer.txt",
    } <= names
    assert not [name for name in names if name.endswith(".map") or ".partial" in name]
    assert scene.layers == {"image": Kind.IMAGE, "segmentation": Kind.SEGMENTATION}
    assert scene.has_client
    assert scene.summary["objects"] == {"segmentation": 3}


def test_copies_hold_the_same_voxels_in_the_same_place(scene):
    for name, source in (("image", grey()), ("segmentation", labelled())):
        with open_volume(f"precomputed://{scene.folder / name}") as copy:
            assert copy.box == source.box
            assert copy.voxel_size == SIZE
            assert np.array_equal(copy.read(), source.array)
            assert len(copy.levels) > 1
            assert max(copy.levels[-1].shape[1:]) <= 64 + 1


def test_every_chunk_has_a_file_so_that_no_server_answers_404(scene):
    info = json.loads((scene.folder / "segmentation" / "info").read_text())
    for scale in info["scales"]:
        chunks = 1
        for size, edge in zip(scale["size"], scale["chunk_sizes"][0], strict=True):
            chunks *= -(-size // edge)
        assert len(list((scene.folder / "segmentation" / scale["key"]).iterdir())) == chunks


def test_nothing_in_a_scene_names_the_machine_it_was_made_on(scene):
    told = [str(scene.folder.parent), str(Path.home()), "/tmp/", sys.prefix]
    told += [name for name in (socket.gethostname(), getpass.getuser()) if len(name) > 4]
    built = {path.name for path in client_folder().iterdir()} - {"index.html"}
    for name, data in files_of(scene.folder).items():
        if name.removeprefix("v/scene/") in built:
            continue
        for text in told:
            assert text.encode() not in data, (name, text)


def test_pages_escape_the_title(scene):
    for name in ("index.html", "v/scene/index.html"):
        page = (scene.folder / name).read_text()
        assert "<title>Two &lt;b&gt;objects&lt;/b&gt; &amp; one</title>" in page
        assert "$" not in page.replace("$)", "")


def test_state_shows_the_segmentation_above_the_image_and_its_list(scene):
    image, segments = scene.state["layers"]
    assert (image["name"], segments["name"]) == ("image", "segmentation")
    assert image["source"] == "precomputed://image"
    assert set(segments["segments"]) == {"7", "9", str(2**40 + 3)}
    low, high = image["shaderControls"]["normalized"]["range"]
    assert 60 <= low < high <= 199
    assert scene.state["selectedLayer"]["layer"] == "segmentation"
    x, y, z = scene.state["position"]
    middle = [start + edge / 2 for start, edge in zip(OFFSET, SHAPE, strict=True)]
    assert np.allclose([z, y, x], middle, atol=max(SHAPE) / 2)
    assert np.allclose(scene.state["dimensions"]["z"][0], 30e-9)


def test_state_at_an_address_has_absolute_sources_and_leaves_the_scene_alone(scene):
    state = scene.state_at("http://127.0.0.1:8080/f/abc/")
    sources = [layer["source"] for layer in state["layers"]]
    assert sources == [
        "precomputed://http://127.0.0.1:8080/f/abc/image",
        "precomputed://http://127.0.0.1:8080/f/abc/segmentation",
    ]
    assert scene.state["layers"][0]["source"] == "precomputed://image"


def test_list_has_sizes_in_voxels_and_cubic_micrometres(scene):
    found = read_segment_properties(scene.folder / "segmentation" / "segment_properties")
    array = labelled().array
    ids, counts = np.unique(array[array != 0], return_counts=True)
    assert found.ids.tolist() == ids.tolist()
    assert found.numbers["voxels"].tolist() == counts.tolist()
    assert np.allclose(found.numbers["volume_um3"], counts * 3000e-9, rtol=1e-6)
    assert found.labels == [str(label) for label in ids]


def test_names_stand_in_the_list(tmp_path):
    made = make(tmp_path / "out", options=replace(NO_SHAPES, names={7: "left arbor", 12: "none"}))
    found = read_segment_properties(made.folder / "segmentation" / "segment_properties")
    assert dict(zip(found.ids.tolist(), found.labels, strict=True))[7] == "left arbor"


def test_only_the_ids_asked_for_are_listed_and_shown(tmp_path):
    made = make(tmp_path / "out", options=replace(NO_SHAPES, only_ids=frozenset({9})))
    found = read_segment_properties(made.folder / "segmentation" / "segment_properties")
    assert found.ids.tolist() == [9]
    assert made.state["layers"][1]["segments"] == ["9"]


def test_an_id_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(LabelError, match="no object 12"):
        make(tmp_path / "out", options=replace(NO_SHAPES, only_ids=frozenset({9, 12})))


def test_a_large_volume_without_levels_is_not_read_whole_for_its_first_look(tmp_path, monkeypatch):
    monkeypatch.setattr("floodem.viewer.scenes.state.MESH_VOXELS", 1000)
    labels = labelled()
    labels.array[2:12, 0:10, 140:] = 13  # far from the middle
    options = replace(NO_SHAPES, pyramid=0)
    made = make(tmp_path / "out", segmentations=[labels], options=options)
    segments = made.state["layers"][1]["segments"]
    assert str(2**40 + 3) in segments
    assert "13" not in segments


@pytest.mark.parametrize(
    ("dtype", "copied"),
    [
        (np.float64, np.float32),
        (np.float32, np.float32),
        (np.uint16, np.uint16),
        (np.int16, np.int16),
        (np.int64, np.float32),
    ],
)
def test_images_of_every_type_are_copied_into_one_that_is_drawn(tmp_path, dtype, copied):
    image = grey(dtype=dtype)
    make(tmp_path / "out", images=[image], segmentations=[])
    with open_volume(f"precomputed://{tmp_path / 'out' / 'image'}") as copy:
        assert copy.dtype == copied
        assert np.allclose(copy.read(), image.array)


@pytest.mark.parametrize(
    ("dtype", "copied"),
    [(np.uint8, np.uint32), (np.int16, np.uint32), (np.uint32, np.uint32), (np.int64, np.uint64)],
)
def test_labels_of_every_type_become_segments(tmp_path, dtype, copied):
    labels = labelled(dtype=dtype)
    make(tmp_path / "out", images=[], segmentations=[labels])
    with open_volume(f"precomputed://{tmp_path / 'out' / 'segmentation'}") as copy:
        assert copy.dtype == copied
        assert np.array_equal(copy.read(), labels.array)


def test_floats_are_no_segmentation(tmp_path):
    with pytest.raises(LabelError, match="no labels"):
        make(tmp_path / "out", segmentations=[grey(dtype=np.float32)])
    assert not (tmp_path / "out").exists()


def test_negative_labels_are_refused(tmp_path):
    labels = labelled(dtype=np.int32)
    labels.array[0, 0, 0] = -1
    with pytest.raises(LabelError, match="-1"):
        make(tmp_path / "out", segmentations=[labels])
    assert not (tmp_path / "out" / "scene.json").exists()


def test_a_box_is_of_the_first_volume_and_reaches_the_same_place_in_others(tmp_path):
    coarse = ArrayVolume(
        np.ones((20, 35, 75), np.uint32), offset=(4, 10, 50), voxel_size=VoxelSize(30, 20, 20)
    )
    box = Box((6, 25, 111), (16, 65, 200))
    make(tmp_path / "out", segmentations=[coarse], options=replace(NO_SHAPES, box=box))
    with open_volume(f"precomputed://{tmp_path / 'out' / 'image'}") as image:
        assert image.box == box
        assert np.array_equal(image.read(), grey().read(box))
    with open_volume(f"precomputed://{tmp_path / 'out' / 'segmentation'}") as labels:
        assert labels.box == Box((6, 12, 55), (16, 33, 100))


def test_a_box_beside_a_volume_is_refused(tmp_path):
    with pytest.raises(GeometryError, match="holds nothing of"):
        make(tmp_path / "out", options=replace(NO_SHAPES, box=Box((0, 0, 0), (4, 5, 5))))


def test_volumes_without_voxel_size_take_that_of_another_and_say_so(tmp_path):
    told = []
    make(tmp_path / "out", segmentations=[labelled(voxel_size=None)], notice=told.append)
    assert any("segmentation" in sentence and "30,10,10" in sentence for sentence in told)
    with open_volume(f"precomputed://{tmp_path / 'out' / 'segmentation'}") as labels:
        assert labels.voxel_size == SIZE


def test_a_scene_without_any_voxel_size_is_refused(tmp_path):
    nothing = {"images": [grey(voxel_size=None)], "segmentations": []}
    with pytest.raises(OptionError, match="--voxel-size"):
        make(tmp_path / "out", **nothing)
    made = make(tmp_path / "out", options=replace(NO_SHAPES, voxel_size=SIZE), **nothing)
    assert np.allclose(made.state["dimensions"]["x"][0], 10e-9)


def test_nothing_to_show_is_refused(tmp_path):
    with pytest.raises(OptionError, match="nothing to show"):
        make(tmp_path / "out", images=[], segmentations=[])


def test_several_volumes_get_the_names_that_were_given(tmp_path):
    address = tmp_path / "labels.zarr"
    create_volume(address, shape=(4, 5, 6), dtype=np.uint32, voxel_size=SIZE).close()
    made = make(
        tmp_path / "out",
        images={"raw": grey(), "raw2": grey()},
        segmentations=[f"truth={address}", labelled(), labelled()],
    )
    assert list(made.layers) == ["raw", "raw2", "truth", "segmentation", "segmentation-2"]
    assert made.summary["objects"]["truth"] == 0


@pytest.mark.parametrize("name", ["v", "..", "a/b", "a b", "", "CON", "x" * 65, ".hidden"])
def test_names_that_are_no_folder_are_refused(tmp_path, name):
    with pytest.raises(OptionError, match="cannot be the name"):
        make(tmp_path / "out", images={name: grey()})


def test_names_that_differ_by_case_only_are_refused(tmp_path):
    with pytest.raises(OptionError, match="two volumes are called"):
        make(tmp_path / "out", images={"raw": grey(), "RAW": grey()})


def test_an_address_with_an_equals_sign_that_is_there_is_no_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t=3.zarr").mkdir()
    assert split_name("t=3.zarr") == (None, "t=3.zarr")
    assert split_name("t=4.zarr") == ("t", "4.zarr")
    assert split_name("precomputed://a?b=c") == (None, "precomputed://a?b=c")


def test_without_client_there_are_data_and_state_only(tmp_path):
    made = make(tmp_path / "out", options=replace(NO_SHAPES, has_client=False))
    assert not made.has_client
    assert sorted(path.name for path in made.folder.iterdir()) == [
        "README.txt",
        "image",
        "scene.json",
        "segmentation",
    ]


def test_size_is_told_before_anything_is_written(tmp_path):
    told = []

    def planned(plan):
        assert not (tmp_path / "out").exists()
        told.append(plan)

    make(tmp_path / "out", planned=planned)
    [plan] = told
    written = sum(len(data) for data in files_of(tmp_path / "out").values())
    assert plan.voxels > 2 * np.prod(SHAPE)
    assert 0.5 < written / plan.expected_bytes < 1.5


def test_a_full_disk_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Disk", (), {"free": 1000}))
    with pytest.raises(ResourceError, match="the scene needs"):
        make(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_sharded_scenes_hold_shards_and_say_what_they_need(tmp_path):
    told = []
    made = make(tmp_path / "out", options=replace(NO_SHAPES, is_sharded=True), notice=told.append)
    names = [name for name in files_of(made.folder) if name.startswith("image/")]
    assert all(name.endswith((".shard", "info")) for name in names)
    assert any("ranges" in sentence for sentence in told)
    with open_volume(f"precomputed://{made.folder / 'segmentation'}") as copy:
        assert np.array_equal(copy.read(), labelled().array)


# --- stopping, going on, beginning again ---------------------------------------------


def stop_after(calls):
    """A question that is answered with yes from some call on."""
    count = itertools.count()
    return lambda: next(count) >= calls


@pytest.mark.parametrize("calls", [0, 1, 3, 5])
def test_a_stopped_scene_goes_on_and_ends_like_one_that_was_not(tmp_path, scene, calls):
    options = replace(NO_SHAPES, title=scene.title)
    folder = tmp_path / "out"
    with pytest.raises(StoppedError):
        make(folder, options=options, should_stop=stop_after(calls))
    assert not (folder / "scene.json").exists()
    with pytest.raises(VolumeNotFoundError, match="its making was stopped"):
        open_scene(folder)
    make(folder, options=options)
    assert files_of(folder) == files_of(scene.folder)


def test_what_is_finished_is_not_read_again(tmp_path):
    image, labels = grey(), labelled()
    given = {"images": [image], "segmentations": [labels]}
    make(tmp_path / "out", **given)
    image.reads.clear()
    labels.reads.clear()
    made = make(tmp_path / "out", options=replace(NO_SHAPES, title="Another"), **given)
    assert (image.reads, labels.reads) == ([], [])
    assert made.title == "Another"
    assert "Another" in (made.folder / "README.txt").read_text()


def test_addresses_and_sizes_may_be_written_otherwise_in_the_next_call(tmp_path, monkeypatch):
    with create_volume(tmp_path / "raw.zarr", shape=SHAPE, dtype=np.uint8) as volume:
        volume.write(volume.box, grey().array)
    monkeypatch.chdir(tmp_path)
    for source, size in (("raw.zarr", (30, 10, 10)), (tmp_path / "raw.zarr", (30.0, 10.0, 10.0))):
        options = replace(NO_SHAPES, voxel_size=VoxelSize(*size))
        make(tmp_path / "out", images=[source], segmentations=[], options=options)


def test_a_volume_that_was_deleted_is_made_again(tmp_path):
    folder = tmp_path / "out"
    make(folder)
    before = files_of(folder)
    for path in (folder / "image").rglob("*"):
        if path.is_file():
            path.unlink()
    for path in sorted((folder / "image").rglob("*"), reverse=True):
        path.rmdir()
    (folder / "image").rmdir()
    make(folder)
    assert files_of(folder) == before


def test_another_source_does_not_mix_with_what_is_there(tmp_path):
    folder = tmp_path / "out"
    make(folder)
    before = files_of(folder)
    other = {"images": [grey(dtype=np.uint16)]}
    with pytest.raises(RunConflictError, match="--overwrite"):
        make(folder, **other)
    assert files_of(folder) == before
    made = make(folder, overwrite=True, **other)
    with open_volume(f"precomputed://{made.folder / 'image'}") as copy:
        assert copy.dtype == np.uint16


def test_overwriting_leaves_other_files_alone_and_removes_layers_of_before(tmp_path):
    folder = tmp_path / "out"
    make(folder, images={"old": grey()})
    (folder / "notes.txt").write_text("mine")
    make(folder, overwrite=True)
    assert (folder / "notes.txt").read_text() == "mine"
    assert not (folder / "old").exists()


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(DestinationExistsError, match=r"notes\.txt"):
            make(tmp_path / "out", overwrite=overwrite)
    assert files_of(tmp_path) == {"out/notes.txt": b"mine"}


def test_a_file_in_the_way_is_left_alone(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(DestinationExistsError, match="is a file"):
        make(tmp_path / "out")


def test_a_scene_whose_record_is_gone_is_replaced_only_when_asked(tmp_path):
    folder = tmp_path / "out"
    make(folder, images={"old": grey()})
    (tmp_path / "out.floodem").rename(tmp_path / "elsewhere")
    with pytest.raises(DestinationExistsError, match="record"):
        make(folder)
    make(folder, overwrite=True)
    assert not (folder / "old").exists()


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "out").mkdir()
    assert make(tmp_path / "out").has_client


def test_two_runs_do_not_work_on_one_scene(tmp_path):
    def meanwhile(progress):
        with pytest.raises(RunConflictError, match="another process"):
            make(tmp_path / "out")
        nonlocal was_asked
        was_asked = True

    was_asked = False
    make(tmp_path / "out", progress=meanwhile)
    assert was_asked


def test_a_moved_scene_opens_as_before(tmp_path):
    made = make(tmp_path / "out")
    moved = made.folder.rename(tmp_path / "elsewhere")
    assert open_scene(moved).state == made.state


@pytest.mark.parametrize(
    "wanted",
    [
        {"workers": 0},
        {"title": ""},
        {"title": "x" * 300},
        {"only_ids": frozenset({0})},
    ],
)
def test_impossible_options_are_refused(wanted):
    with pytest.raises(OptionError):
        SceneOptions(**wanted)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (SceneOptions(meshes={"truth": "somewhere"}), "truth"),
        (SceneOptions(meshes="somewhere"), "NAME=somewhere"),
    ],
)
def test_shapes_for_unknown_or_several_segmentations_are_refused(tmp_path, options, named):
    with pytest.raises(OptionError, match=named):
        make_scene(
            tmp_path / "out", segmentations={"a": labelled(), "b": labelled()}, options=options
        )
