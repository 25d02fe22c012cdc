"""Folders of meshes and skeletons: infos, links, segment properties, and what others read there."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from floodem.errors import (
    FloodemError,
    LabelError,
    OptionError,
    VolumeFormatError,
    VolumeNotFoundError,
)
from floodem.shapes.meshes import Mesh
from floodem.shapes.precomputed import (
    LegacyMeshInfo,
    MeshFolder,
    MeshInfo,
    ShardingSpec,
    SkeletonInfo,
    VertexAttribute,
    decode_legacy_fragment,
    encode_legacy_fragment,
    encode_multiresolution,
    link_to_segmentation,
    read_info,
    read_segment_properties,
    write_info,
    write_legacy_mesh,
    write_mesh,
    write_segment_properties,
    writing_shard,
)
from floodem.shapes.precomputed.manifest import Manifest
from mesh_format_cases import sphere, spheres, tetrahedra

IDS = [1, 2**53 + 1, 2**63 + 5, 2**64 - 1]
CENTRE = (400, 500, 600)
SPECS = [
    ShardingSpec(minishard_bits=0, shard_bits=0),
    ShardingSpec(minishard_bits=2, shard_bits=3),
    ShardingSpec(
        minishard_bits=1,
        shard_bits=5,
        preshift_bits=1,
        hash="identity",
        minishard_index_encoding="raw",
        data_encoding="raw",
    ),
]


def segmentation(folder: Path) -> Path:
    folder.mkdir(parents=True)
    scale = {
        "key": "10",
        "size": [96, 96, 96],
        "resolution": [10, 10, 10],
        "voxel_offset": [0, 0, 0],
        "chunk_sizes": [[64, 64, 64]],
        "encoding": "raw",
    }
    info = {
        "@type": "neuroglancer_multiscale_volume",
        "type": "segmentation",
        "data_type": "uint64",
        "num_channels": 1,
        "scales": [scale],
        "floodem": {"kept": True},
    }
    (folder / "info").write_text(json.dumps(info))
    return folder


def write_meshes(folder: Path, levels: list[Mesh], *, spec: ShardingSpec | None, bits: int) -> None:
    folder.mkdir()
    encoded = encode_multiresolution(levels, chunk_edges_nm=(150, 200, 90), quantization_bits=bits)
    write_info(folder, MeshInfo(sharding=spec, quantization_bits=bits))
    if spec is None:
        for one in IDS:
            write_mesh(folder, one, encoded)
        return
    for shard, own in spec.group_by_shard(np.array(IDS, np.uint64)).items():
        with writing_shard(folder, shard, spec=spec) as writer:
            for one in own.tolist():
                writer.add(one, encoded.manifest, fragments=encoded.fragments)


@pytest.mark.parametrize("bits", [10, 16])
@pytest.mark.parametrize("spec", [None, *SPECS], ids=["unsharded", "one", "several", "raw"])
def test_cloudvolume_reads_every_level_of_every_id(
    spec: ShardingSpec | None, bits: int, tmp_path: Path
) -> None:
    cloudvolume = pytest.importorskip("cloudvolume")
    folder = segmentation(tmp_path / "seg")
    levels = spheres(250, centre_zyx_nm=CENTRE)
    write_meshes(folder / "mesh", levels, spec=spec, bits=bits)
    link_to_segmentation(folder, mesh="mesh")

    volume = cloudvolume.CloudVolume(f"file://{folder}", progress=False)
    ours = MeshFolder(folder / "mesh")
    assert sorted(ours.ids()) == IDS
    for one in IDS:
        for level, original in enumerate(levels):
            found = volume.mesh.get(one, lod=level)[one]
            theirs = Mesh.from_xyz(
                np.asarray(found.vertices, np.float32), np.asarray(found.faces, np.uint32)
            )
            mine = ours.mesh(one, level=level)
            step = 200 * 2**level / (2**bits - 1)
            assert np.abs(np.array(theirs.box_nm) - np.array(original.box_nm)).max() <= step
            assert {tuple(np.rint(v * 8)) for v in theirs.vertices_zyx_nm.tolist()} == {
                tuple(np.rint(v * 8)) for v in mine.vertices_zyx_nm.tolist()
            }
            assert theirs.area_nm2 == pytest.approx(original.area_nm2, rel=0.01)
            assert theirs.volume_nm3 == pytest.approx(original.volume_nm3, rel=0.01)


@pytest.mark.parametrize("has_radius", [False, True])
def test_cloudvolume_reads_skeletons_by_our_info(has_radius: bool, tmp_path: Path) -> None:
    cloudvolume = pytest.importorskip("cloudvolume")
    folder = segmentation(tmp_path / "seg")
    spec = ShardingSpec(minishard_bits=1, shard_bits=1)
    (folder / "skeletons").mkdir()
    attributes = SkeletonInfo().vertex_attributes if has_radius else ()
    write_info(folder / "skeletons", SkeletonInfo(sharding=spec, vertex_attributes=attributes))
    link_to_segmentation(folder, skeletons="skeletons")
    positions = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], "<f4")
    edges = np.array([[0, 1], [1, 2]], "<u4")
    data = np.array([3, 2], "<u4").tobytes() + positions.tobytes() + edges.tobytes()
    data += np.array([5, 6, 7], "<f4").tobytes() if has_radius else b""
    for shard, own in spec.group_by_shard(np.array(IDS, np.uint64)).items():
        with writing_shard(folder / "skeletons", shard, spec=spec) as writer:
            for one in own.tolist():
                writer.add(one, data)

    volume = cloudvolume.CloudVolume(f"file://{folder}", progress=False)
    for one in IDS:
        found = volume.skeleton.get(one)
        assert found.vertices.tolist() == positions.tolist()
        assert found.edges.tolist() == edges.tolist()
        if has_radius:
            assert found.radius.tolist() == [5, 6, 7]


def turned(corners: np.ndarray) -> list:
    """Triangles in an order of their own, each from its lowest corner on."""
    found = []
    for a, b, c in corners.tolist():
        found.append(min([a, b, c], [b, c, a], [c, a, b]))
    return sorted(found)


@pytest.mark.skipif(sys.platform == "win32", reason="no file name has a colon there")
def test_cloudvolume_reads_meshes_of_the_older_format(tmp_path: Path) -> None:
    cloudvolume = pytest.importorskip("cloudvolume")
    folder = segmentation(tmp_path / "seg")
    (folder / "mesh").mkdir()
    mesh = sphere(250, centre_zyx_nm=CENTRE)
    write_info(folder / "mesh", LegacyMeshInfo())
    write_legacy_mesh(folder / "mesh", 2**64 - 1, mesh)
    link_to_segmentation(folder, mesh="mesh")

    found = cloudvolume.CloudVolume(f"file://{folder}", progress=False).mesh.get(2**64 - 1)
    vertices, faces = mesh.as_xyz()
    # It orders vertices and triangles anew, and may begin a triangle at another corner.
    assert turned(found.vertices[found.faces]) == turned(vertices[faces])


@settings(deadline=None)
@given(mesh=tetrahedra(-50, 50))
def test_a_fragment_of_the_older_format_survives_its_bytes(mesh: Mesh) -> None:
    again = decode_legacy_fragment(encode_legacy_fragment(mesh), what="it")

    assert again.vertices_zyx_nm.tolist() == mesh.vertices_zyx_nm.tolist()
    assert again.faces.tolist() == mesh.faces.tolist()
    assert encode_legacy_fragment(Mesh.empty()) == bytes(4)


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"\1\0\0",
        b"\1\0\0\0",
        b"\xff\xff\xff\xff" + bytes(24),
        b"\1\0\0\0" + bytes(12) + b"\1\0\0\0" * 3,
        b"\1\0\0\0" + np.full(3, np.nan, "<f4").tobytes(),
        bytes(9),
    ],
)
def test_damaged_fragments_of_the_older_format_are_refused(damaged: bytes) -> None:
    with pytest.raises(VolumeFormatError, match="^it cannot be read as a single-resolution mesh"):
        decode_legacy_fragment(damaged, what="it")


@pytest.mark.parametrize(
    "info",
    [
        MeshInfo(),
        MeshInfo(
            quantization_bits=10,
            sharding=SPECS[2],
            transform=tuple(float(value) for value in range(12)),
            lod_scale_multiplier=2.5,
            segment_properties="../properties",
        ),
        LegacyMeshInfo(segment_properties="properties"),
        SkeletonInfo(),
        SkeletonInfo(
            vertex_attributes=(
                VertexAttribute(name="radius"),
                VertexAttribute(name="kind", data_type="uint8", components=2),
            ),
            sharding=SPECS[1],
        ),
    ],
)
def test_an_info_survives_its_file(
    info: MeshInfo | LegacyMeshInfo | SkeletonInfo, tmp_path: Path
) -> None:
    write_info(tmp_path, info)

    assert read_info(tmp_path) == info


MESH_INFO = MeshInfo(sharding=SPECS[0]).to_json()
SKELETON_INFO = SkeletonInfo().to_json()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "JSON"),
        ("[" * 100_000, "JSON"),
        ("[]", "@type is None"),
        (json.dumps({"@type": "neuroglancer_annotations_v1"}), "annotations"),
        (json.dumps(MESH_INFO | {"vertex_quantization_bits": 12}), "12"),
        (json.dumps(MESH_INFO | {"vertex_quantization_bits": [16]}), "info"),
        (json.dumps(MESH_INFO | {"lod_scale_multiplier": 0}), "lod_scale_multiplier"),
        (json.dumps(MESH_INFO | {"lod_scale_multiplier": None}), "info"),
        (json.dumps(MESH_INFO | {"transform": [1, 2, 3]}), "transform"),
        (json.dumps(MESH_INFO | {"transform": 3}), "info"),
        (json.dumps(MESH_INFO | {"sharding": {}}), "sharding"),
        (json.dumps(MESH_INFO | {"segment_properties": 3}), "segment_properties"),
        (json.dumps(SKELETON_INFO | {"vertex_attributes": [3]}), "vertex_attributes"),
        (json.dumps(SKELETON_INFO | {"vertex_attributes": [{"id": "r"}]}), "type"),
        (
            json.dumps(
                SKELETON_INFO | {"vertex_attributes": SKELETON_INFO["vertex_attributes"] * 2}
            ),
            "different names",
        ),
        (
            json.dumps(
                SKELETON_INFO
                | {"vertex_attributes": [{"id": "a", "data_type": "int8", "num_components": 10**9}]}
            ),
            "components",
        ),
    ],
)
def test_damaged_infos_are_refused(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "info").write_text(text)

    with pytest.raises(VolumeFormatError, match=words) as caught:
        read_info(tmp_path)
    assert str(tmp_path / "info") in str(caught.value)


def test_an_info_that_is_not_there_is_missed(tmp_path: Path) -> None:
    with pytest.raises(VolumeNotFoundError, match="info is not there"):
        read_info(tmp_path)
    with pytest.raises(VolumeNotFoundError, match="info is not there"):
        link_to_segmentation(tmp_path, mesh="mesh")


def test_linking_keeps_what_else_the_info_says(tmp_path: Path) -> None:
    folder = segmentation(tmp_path / "seg")
    before = json.loads((folder / "info").read_text())

    link_to_segmentation(folder, mesh="mesh", segment_properties="shapes/properties/")
    link_to_segmentation(folder, skeletons="skeletons")

    assert json.loads((folder / "info").read_text()) == before | {
        "mesh": "mesh",
        "segment_properties": "shapes/properties",
        "skeletons": "skeletons",
    }


@pytest.mark.parametrize("link", ["", "/mesh", "../mesh", "a/../../b", "C:\\mesh", "gs://mesh"])
def test_links_out_of_the_segmentation_are_refused(link: str, tmp_path: Path) -> None:
    folder = segmentation(tmp_path / "seg")
    before = (folder / "info").read_bytes()

    with pytest.raises(OptionError, match="inside the segmentation"):
        link_to_segmentation(folder, mesh=link)
    assert (folder / "info").read_bytes() == before


@pytest.mark.parametrize("info", ["[]", "{}", '{"type": "image", "scales": []}'])
def test_shapes_are_linked_to_segmentations_only(info: str, tmp_path: Path) -> None:
    (tmp_path / "info").write_text(info)

    with pytest.raises(VolumeFormatError, match="precomputed segmentation"):
        link_to_segmentation(tmp_path, mesh="mesh")
    assert (tmp_path / "info").read_text() == info


@pytest.mark.parametrize("number", [-1, 2**64])
def test_ids_beyond_64_bits_are_refused(number: int, tmp_path: Path) -> None:
    encoded = encode_multiresolution([sphere(9, centre_zyx_nm=CENTRE)], chunk_edges_nm=(9, 9, 9))

    with pytest.raises(LabelError, match="64 bits"):
        write_mesh(tmp_path, number, encoded)
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_in_a_folder_of_meshes_is_said(tmp_path: Path) -> None:
    write_meshes(tmp_path / "mesh", [sphere(90, centre_zyx_nm=CENTRE)], spec=None, bits=16)
    folder = MeshFolder(tmp_path / "mesh")

    with pytest.raises(LabelError, match="no mesh of 77"):
        folder.mesh(77)
    with pytest.raises(OptionError, match="no level 1: it has 1"):
        folder.mesh(1, level=1)
    write_info(tmp_path, SkeletonInfo())
    with pytest.raises(VolumeFormatError, match="not multi-resolution meshes"):
        MeshFolder(tmp_path)


def test_a_transform_is_applied_and_triangles_stay_outward(tmp_path: Path) -> None:
    write_meshes(tmp_path / "mesh", [sphere(90, centre_zyx_nm=CENTRE)], spec=None, bits=16)
    plain = MeshFolder(tmp_path / "mesh").mesh(1)
    mirrored = (-2.0, 0.0, 0.0, 5.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    write_info(tmp_path / "mesh", MeshInfo(transform=mirrored))

    found = MeshFolder(tmp_path / "mesh").mesh(1)
    assert found.volume_nm3 == pytest.approx(2 * plain.volume_nm3, rel=1e-5)
    assert found.box_nm is not None
    assert plain.box_nm is not None
    assert found.box_nm[0][2] == pytest.approx(5 - 2 * plain.box_nm[1][2])


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_damaged_meshes_give_one_clear_error_or_a_mesh(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("damaged") / "mesh"
    levels = [sphere(90, centre_zyx_nm=CENTRE, splits=splits) for splits in (1, 0)]
    spec = data.draw(st.sampled_from([None, SPECS[0]]))
    write_meshes(folder, levels, spec=spec, bits=16)
    path = folder / ("0.shard" if spec else data.draw(st.sampled_from(["1", "1.index"])))
    damaged = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    path.write_bytes(damaged[: data.draw(st.sampled_from([len(damaged), len(damaged) - 1]))])

    with contextlib.suppress(FloodemError):
        mesh = MeshFolder(folder).mesh(1, level=data.draw(st.sampled_from([0, 1])))
        assert len(mesh.faces) <= 1000 * len(damaged)


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_damaged_manifests_give_one_clear_error_or_a_manifest(data: st.DataObject) -> None:
    encoded = encode_multiresolution([sphere(9, centre_zyx_nm=CENTRE)], chunk_edges_nm=(9, 9, 9))
    damaged = bytearray(encoded.manifest)
    at = data.draw(st.integers(0, len(damaged) - 1))
    damaged[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(damaged)))

    with contextlib.suppress(VolumeFormatError):
        Manifest.from_bytes(bytes(damaged[:cut]), what="it")
    with contextlib.suppress(VolumeFormatError):
        assert Manifest.from_bytes(bytes(damaged), what="it").to_bytes() == bytes(damaged)


TEXTS = st.text(max_size=8).filter(lambda text: text.isprintable())
TAGS = st.text("abcdefgé-", min_size=1, max_size=5)


@st.composite
def tables(draw: st.DrawFn) -> dict:
    ids = draw(st.lists(st.integers(0, 2**64 - 1), unique=True, max_size=8))
    column = {"min_size": len(ids), "max_size": len(ids)}
    kinds = {
        "uint8": st.integers(0, 255),
        "int32": st.integers(-(2**31), 2**31 - 1),
        "float32": st.floats(width=32, allow_nan=False, allow_infinity=False),
    }
    return {
        "ids": np.array(ids, np.uint64),
        "labels": draw(st.none() | st.lists(TEXTS, **column)),
        "descriptions": draw(st.none() | st.lists(TEXTS, **column)),
        "numbers": {
            kind: np.array(draw(st.lists(values, **column)), kind) for kind, values in kinds.items()
        },
        "tags": {
            tag: np.array(draw(st.lists(st.booleans(), **column)), bool)
            for tag in draw(st.lists(TAGS, unique=True, max_size=3))
        },
    }


@settings(deadline=None)
@given(table=tables())
def test_segment_properties_survive_their_file(
    table: dict, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("properties")
    write_segment_properties(folder, **table)
    found = read_segment_properties(folder)

    assert found.ids.tolist() == table["ids"].tolist()
    assert found.labels == table["labels"]
    assert found.descriptions == table["descriptions"]
    for name, values in table["numbers"].items():
        assert found.numbers[name].dtype == values.dtype
        assert found.numbers[name].tolist() == values.tolist()
    assert {name: list(values) for name, values in found.tags.items()} == {
        name: list(values) for name, values in table["tags"].items()
    }


def test_segment_properties_are_written_as_the_format_has_them(tmp_path: Path) -> None:
    write_segment_properties(
        tmp_path,
        ids=np.array([7, 2**64 - 1], np.uint64),
        labels=["soma", ""],
        numbers={
            "voxels": np.array([5, 2**32 - 1], np.uint64),
            "volume": np.array([0.1, 2.0]),
            "too many": np.array([1, 2**40], np.int64),
        },
        tags={"big": np.array([True, False]), "done": np.array([True, True])},
    )

    assert json.loads((tmp_path / "info").read_text()) == {
        "@type": "neuroglancer_segment_properties",
        "inline": {
            "ids": ["7", "18446744073709551615"],
            "properties": [
                {"id": "label", "type": "label", "values": ["soma", ""]},
                {"id": "tags", "type": "tags", "tags": ["big", "done"], "values": [[0, 1], [1]]},
                {"id": "voxels", "type": "number", "data_type": "uint32", "values": [5, 2**32 - 1]},
                {"id": "volume", "type": "number", "data_type": "float32", "values": [0.1, 2.0]},
                {
                    "id": "too many",
                    "type": "number",
                    "data_type": "float32",
                    "values": [1.0, float(np.float32(2**40).astype(str))],
                },
            ],
        },
    }


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"labels": ["a"]}, "label has 1 values for 2 ids"),
        ({"numbers": {"n": np.array([1.0])}}, "n has 1 values"),
        ({"numbers": {"n": np.array([1.0, np.nan])}}, "not finite"),
        ({"numbers": {"n": np.array([1.0, 1e300])}}, "beyond 3e38"),
        ({"numbers": {"n": np.array(["1", "2"])}}, "not finite numbers"),
        ({"tags": {"a b": np.array([True, True])}}, "spaces"),
        ({"tags": {"#a": np.array([True, True])}}, "begins with #"),
        ({"tags": {"": np.array([True, True])}}, "empty"),
        ({"tags": {"a": np.array([True, True]), "A": np.array([True, True])}}, "differ"),
        ({"ids": np.array([3, 3], np.uint64)}, "twice"),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_columns_that_do_not_fit_are_refused(columns: dict, words: str, tmp_path: Path) -> None:
    with pytest.raises((OptionError, LabelError), match=words):
        write_segment_properties(tmp_path, **({"ids": np.array([1, 2], np.uint64)} | columns))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "inline",
    [
        {"ids": ["x"], "properties": []},
        {"ids": ["18446744073709551616"], "properties": []},
        {"ids": [7], "properties": []},
        {"ids": ["1"], "properties": [{"id": "a", "type": "label", "values": []}]},
        {"ids": ["1"], "properties": [{"id": "a", "type": "label", "values": [3]}]},
        {"ids": ["1"], "properties": [{"id": "a", "type": "colour", "values": [3]}]},
        {"ids": ["1"], "properties": [{"type": "label"}]},
        {
            "ids": ["1"],
            "properties": [{"id": "a", "type": "number", "data_type": "uint8", "values": [300]}],
        },
        {
            "ids": ["1"],
            "properties": [{"id": "a", "type": "number", "data_type": "object", "values": [3]}],
        },
        {
            "ids": ["1"],
            "properties": [{"id": "tags", "type": "tags", "tags": ["a"], "values": [[1]]}],
        },
        {"ids": ["1"], "properties": 3},
        3,
    ],
)
def test_damaged_properties_are_refused(inline: object, tmp_path: Path) -> None:
    (tmp_path / "info").write_text(
        json.dumps({"@type": "neuroglancer_segment_properties", "inline": inline})
    )

    with pytest.raises(VolumeFormatError, match="properties of segments"):
        read_segment_properties(tmp_path)


def test_a_million_segments_have_properties(tmp_path: Path) -> None:
    ids = np.arange(1, 10**6 + 1, dtype=np.uint64)
    write_segment_properties(tmp_path, ids=ids, numbers={"voxels": ids})

    assert (tmp_path / "info").stat().st_size < 30e6
    assert read_segment_properties(tmp_path).numbers["voxels"][-1] == 10**6
