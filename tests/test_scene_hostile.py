"""Scenes and shapes that somebody else made: what is believed of them, and what is not."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from floodem.errors import (
    FloodemError,
    OptionError,
    UnsafeFileError,
    UsageError,
    VolumeFormatError,
    VolumeNotFoundError,
)
from floodem.shapes.meshes.marching import object_meshes
from floodem.shapes.precomputed import (
    LegacyMeshInfo,
    MeshInfo,
    encode_multiresolution,
    read_info,
    read_segment_properties,
    write_info,
    write_legacy_mesh,
    write_mesh,
)
from floodem.viewer.scenes import open_scene
from floodem.viewer.scenes.properties import read_names
from floodem.viewer.scenes.scores import read_scores
from scene_cases import NO_SHAPES, edit_scene, files_of, labelled, make, scores_file


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile") / "out"
    return make(folder, options=replace(NO_SHAPES, has_client=False)).folder


@pytest.fixture
def folder(template, tmp_path):
    """A scene of its own for a test to spoil."""
    return shutil.copytree(template, tmp_path / "out")


def test_a_folder_without_scene_is_none(tmp_path):
    with pytest.raises(VolumeNotFoundError, match="no scene"):
        open_scene(tmp_path)


@pytest.mark.parametrize("version", [None, 0, 2, "1"])
def test_other_versions_are_refused_with_the_remedy(folder, version):
    edit_scene(folder, lambda values: values.update(floodem_scene=version))
    with pytest.raises(VolumeFormatError, match=r"version .*make the scene again"):
        open_scene(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '{"floodem_scene": 1}'])
def test_damaged_texts_are_refused(folder, text):
    (folder / "scene.json").write_text(text)
    with pytest.raises(VolumeFormatError):
        open_scene(folder)


def test_absurdly_large_texts_are_not_read(folder):
    with open(folder / "scene.json", "ab") as handle:
        handle.truncate(2**30)
    with pytest.raises(UnsafeFileError, match="larger than"):
        open_scene(folder)


def set_source(values, source):
    values["state"]["layers"][0]["source"] = source


@pytest.mark.parametrize(
    "source",
    [
        "precomputed://../image",
        "precomputed://image/../../x",
        "precomputed:///etc",
        "precomputed://image/..",
        "precomputed://./image",
        "precomputed://.git",
        "precomputed://image\\..\\x",
        "precomputed://C:/image",
        "precomputed://%2e%2e/image",
        "precomputed://image?x=1",
        "precomputed://image|zip:",
        "precomputed://http://example.org/image",
        "precomputed://",
        "http://example.org/image",
        "python://volume/abc",
        "local://something",
        "image",
        {"url": "precomputed://../image"},
        [{"url": "precomputed://image"}, {"url": "zarr://s3://bucket/x"}],
    ],
)
def test_sources_outside_of_the_scene_are_refused(folder, source):
    edit_scene(folder, lambda values: set_source(values, source))
    with pytest.raises(UnsafeFileError, match="not opened"):
        open_scene(folder)


@pytest.mark.parametrize("source", [None, 3, {}, {"url": 3}, [None]])
def test_layers_without_a_source_are_refused(folder, source):
    edit_scene(folder, lambda values: set_source(values, source))
    with pytest.raises(VolumeFormatError):
        open_scene(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values["state"].update(jsonStateServer="https://example.org/post"),
        lambda values: values["state"]["layers"][0].update(
            shader="// see\n#include http://example.org"
        ),
        lambda values: values["state"].update(deep={"a": [{"b": "gs://bucket/x"}]}),
    ],
)
def test_addresses_anywhere_in_the_state_are_refused(folder, change):
    edit_scene(folder, change)
    with pytest.raises(UnsafeFileError, match="address"):
        open_scene(folder)


def test_an_address_in_a_title_is_only_text(folder):
    edit_scene(folder, lambda values: values.update(title="from http://example.org"))
    assert open_scene(folder).title == "from http://example.org"


@pytest.mark.parametrize(
    "layers", [None, {}, ["image"], [{"name": 3, "type": "image", "source": "x"}], [{}] * 2000]
)
def test_states_without_proper_layers_are_refused(folder, layers):
    edit_scene(folder, lambda values: values["state"].update(layers=layers))
    with pytest.raises(VolumeFormatError):
        open_scene(folder)


@pytest.mark.parametrize("key", ["mesh", "skeletons", "segment_properties"])
@pytest.mark.parametrize("value", ["../image", "/etc", "http://example.org/mesh", "missing", 7])
def test_volumes_that_name_other_folders_are_refused(folder, key, value):
    path = folder / "segmentation" / "info"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises((UnsafeFileError, VolumeFormatError)):
        open_scene(folder)


def test_scales_outside_of_the_volume_are_refused(folder):
    path = folder / "image" / "info"
    info = json.loads(path.read_text())
    info["scales"][0]["key"] = "../../secret"
    path.write_text(json.dumps(info))
    with pytest.raises(UnsafeFileError, match="secret"):
        open_scene(folder)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_links_out_of_the_scene_are_refused(folder, tmp_path):
    (folder / "image").rename(tmp_path / "elsewhere")
    (folder / "image").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafeFileError, match="link"):
        open_scene(folder)


def test_a_missing_volume_is_named(folder):
    (folder / "image").rename(folder / "other")
    with pytest.raises(VolumeFormatError, match="image"):
        open_scene(folder)


@pytest.mark.parametrize("address", ["/tmp/scene", "", "relative/path"])
def test_a_state_is_made_for_web_addresses_only(folder, address):
    with pytest.raises(UsageError, match="no web address"):
        open_scene(folder).state_at(address)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(state=json_values, layer=json_values, source=json_values)
def test_any_state_opens_or_is_refused_in_one_sentence(folder, state, layer, source):
    layers = [{"name": "a", "type": "image", "source": source}, layer]
    values = {"floodem_scene": 1, "title": state, "state": {"layers": layers, "x": state}}
    (folder / "scene.json").write_text(json.dumps(values))
    sentence, names = "", set()
    try:
        names = set(open_scene(folder).layers)
    except FloodemError as error:
        sentence = str(error)
    assert "\n" not in sentence
    assert names <= {"image", "segmentation"}


# --- shapes of others ----------------------------------------------------------------


def mesh_folder(folder, *, is_legacy=False):
    """Meshes of the labels of `labelled`, with a list of properties that stays behind."""
    folder.mkdir()
    volume = labelled()
    meshes = object_meshes(
        volume.array, voxel_size=volume.voxel_size, start=volume.offset, max_error_nm=20.0
    )
    for label, mesh in meshes:
        if is_legacy:
            write_legacy_mesh(folder, label, mesh)
        else:
            encoded = encode_multiresolution(
                [mesh], chunk_edges_nm=(1e4, 1e4, 1e4), grid_origin_zyx_nm=(0.0, 0.0, 0.0)
            )
            write_mesh(folder, label, encoded)
    info = LegacyMeshInfo if is_legacy else MeshInfo
    write_info(folder, info(segment_properties="properties"))
    (folder / "properties").mkdir()
    (folder / "properties" / "info").write_text("{}")
    return folder


@pytest.mark.parametrize("is_legacy", [False, True])
def test_meshes_of_others_are_copied_without_what_lies_around_them(tmp_path, is_legacy):
    given = mesh_folder(tmp_path / "meshes", is_legacy=is_legacy)
    (given / "notes.txt").write_text("mine")
    made = make(tmp_path / "out", options=replace(NO_SHAPES, meshes=given))
    copied = made.folder / "segmentation" / "mesh"
    assert read_info(copied).segment_properties is None
    wanted = {
        name: data
        for name, data in files_of(given).items()
        if name not in {"notes.txt", "info", "properties/info"}
    }
    found = files_of(copied)
    del found["info"]
    assert found == wanted
    info = json.loads((made.folder / "segmentation" / "info").read_text())
    assert (info["mesh"], info["segment_properties"]) == ("mesh", "segment_properties")
    assert made.state["showSlices"] is False


def test_meshes_are_copied_for_the_ids_asked_for(tmp_path):
    given = mesh_folder(tmp_path / "meshes")
    options = replace(NO_SHAPES, meshes=given, only_ids=frozenset({9}))
    made = make(tmp_path / "out", options=options)
    copied = {path.name for path in (made.folder / "segmentation" / "mesh").iterdir()}
    assert copied == {"info", "9", "9.index"}


def test_meshes_that_are_no_longer_wanted_are_taken_out(tmp_path):
    options = replace(NO_SHAPES, meshes=mesh_folder(tmp_path / "meshes"))
    made = make(tmp_path / "out", options=options)
    make(tmp_path / "out")
    assert not (made.folder / "segmentation" / "mesh").exists()
    assert "mesh" not in json.loads((made.folder / "segmentation" / "info").read_text())


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_link_among_meshes_is_not_followed(tmp_path):
    given = mesh_folder(tmp_path / "meshes")
    (tmp_path / "secret").write_text("secret")
    (given / "33").symlink_to(tmp_path / "secret")
    with pytest.raises(UnsafeFileError, match="link"):
        make(tmp_path / "out", options=replace(NO_SHAPES, meshes=given))
    assert not (tmp_path / "out" / "scene.json").exists()


def test_folders_that_hold_no_such_shapes_are_refused(tmp_path):
    given = mesh_folder(tmp_path / "meshes")
    (tmp_path / "empty").mkdir()
    for options in (
        replace(NO_SHAPES, skeletons=given),
        replace(NO_SHAPES, meshes=tmp_path / "empty"),
        replace(NO_SHAPES, meshes=tmp_path / "missing"),
        replace(NO_SHAPES, meshes=given, only_ids=None),
    ):
        if options.meshes == given:
            (given / "info").write_text('{"@type": "neuroglancer_multilod_draco"}')
        with pytest.raises(FloodemError) as refused:
            make(tmp_path / "out", options=options)
        assert isinstance(refused.value, (OptionError, VolumeFormatError, VolumeNotFoundError))


# --- scores and names ----------------------------------------------------------------


def test_scores_stand_in_the_list_and_point_at_mistakes(tmp_path):
    made = make(tmp_path / "out", options=replace(NO_SHAPES, scores=scores_file(tmp_path)))
    found = read_segment_properties(made.folder / "segmentation" / "segment_properties")
    large = 2**40 + 3
    rows = {label: row for row, label in enumerate(found.ids.tolist())}
    assert found.numbers["split_bits"][[rows[7], rows[9], rows[large]]].tolist() == [0.25, 0.25, 0]
    assert found.numbers["merge_bits"][rows[large]] == 0.5
    assert "merges 3 objects of the truth" in found.descriptions[rows[large]]
    splits, mergers = made.state["layers"][-2:]
    assert (splits["name"], mergers["name"]) == ("splits", "mergers")
    assert splits["annotations"][0]["point"] == [120.5, 30.5, 5.5]
    assert splits["annotations"][0]["segments"] == [["7", "9"]]
    assert made.summary["scores"]["all_truth"]["voi_split_bits"] == 0.5
    assert "adapted Rand error 0.1000" in (made.folder / "README.txt").read_text()


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "other"},
        {"version": 2},
        {"worst_mergers": 3},
        {"worst_splits": [{}]},
        {"all_truth": []},
        {"coverage": "much"},
    ],
)
def test_other_files_are_no_scores(tmp_path, changes):
    with pytest.raises(VolumeFormatError):
        read_scores(scores_file(tmp_path, **changes))


def test_missing_scores_are_named(tmp_path):
    with pytest.raises(OptionError, match="floodem evaluate"):
        read_scores(tmp_path / "scores.json")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("id,name\n7,left arbor\n", {7: "left arbor"}),
        ('7,"arbor, left"\n\n9,b\n', {7: "arbor, left", 9: "b"}),
        ("\ufeffID,Name\n7,éé\n", {7: "éé"}),
        ("", {}),
    ],
)
def test_names_are_read_from_csv(tmp_path, text, names):
    (tmp_path / "names.csv").write_text(text, encoding="utf-8")
    assert read_names(tmp_path / "names.csv") == names


@pytest.mark.parametrize("text", ["7\n", "a,b\nc,d\n", "7,a\n7,b\n", "-1,a\n", "7,a,b\n"])
def test_lines_that_are_no_id_and_name_are_refused(tmp_path, text):
    (tmp_path / "names.csv").write_text(text, encoding="utf-8")
    with pytest.raises(VolumeFormatError, match="line"):
        read_names(tmp_path / "names.csv")


def test_no_table_of_names_is_refused(tmp_path):
    with pytest.raises(OptionError, match="id,name"):
        read_names(tmp_path / "names.csv")
    (tmp_path / "bytes.csv").write_bytes(b"7,\xff\xfe\n")
    with pytest.raises(VolumeFormatError, match="UTF-8"):
        read_names(tmp_path / "bytes.csv")
