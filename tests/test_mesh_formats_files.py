"""Single mesh files: other programs read them as what was written, whole and outward."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from floodem.errors import GeometryError, OptionError, StorageError
from floodem.shapes.files import FORMATS, UNITS, mesh_file_name, triangles, write_mesh_file
from floodem.shapes.meshes import Mesh
from mesh_format_cases import soup, sphere, tetrahedra

BALL = sphere(500, centre_zyx_nm=(3000, 2000, 1000))


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("file_format", FORMATS)
def test_trimesh_reads_the_same_solid(file_format: str, unit: str, tmp_path: Path) -> None:
    trimesh = pytest.importorskip("trimesh")
    path = tmp_path / mesh_file_name(7, file_format)
    write_mesh_file(path, BALL, unit=unit)

    found = trimesh.load_mesh(path)
    found.merge_vertices()  # an STL file has no vertices in common
    scale = UNITS[unit]
    assert found.is_watertight
    assert found.is_winding_consistent
    assert found.volume == pytest.approx(BALL.volume_nm3 * scale**3, rel=1e-4)
    assert found.area == pytest.approx(BALL.area_nm2 * scale**2, rel=1e-4)
    assert found.center_mass == pytest.approx(np.array([1000, 2000, 3000]) * scale, rel=1e-4)
    assert len(found.faces) == len(BALL.faces)


@pytest.mark.parametrize("file_format", ["obj", "ply", "glb"])
@settings(deadline=None, max_examples=20)
@given(mesh=tetrahedra(-9, 9))
def test_vertices_and_triangles_come_back_to_the_last_bit(
    file_format: str, mesh: Mesh, tmp_path_factory: pytest.TempPathFactory
) -> None:
    trimesh = pytest.importorskip("trimesh")
    path = tmp_path_factory.mktemp("files") / f"a.{file_format}"
    write_mesh_file(path, mesh)

    found = trimesh.load_mesh(path, process=False, maintain_order=True)
    vertices, faces = mesh.as_xyz()
    corners = np.asarray(found.vertices, np.float32)[found.faces]
    assert corners.tolist() == vertices[faces].tolist()


def test_files_of_several_parts_are_the_same_as_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = {}, {}
    for file_format in FORMATS:
        write_mesh_file(tmp_path / f"a.{file_format}", BALL)
        whole[file_format] = (tmp_path / f"a.{file_format}").read_bytes()
    monkeypatch.setattr(triangles, "ROWS_AT_ONCE", 7)
    for file_format in FORMATS:
        write_mesh_file(tmp_path / f"a.{file_format}", BALL)
        parts[file_format] = (tmp_path / f"a.{file_format}").read_bytes()

    assert parts == whole


def test_files_name_their_unit_and_object(tmp_path: Path) -> None:
    for file_format in FORMATS:
        path = tmp_path / f"axon.{file_format}"
        write_mesh_file(path, BALL, unit="um")

        assert b"um" in path.read_bytes()[:600]
        assert b"axon" in path.read_bytes()[:1200]


def test_an_stl_file_has_outward_normals_and_is_not_taken_for_text(tmp_path: Path) -> None:
    write_mesh_file(tmp_path / "solid.stl", BALL, name="solid")
    data = (tmp_path / "solid.stl").read_bytes()

    assert not data.startswith(b"solid")
    assert struct.unpack_from("<I", data, 80) == (len(BALL.faces),)
    assert len(data) == 84 + 50 * len(BALL.faces)
    values = np.frombuffer(data[84:134], "<f4", count=12).reshape(4, 3)
    outward = values[1:].mean(axis=0) - [1000, 2000, 3000]
    assert values[0] @ outward / np.linalg.norm(outward) > 0.9


def test_a_glb_file_is_as_long_as_it_says_and_aligned(tmp_path: Path) -> None:
    write_mesh_file(tmp_path / "a.glb", BALL)
    data = (tmp_path / "a.glb").read_bytes()

    assert struct.unpack_from("<4sII", data) == (b"glTF", 2, len(data))
    length, kind = struct.unpack_from("<I4s", data, 12)
    assert (length % 4, kind) == (0, b"JSON")
    described = json.loads(data[20 : 20 + length])
    position = described["accessors"][0]
    assert position["min"] == pytest.approx([500, 1500, 2500])
    assert struct.unpack_from("<I4s", data, 20 + length) == (
        described["buffers"][0]["byteLength"],
        b"BIN\0",
    )


@pytest.mark.parametrize(
    ("path", "options", "words"),
    [
        ("a.stp", {}, "did you mean stl"),
        ("a", {}, "not a format"),
        ("a.obj", {"unit": "inch"}, "not a unit"),
        ("a.obj", {"name": "a\nv 0 0 0"}, "object's name"),
        ("a.obj", {"name": "ä"}, "object's name"),
        ("a.obj", {"name": ""}, "object's name"),
        ("a.obj", {"name": "x" * 100}, "object's name"),
    ],
)
def test_what_a_file_cannot_be_is_refused_and_the_old_one_stays(
    path: str, options: dict, words: str, tmp_path: Path
) -> None:
    (tmp_path / path).write_text("old")

    with pytest.raises(OptionError, match=words):
        write_mesh_file(tmp_path / path, BALL, **options)
    assert (tmp_path / path).read_text() == "old"


def test_meshes_without_triangles_or_places_are_refused(tmp_path: Path) -> None:
    with pytest.raises(GeometryError, match="no triangle"):
        write_mesh_file(tmp_path / "a.obj", Mesh.empty())
    with pytest.raises(GeometryError, match="no places"):
        write_mesh_file(tmp_path / "a.obj", soup(np.full((1, 3, 3), np.inf)))
    with pytest.raises(StorageError, match="cannot write"):
        write_mesh_file(tmp_path / "nowhere" / "a.obj", BALL)
    with pytest.raises(OptionError, match="not a format"):
        mesh_file_name(7, "xyz")
