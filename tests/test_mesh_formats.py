"""Multi-resolution meshes: cut without loss, ordered and encoded as Neuroglancer wants them."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from floodem.errors import DependencyError, GeometryError
from floodem.shapes.meshes import Mesh
from floodem.shapes.precomputed import EncodedMesh, MeshFolder, MeshInfo, encode_multiresolution
from floodem.shapes.precomputed.cutting import Lattice, cut_triangles
from floodem.shapes.precomputed.folders import write_info, write_mesh
from floodem.shapes.precomputed.manifest import Manifest, ManifestLevel, z_curve_cells, z_curve_keys
from mesh_format_cases import (
    open_edges,
    perimeter_nm,
    points,
    soup,
    sphere,
    spheres,
    tetrahedra,
)
from reference import cutting as twin

HERE = Path(__file__).parent
LATTICES = [Lattice(bits=bits, has_halves=halves) for bits in (4, 10) for halves in (False, True)]


def triangles_on_lattice(highest: int) -> st.SearchStrategy[np.ndarray]:
    return arrays.arrays(
        np.float64,
        st.tuples(st.integers(0, 8), st.just(3), st.just(3)),
        elements=st.integers(0, highest).map(float),
    )


def areas(corners: np.ndarray) -> np.ndarray:
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    return np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2


def bounds(slabs: np.ndarray, lattice: Lattice) -> tuple[np.ndarray, np.ndarray]:
    low = np.stack([lattice.planes(slabs[:, axis]) for axis in range(3)], axis=1)
    high = np.stack([lattice.planes(slabs[:, axis] + 1) for axis in range(3)], axis=1)
    return low, high


def back(encoded: EncodedMesh, folder: Path, *, bits: int = 16) -> MeshFolder:
    folder.mkdir(exist_ok=True)
    write_info(folder, MeshInfo(quantization_bits=bits))
    write_mesh(folder, 1, encoded)
    return MeshFolder(folder)


def fragments_of(encoded: EncodedMesh) -> list[list[tuple[tuple[int, ...], bytes]]]:
    start, found = 0, []
    for level in Manifest.from_bytes(encoded.manifest, what="it").levels:
        found.append([])
        for cell, size in zip(level.cells_xyz.tolist(), level.sizes.tolist(), strict=True):
            found[-1].append((tuple(cell), encoded.fragments[start : start + size]))
            start += size
    assert start == len(encoded.fragments)
    return found


@pytest.mark.parametrize("lattice", LATTICES, ids=str)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_each_piece_lies_in_its_slabs(lattice: Lattice, data: st.DataObject) -> None:
    corners = data.draw(triangles_on_lattice(5 * lattice.steps))

    pieces, slabs = cut_triangles(corners, lattice=lattice)

    low, high = bounds(slabs, lattice)
    assert (pieces == np.rint(pieces)).all()
    assert ((pieces >= low[:, None]) & (pieces <= high[:, None])).all()


@pytest.mark.parametrize("halves", [False, True])
@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_cutting_gives_each_cell_the_area_that_clipping_gives_it(
    halves: bool, data: st.DataObject
) -> None:
    lattice = Lattice(bits=16, has_halves=halves)
    corners = data.draw(triangles_on_lattice(2 * lattice.steps))

    pieces, slabs = cut_triangles(corners, lattice=lattice)

    # Where an edge is cut is rounded to a step: for each of some dozen edges an area of less
    # than its length.
    slack = 24 * np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).sum() + 1
    assert abs(areas(pieces).sum() - areas(corners).sum()) <= slack
    found: dict[tuple, float] = {}
    for slab, area in zip(map(tuple, slabs.tolist()), areas(pieces), strict=True):
        found[slab] = found.get(slab, 0.0) + area
    for slab in itertools.product(range(4 if halves else 2), repeat=3):
        low, high = bounds(np.array([slab]), lattice)
        in_plane = [
            ((corner == low).all(axis=0) | (corner == high).all(axis=0)).any() for corner in corners
        ]
        expected = sum(
            twin.area_in_box(corner, low[0], high[0])
            for corner, is_in_plane in zip(corners, in_plane, strict=True)
            if not is_in_plane
        )
        if not any(in_plane):
            assert abs(found.get(slab, 0.0) - expected) <= slack


@pytest.mark.parametrize(("plane", "slab"), [(0, 0), (15, 0), (30, 1)])
def test_a_triangle_in_a_plane_belongs_to_the_cell_below(plane: int, slab: int) -> None:
    corners = np.array([[[1, 1, plane], [5, 1, plane], [1, 5, plane]]], np.float64)

    pieces, slabs = cut_triangles(corners, lattice=Lattice(bits=4, has_halves=False))

    assert pieces.tolist() == corners.tolist()
    assert slabs.tolist() == [[0, 0, slab]]


@pytest.mark.parametrize("error", [0, -1e-9, 1e-9, -0.6, 0.4])
def test_what_lies_in_the_middle_of_a_cell_is_put_on_its_plane(error: float) -> None:
    lattice = Lattice(bits=16, has_halves=True)
    middles = np.array([0.5, 1.5, 2.5]) * lattice.steps

    placed = lattice.rounded(middles + error)

    assert placed.tolist() == lattice.planes(np.array([1, 3, 5])).tolist()


@settings(deadline=None, max_examples=30)
@given(
    mesh=tetrahedra(0, 100),
    edges=st.tuples(*[st.sampled_from([20.0, 22.3, 40.0, 300.0])] * 3),
    bits=st.sampled_from([10, 16]),
)
def test_a_closed_mesh_stays_closed_and_keeps_its_area_and_volume(
    mesh: Mesh,
    edges: tuple[float, float, float],
    bits: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    try:
        encoded = encode_multiresolution(
            [mesh, mesh],
            chunk_edges_nm=edges,
            grid_origin_zyx_nm=(0, -3, 0),
            quantization_bits=bits,
        )
    except GeometryError as error:
        assert "smaller than the steps" in str(error)  # noqa: PT017 - flat tetrahedra
        return
    folder = back(encoded, tmp_path_factory.mktemp("mesh"), bits=bits)
    for level in range(len(folder.manifest(1).levels)):
        found = folder.mesh(1, level=level)
        step = max(edges) * 2**level / (2**bits - 1)
        slack = 30 * step * (perimeter_nm(mesh) + step)
        assert open_edges(found) == 0
        assert found.area_nm2 == pytest.approx(mesh.area_nm2, abs=slack)
        assert found.volume_nm3 == pytest.approx(mesh.volume_nm3, abs=100 * slack)


def test_a_sphere_comes_back_watertight_outward_and_as_large(tmp_path: Path) -> None:
    trimesh = pytest.importorskip("trimesh")
    levels = spheres(500, centre_zyx_nm=(2000, 700, 900))

    folder = back(encode_multiresolution(levels, chunk_edges_nm=(130, 100, 170)), tmp_path)

    for level, mesh in enumerate(levels):
        found = folder.mesh(1, level=level)
        solid = trimesh.Trimesh(*found.as_xyz(), process=False)
        assert solid.is_watertight
        assert solid.is_winding_consistent
        assert solid.volume == pytest.approx(mesh.volume_nm3, rel=1e-4)
        assert found.area_nm2 == pytest.approx(mesh.area_nm2, rel=1e-4)
        assert np.abs(np.array(found.box_nm) - mesh.box_nm).max() < 0.1


def test_every_vertex_stays_where_it_was_within_half_a_step(tmp_path: Path) -> None:
    from scipy.spatial import KDTree

    mesh = sphere(500, centre_zyx_nm=(2000, 700, 900))

    folder = back(encode_multiresolution([mesh], chunk_edges_nm=(100, 100, 100)), tmp_path)

    found = folder.mesh(1)
    apart, _ = KDTree(found.vertices_zyx_nm).query(mesh.vertices_zyx_nm)
    assert apart.max() <= 100 / 65535 / 2 * 3**0.5 + 5e-4  # a step, and 32-bit numbers


@settings(deadline=None)
@given(cells=st.lists(st.tuples(*[st.integers(0, 2**21 - 1)] * 3), max_size=12, unique=True))
def test_keys_follow_the_z_curve(cells: list[tuple[int, int, int]]) -> None:
    keys = z_curve_keys(np.array(cells, np.int64).reshape(-1, 3))

    assert z_curve_cells(keys).tolist() == [list(cell) for cell in cells]
    for (one, key), (other, other_key) in itertools.combinations(
        zip(cells, keys.tolist(), strict=True), 2
    ):
        assert (key < other_key) == twin.comes_before(one, other)


@settings(deadline=None, max_examples=20)
@given(meshes=st.lists(tetrahedra(0, 100), min_size=3, max_size=3))
def test_cells_are_in_order_and_every_cell_can_be_reached(meshes: list[Mesh]) -> None:
    try:
        encoded = encode_multiresolution(meshes, chunk_edges_nm=(19, 19, 19))
    except GeometryError:
        return
    levels = fragments_of(encoded)
    for cells in levels:
        in_order = [cell for cell, _ in cells]
        for one, other in itertools.pairwise(in_order):
            assert twin.comes_before(one, other)
    for finer, coarser in itertools.pairwise(levels):
        assert {(x >> 1, y >> 1, z >> 1) for (x, y, z), _ in finer} <= {cell for cell, _ in coarser}


def test_octants_that_the_finer_level_leaves_empty_have_an_empty_fragment() -> None:
    small = sphere(30, centre_zyx_nm=(50, 50, 50))
    large = sphere(45, centre_zyx_nm=(100, 50, 50))

    fine, coarse = fragments_of(
        encode_multiresolution(
            [small, large], chunk_edges_nm=(100, 100, 100), grid_origin_zyx_nm=(0, 0, 0)
        )
    )

    assert [(cell, len(data) > 0) for cell, data in fine] == [((0, 0, 0), True), ((0, 0, 1), False)]
    assert [(cell, len(data) > 0) for cell, data in coarse] == [((0, 0, 0), True)]


def test_parents_that_the_coarser_level_leaves_empty_have_an_empty_fragment() -> None:
    long = Mesh.concatenate(
        [sphere(30, centre_zyx_nm=(z, 50, 50), splits=1) for z in (50, 250, 450)]
    )
    short = sphere(30, centre_zyx_nm=(50, 50, 50), splits=1)

    _, coarse = fragments_of(
        encode_multiresolution(
            [long, short], chunk_edges_nm=(100, 100, 100), grid_origin_zyx_nm=(0, 0, 0)
        )
    )

    assert [(cell, len(data) > 0) for cell, data in coarse] == [
        ((0, 0, 0), True),
        ((0, 0, 1), False),
        ((0, 0, 2), False),
    ]


def test_the_same_mesh_makes_the_same_bytes() -> None:
    levels = spheres(300, centre_zyx_nm=(500, 500, 500))

    assert encode_multiresolution(levels, chunk_edges_nm=(90, 90, 90)) == encode_multiresolution(
        levels, chunk_edges_nm=(90, 90, 90)
    )


def test_scales_are_the_edges_of_triangles_and_do_not_fall() -> None:
    fine, coarse = sphere(300, centre_zyx_nm=(500, 500, 500)), None
    coarse = sphere(300, centre_zyx_nm=(500, 500, 500), splits=2)
    scales = [
        level.scale_nm
        for level in Manifest.from_bytes(
            encode_multiresolution([fine, coarse, fine], chunk_edges_nm=(90, 90, 90)).manifest,
            what="it",
        ).levels
    ]

    mean_edge = np.sqrt(fine.area_nm2 / len(fine.faces) * 4 / 3**0.5)
    assert scales[0] == pytest.approx(mean_edge, rel=1e-4)
    assert scales[1] == pytest.approx(2 * mean_edge, rel=0.1)
    assert scales[2] == scales[1]


def test_given_scales_are_written() -> None:
    levels = spheres(300, centre_zyx_nm=(500, 500, 500))
    encoded = encode_multiresolution(
        levels, chunk_edges_nm=(90, 90, 90), scales_nm=[10.0, 20.0, 40.0]
    )

    manifest = Manifest.from_bytes(encoded.manifest, what="it")
    assert [level.scale_nm for level in manifest.levels] == [10.0, 20.0, 40.0]


def test_a_level_without_triangles_ends_the_levels() -> None:
    mesh = sphere(300, centre_zyx_nm=(500, 500, 500))
    encoded = encode_multiresolution([mesh, Mesh.empty(), mesh], chunk_edges_nm=(90, 90, 90))

    assert len(Manifest.from_bytes(encoded.manifest, what="it").levels) == 1


@pytest.mark.parametrize("origin", [(0.1, 12345.678, -7.3), (16777217.0, 0.0, 0.0), None])
def test_the_origin_in_the_file_is_never_above_the_one_asked_for(
    origin: tuple[float, float, float] | None,
) -> None:
    mesh = sphere(30, centre_zyx_nm=(16777300, 12400, 100))
    encoded = encode_multiresolution([mesh], chunk_edges_nm=(90, 90, 90), grid_origin_zyx_nm=origin)

    manifest = Manifest.from_bytes(encoded.manifest, what="it")
    written = manifest.grid_origin_xyz_nm[::-1]
    asked = mesh.vertices_zyx_nm.min(axis=0).tolist() if origin is None else origin
    assert all(
        0 <= one - there <= 1e-6 * abs(one) for one, there in zip(asked, written, strict=True)
    )


@pytest.mark.parametrize(
    ("levels", "options", "words"),
    [
        ([], {}, "0 levels"),
        ([Mesh.empty()], {}, "without triangles"),
        ([sphere(1, centre_zyx_nm=(0, 0, 0))], {"grid_origin_zyx_nm": (0, 0, 0)}, "below the"),
        ([sphere(1, centre_zyx_nm=(0, 0, 0))], {"chunk_edges_nm": (1, 0, 1)}, "no size"),
        ([sphere(1, centre_zyx_nm=(0, 0, 0))], {"chunk_edges_nm": (1, 1e-9, 1)}, "larger cells"),
        ([sphere(1e-6, centre_zyx_nm=(0, 0, 0))], {}, "smaller than the steps"),
        ([soup(np.full((1, 3, 3), np.nan))], {}, "no place"),
    ],
)
def test_meshes_that_cannot_be_encoded_are_refused(
    levels: list[Mesh], options: dict, words: str
) -> None:
    with pytest.raises(GeometryError, match=words):
        encode_multiresolution(levels, **({"chunk_edges_nm": (90, 90, 90)} | options))


def test_without_draco_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "DracoPy", None)

    with pytest.raises(DependencyError, match=r"floodem\[shapes\]"):
        encode_multiresolution([sphere(1, centre_zyx_nm=(0, 0, 0))], chunk_edges_nm=(1, 1, 1))


def decoder_of_the_client() -> Path:
    neuroglancer = pytest.importorskip("neuroglancer")
    client = Path(neuroglancer.__file__).parent / "static" / "client"
    for path in sorted(client.glob("*.wasm")):
        if b"neuroglancer_draco_decode" in path.read_bytes():
            return path
    pytest.skip(f"no Draco decoder among the files of the client in {client}")


@pytest.mark.parametrize("bits", [10, 16])
def test_neuroglancer_decodes_every_fragment_and_finds_each_triangle_in_its_octant(
    bits: int, tmp_path: Path
) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed: the client's decoder cannot run")
    decoder = decoder_of_the_client()
    rng = np.random.default_rng(4)
    tangle = soup(np.clip(rng.uniform(0, 90, (300, 1, 3)) + rng.normal(0, 6, (300, 3, 3)), 0, 99))
    meshes = [*spheres(40, centre_zyx_nm=(50, 50, 50))]
    levels = [Mesh.concatenate([tangle, mesh]) for mesh in meshes]
    encoded = encode_multiresolution(
        levels, chunk_edges_nm=(25, 20, 30), grid_origin_zyx_nm=(0, 0, 0), quantization_bits=bits
    )
    files = []
    for level, fragments in enumerate(fragments_of(encoded)):
        for number, (_, data) in enumerate(fragments):
            if data:
                path = tmp_path / f"{level}-{number}"
                path.write_bytes(data)
                files.append(f"{path}:{int(level > 0)}")
    script = HERE / "draco_in_neuroglancer.mjs"
    command = [node, str(script), str(decoder), str(bits), *files]
    answers = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)

    assert [answer["code"] for answer in answers] == [0] * len(files)
    middle = 2 ** (bits - 1)
    for file, answer in zip(files, answers, strict=True):
        corners = np.array(answer["positions"]).reshape(-1, 3)[answer["indices"]].reshape(-1, 3, 3)
        assert corners.max() < 2**bits
        if not file.endswith(":1"):
            continue
        for octant in range(8):
            start, stop = answer["offsets"][octant] // 3, answer["offsets"][octant + 1] // 3
            for axis in range(3):
                inside = corners[start:stop, :, axis]
                is_upper = octant >> axis & 1
                assert (inside >= middle if is_upper else inside <= middle).all()


LEVELS = st.builds(
    ManifestLevel,
    scale_nm=st.floats(0, 1e6, width=32),
    offset_xyz_nm=points(-100, 100),
    cells_xyz=st.just(np.array([[0, 0, 0], [1, 0, 0]], np.uint32)),
    sizes=st.just(np.array([7, 0], np.uint32)),
)
MANIFESTS = st.builds(
    Manifest,
    cell_edges_xyz_nm=points(1, 1000),
    grid_origin_xyz_nm=points(-1000, 1000),
    levels=st.lists(LEVELS, min_size=1, max_size=4).map(tuple),
)


@settings(deadline=None)
@given(manifest=MANIFESTS)
def test_a_manifest_survives_its_bytes(manifest: Manifest) -> None:
    data = manifest.to_bytes()
    again = Manifest.from_bytes(data, what="it")

    assert again.to_bytes() == data
    assert again.cell_edges_xyz_nm == manifest.cell_edges_xyz_nm
    assert again.levels[-1].cells_xyz.tolist() == [[0, 0, 0], [1, 0, 0]]
    assert again.fragment_bytes == 7 * len(manifest.levels)
