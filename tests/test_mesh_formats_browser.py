"""What Chromium draws of multi-resolution meshes: the whole object at each level of detail."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

import floodem
import floodem.viewer
from floodem.geometry import VoxelSize
from floodem.shapes.meshes import Mesh
from floodem.shapes.precomputed import (
    MeshInfo,
    ShardingSpec,
    encode_multiresolution,
    write_info,
    write_mesh,
    writing_shard,
)
from floodem.shapes.precomputed.manifest import Manifest
from servers.base import Answer, Asked
from servers.files import FileServer

OBJECT = 2**63 + 5
LOBES_ZYX_NM = ((480, 420, 380), (480, 560, 900))
RADIUS_NM = 260
EXTENT_NM = 1280
STEPS_NM = (10, 20, 40)
CELL_NM = 160
WINDOW = (700, 600)


class MeshServer(FileServer):
    """Serves files to pages of other origins and knows which bytes were asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.ranges_asked: list[tuple[str, int]] = []

    def answer(self, asked: Asked) -> Answer:
        answer = super().answer(asked)
        answer.headers["Access-Control-Allow-Origin"] = "*"
        answer.headers["Access-Control-Expose-Headers"] = "Content-Range"
        wanted = asked.headers.get("range", "")
        if wanted.startswith("bytes="):
            start = int(wanted.removeprefix("bytes=").split("-")[0])
            self.ranges_asked.append((asked.path.rsplit("/", 1)[-1], start))
        return answer


def strength(step_nm: float) -> np.ndarray:
    """A field that is above 1 inside two lobes that have grown together."""
    axis = np.arange(0, EXTENT_NM + step_nm, step_nm)
    total = 0.0
    for centre in LOBES_ZYX_NM:
        z, y, x = (axis - place for place in centre)
        squares = z[:, None, None] ** 2 + y[:, None] ** 2 + x**2
        total = total + RADIUS_NM**2 / np.maximum(squares, 1)
    return total


def lobes(step_nm: float) -> Mesh:
    skimage = pytest.importorskip("skimage.measure")
    vertices, faces, *_ = skimage.marching_cubes(strength(step_nm), 1.0)
    mesh = Mesh((vertices * step_nm).astype(np.float32), faces.astype(np.uint32))
    return mesh if mesh.volume_nm3 > 0 else Mesh(mesh.vertices_zyx_nm, mesh.faces[:, ::-1].copy())


@pytest.fixture(scope="module")
def encoded():
    return encode_multiresolution(
        [lobes(step) for step in STEPS_NM],
        chunk_edges_nm=(CELL_NM, CELL_NM, CELL_NM),
        grid_origin_zyx_nm=(0, 0, 0),
    )


def level_at(encoded, start: int) -> int:
    """The level of the fragment that begins so many bytes behind the first."""
    levels = Manifest.from_bytes(encoded.manifest, what="it").levels
    ends = itertools.accumulate(level.total_bytes for level in levels)
    return next(number for number, end in enumerate(ends) if start < end)


def silhouette(shape: tuple[int, int], nm_per_pixel: float) -> np.ndarray:
    """Where the object lies behind the pixels of a panel that looks along z at its middle."""
    inside = (strength(10) > 1).any(axis=0)
    rows, columns = (
        ((np.arange(size) - size / 2 + 0.5) * nm_per_pixel + EXTENT_NM / 2) / 10 for size in shape
    )
    places = np.meshgrid(rows, columns, indexing="ij")
    return ndimage.map_coordinates(inside.astype(np.float32), places, order=1) > 0.5


@pytest.fixture(params=["unsharded", "sharded"])
def folder(request, encoded, tmp_path: Path) -> Path:
    if request.param == "unsharded":
        write_info(tmp_path, MeshInfo())
        write_mesh(tmp_path, OBJECT, encoded)
        return tmp_path
    spec = ShardingSpec(minishard_bits=0, shard_bits=0)
    write_info(tmp_path, MeshInfo(sharding=spec))
    with writing_shard(tmp_path, 0, spec=spec) as writer:
        writer.add(OBJECT, encoded.manifest, fragments=encoded.fragments)
    return tmp_path


@contextlib.contextmanager
def shown(folder: Path, **changes) -> Iterator[tuple[floodem.viewer.Viewer, MeshServer]]:
    """A viewer of nothing but the mesh, looking along z at the middle of its surroundings."""
    neuroglancer = pytest.importorskip("neuroglancer")
    labels = np.ones((2, 2, 2), np.uint32)
    size = VoxelSize(10, 10, 10)
    with (
        MeshServer(folder) as server,
        floodem.view(segmentation=labels, voxel_size=size, view_size_wh=WINDOW) as viewer,
    ):
        with viewer.client.txn() as state:
            state.show_axis_lines = state.show_default_annotations = state.show_slices = False
            state.layers.clear()
            state.layers["mesh"] = neuroglancer.SegmentationLayer(
                source=f"precomputed://{server.address}",
                segments=[OBJECT],
                mesh_render_scale=changes.pop("quality"),
            )
            state.layout = "3d"
            state.layout.orthographic_projection = changes.pop("is_flat", True)
            state.projection_orientation = [0, 0, 0, 1]
            state.position = [EXTENT_NM / 20] * 3
            state.projection_scale = EXTENT_NM / 10
            for name, value in changes.items():
                setattr(state, name, value)
        yield viewer, server


def levels_asked(server: MeshServer, encoded) -> set[int]:
    """Levels whose fragments were fetched; in a shard they stand behind an index of 16 bytes."""
    starts = [start for name, start in server.ranges_asked if name == str(OBJECT)]
    starts += [start - 16 for name, start in server.ranges_asked if name == "0.shard"]
    return {level_at(encoded, start) for start in starts if 0 <= start < len(encoded.fragments)}


@pytest.mark.slow
@pytest.mark.parametrize(("level", "quality"), [(0, 1), (1, 28), (2, 80)])
def test_each_level_is_drawn_whole(
    level: int, quality: int, folder: Path, encoded, chromium, request
) -> None:
    with shown(folder, quality=quality) as (viewer, server):
        page = chromium.show(viewer, size_wh=WINDOW)
        (panel,) = page.panels().values()
        page.save(f"multiresolution-{request.node.callspec.params['folder']}-level-{level}")

        assert page.complaints() == []
        # Coarser levels are fetched first.
        assert levels_asked(server, encoded) == set(range(level, len(STEPS_NM)))
        nm_per_pixel = EXTENT_NM / (panel.pixels.shape[0] + 4)  # the frame is cut off
        expected = silhouette(panel.pixels.shape[:2], nm_per_pixel)
        found = panel.coloured()
        assert not (ndimage.binary_erosion(expected, iterations=6) & ~found).any()
        scale_bar_and_axes = 200
        outside = found & ~ndimage.binary_dilation(expected, iterations=6)
        assert outside.sum() < scale_bar_and_axes


@pytest.mark.slow
def test_levels_are_drawn_side_by_side(folder: Path, encoded, chromium, request) -> None:
    turned = {"projection_orientation": [0, 0.54, 0, 0.84], "projection_scale": 60}
    with shown(folder, quality=45, is_flat=False, **turned) as (viewer, server):
        page = chromium.show(viewer, size_wh=WINDOW)
        (panel,) = page.panels().values()
        page.save(f"multiresolution-{request.node.callspec.params['folder']}-near-and-far")

        assert page.complaints() == []
        assert panel.share_coloured() > 0.3
        assert len(levels_asked(server, encoded)) > 1
