"""Meshes made block by block: closed wherever blocks meet, and found again in their files."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from floodem.errors import FloodemError, ResourceError, VolumeFormatError
from floodem.geometry import Box, VoxelSize, Zyx
from floodem.shapes.meshes import Mesh, object_meshes
from floodem.shapes.meshes.blocks import BlockWork, block_edge, fragment, mesh_block
from floodem.shapes.meshes.gathering import OBJECT, Blocks, GatherWork, joined
from floodem.shapes.meshes.levels import first_level, grid_for, levels_of_detail
from floodem.shapes.meshes.packs import Place, read_table, writing_pack
from floodem.shapes.source import LabelSource
from floodem.volumes import create_volume
from mesh_cases import ANISOTROPIC, ISOTROPIC, ball, edge_counts, is_watertight, tissue

TINY = 1e-3
"""An error in nm that only lets flat faces lose vertices."""


def stored(
    labels: np.ndarray, path: Path, *, voxel_size: VoxelSize, offset: Zyx = (0, 0, 0)
) -> str:
    with create_volume(
        path, shape=labels.shape, dtype=labels.dtype, voxel_size=voxel_size, offset=offset
    ) as new:
        new.write(new.box, labels)
    return str(path)


def joined_meshes(
    uri: str, region: Box, *, edge: int, voxel_size: VoxelSize, error: float, folder: Path
) -> dict[int, Mesh]:
    """All objects, after blocks and welding, before anything else is done to them."""
    folder.mkdir(exist_ok=True)
    blocks = Blocks(region=region, edge=edge, folder=folder)
    tables = []
    for number, core in enumerate(blocks.cores()):
        work = BlockWork(
            source=LabelSource(uri=uri),
            region=region,
            core=core,
            edges_nm=voxel_size.zyx_nm,
            ids=None,
            max_error_nm=error,
            path=blocks.path(number),
        )
        mesh_block(work)
        tables.append(np.insert(read_table(work.path, columns=3), 1, number, axis=1))
    pieces = np.concatenate(tables)
    pieces = pieces[np.argsort(pieces[:, OBJECT], kind="stable")]
    gathering = GatherWork(
        blocks=blocks,
        pieces=pieces,
        edges_nm=voxel_size.zyx_nm,
        max_error_nm=error,
        path=folder,
        file_format=None,
    )
    return {
        label: joined(pieces[pieces[:, OBJECT] == label], gathering)
        for label in np.unique(pieces[:, OBJECT]).tolist()
    }


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    shape=st.tuples(*[st.integers(9, 26)] * 3),
    edge=st.integers(3, 20),
    seed=st.integers(0, 2**16),
    offset=st.tuples(*[st.integers(0, 1000)] * 3),
)
def test_objects_in_blocks_of_any_size_are_those_of_the_whole(
    shape: Zyx, edge: int, seed: int, offset: Zyx, tmp_path: Path
) -> None:
    labels = tissue(seed, shape)
    uri = stored(
        labels,
        tmp_path / f"{seed}-{edge}-{shape}-{offset}.zarr",
        voxel_size=ANISOTROPIC,
        offset=offset,
    )
    region = Box.from_shape(shape, start=offset)
    found = joined_meshes(
        uri, region, edge=edge, voxel_size=ANISOTROPIC, error=TINY, folder=tmp_path / "work"
    )
    whole = dict(object_meshes(labels, voxel_size=ANISOTROPIC, start=offset))
    assert sorted(found) == sorted(whole)
    for label, mesh in found.items():
        assert (edge_counts(mesh) % 2 == 0).all()
        assert mesh.volume_nm3 == pytest.approx(whole[label].volume_nm3, rel=1e-3)
        np.testing.assert_allclose(mesh.box_nm, whole[label].box_nm, atol=0.1)


@settings(
    deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(edge=st.integers(8, 30), seed=st.integers(0, 2**16), error=st.floats(2, 30))
def test_simplified_objects_are_watertight_whatever_the_blocks(
    edge: int, seed: int, error: float, tmp_path: Path
) -> None:
    labels = tissue(seed, (30, 28, 26))
    uri = stored(labels, tmp_path / f"{seed}-{edge}-{error}.zarr", voxel_size=ISOTROPIC)
    found = joined_meshes(
        uri,
        Box((0, 0, 0), labels.shape),
        edge=edge,
        voxel_size=ISOTROPIC,
        error=error / 2,
        folder=tmp_path / "work",
    )
    for mesh in found.values():
        grid = grid_for(mesh, margin_nm=error)
        first = first_level(mesh, max_error_nm=error / 2, grid=grid)
        assert first.volume_nm3 == pytest.approx(mesh.volume_nm3, rel=0.01)
        for level in levels_of_detail(first, max_error_nm=error, grid=grid):
            assert is_watertight(level)


@pytest.mark.parametrize("voxel_size", [ISOTROPIC, ANISOTROPIC], ids=str)
def test_a_ball_over_many_blocks_keeps_its_volume(voxel_size: VoxelSize, tmp_path: Path) -> None:
    labels = ball(200, voxel_size)
    uri = stored(labels, tmp_path / "ball.zarr", voxel_size=voxel_size)
    (mesh,) = joined_meshes(
        uri,
        Box((0, 0, 0), labels.shape),
        edge=11,
        voxel_size=voxel_size,
        error=5,
        folder=tmp_path / "work",
    ).values()
    first = first_level(mesh, max_error_nm=5)
    assert first.volume_nm3 == pytest.approx(4 / 3 * np.pi * 200**3, rel=0.02)
    assert is_watertight(first)


def test_an_object_inside_a_block_has_no_surface_there_but_voxels(tmp_path: Path) -> None:
    labels = np.ones((24, 24, 24), np.uint16)
    uri = stored(labels, tmp_path / "full.zarr", voxel_size=ISOTROPIC)
    region = Box((0, 0, 0), labels.shape)
    blocks = Blocks(region=region, edge=8, folder=tmp_path)
    core = blocks.core(13)
    assert core == Box((8, 8, 8), (16, 16, 16))
    work = BlockWork(
        source=LabelSource(uri=uri),
        region=region,
        core=core,
        edges_nm=(10, 10, 10),
        ids=None,
        max_error_nm=5,
        path=tmp_path / "one.pack",
    )
    assert mesh_block(work) == {"surfaces": 0, "faces": 0}
    assert read_table(work.path, columns=3)[:, [0, 2, 3, 4, 5]].tolist() == [[1, 0, 512, 0, 0]]


@pytest.mark.parametrize("shape", [(20, 17, 9), (8, 8, 8), (1, 30, 2)])
def test_numbers_of_blocks_are_their_places_in_the_list(shape: Zyx) -> None:
    blocks = Blocks(region=Box.from_shape(shape, start=(3, 5, 7)), edge=8, folder=Path())
    cores = blocks.cores()
    assert sum(core.size for core in cores) == np.prod(shape)
    assert [blocks.core(number) for number in range(len(cores))] == cores


@pytest.mark.parametrize(
    ("shape", "edge"),
    [((250, 250, 250), 128), ((100, 384, 512), 128), ((30, 30, 30), 64), ((4000,) * 3, 256)],
)
def test_blocks_are_large_where_there_are_enough_of_them(shape: Zyx, edge: int) -> None:
    assert block_edge(Box.from_shape(shape)) == edge


def test_levels_of_detail_have_a_quarter_of_the_triangles() -> None:
    ((_, mesh),) = object_meshes(ball(500, ISOTROPIC), voxel_size=ISOTROPIC)
    grid = grid_for(mesh, margin_nm=10)
    levels = levels_of_detail(
        first_level(mesh, max_error_nm=5, grid=grid), max_error_nm=10, grid=grid
    )
    assert len(levels) >= 3
    for finer, coarser_ in itertools.pairwise(levels):
        assert len(coarser_.faces) == pytest.approx(len(finer.faces) / 4, rel=0.1)
        assert coarser_.volume_nm3 == pytest.approx(mesh.volume_nm3, rel=0.05)
        assert (coarser_.vertices_zyx_nm >= np.array(grid.origin_nm, np.float32)).all()


def test_an_object_too_large_for_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = ball(100, ISOTROPIC, label=9)
    uri = stored(labels, tmp_path / "ball.zarr", voxel_size=ISOTROPIC)
    monkeypatch.setattr("floodem.memory.available_memory", lambda: 10**5)
    with pytest.raises(ResourceError, match=r"object 9 of [0-9]+ triangles .* coarser level"):
        joined_meshes(
            uri,
            Box((0, 0, 0), labels.shape),
            edge=8,
            voxel_size=ISOTROPIC,
            error=5,
            folder=tmp_path / "work",
        )


def test_pieces_come_back_from_a_pack(tmp_path: Path) -> None:
    path = tmp_path / "some.pack"
    with writing_pack(path, columns=2) as pack:
        pack.add(3, [b"abc", b"de"], 7, 8)
        pack.add(2**64 - 1, [], 2**63, 0)
    table = read_table(path, columns=2)
    assert table[:, [0, 2, 3, 4]].tolist() == [[3, 5, 7, 8], [2**64 - 1, 0, 2**63, 0]]
    start, size = table[0, 1:3].tolist()
    assert bytes(Place(path=path, start=start, size=size).read()) == b"abcde"
    with pytest.raises(VolumeFormatError, match="outside"):
        Place(path=path, start=start, size=10**6).read()
    with pytest.raises(VolumeFormatError, match="something else"):
        read_table(path, columns=1)


@settings(
    deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_damaged_pack_is_refused_or_names_places_inside(
    data: st.DataObject, tmp_path: Path
) -> None:
    path = tmp_path / "damaged.pack"
    with writing_pack(path, columns=1) as pack:
        for label in (5, 6, 900):
            pack.add(label, [bytes(label % 50)], label)
    whole = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at] = data.draw(st.integers(0, 255))
    del whole[data.draw(st.integers(0, len(whole))) :]
    path.write_bytes(whole)
    try:
        table = read_table(path, columns=1)
    except FloodemError:
        return
    for _, start, size, _ in table.tolist():
        assert len(Place(path=path, start=start, size=size).read()) == size


@pytest.mark.parametrize(
    ("data", "vertices", "faces"),
    [
        (bytes(24), 1, 2),
        (bytes(24), 2, 1),
        (bytes(12) + (1).to_bytes(4, "little") * 3, 1, 1),
        (b"", 0, 1),
    ],
)
def test_a_damaged_piece_is_refused(data: bytes, vertices: int, faces: int) -> None:
    with pytest.raises(VolumeFormatError, match="damaged"):
        fragment(memoryview(data), vertices=vertices, faces=faces)
