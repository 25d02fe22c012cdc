"""What Chromium draws of servers that the client reads by itself."""

from __future__ import annotations

import numpy as np
import pytest

import floodem
from floodem.geometry import VoxelSize
from floodem.viewer import Look
from floodem.volumes import create_volume
from servers.boss import BossServer
from servers.dvid import UUID, DvidServer
from servers.pages import OpenFiles, with_certificate
from servers.render import RenderServer
from viewer_cases import noise

WINDOW = (700, 600)
SIZE_XYZ = (8, 8, 40)


def image():
    return noise(np.uint8, shape=(24, 128, 128))


def labels():
    made = np.zeros((24, 128, 128), np.uint64)
    made[4:20, 10:60, 10:120] = 3
    made[4:20, 70:90, 10:60] = 500
    made[4:20, 95:120, 30:120] = 2**40
    return made


def check_scale(page):
    """Voxels are 8 nm wide, as the server says: held against the zoom of the page."""
    bar = page.panels()["xy"].bars[0]
    state = page.state()
    scale_m, unit = state["dimensions"]["x"]
    assert (scale_m, unit) == (8e-9, "m")
    assert bar.nm_per_pixel == pytest.approx(state.get("crossSectionScale", 1) * 8, rel=0.05)
    assert page.panels()["xy"].has_bar_of(bar)


def is_noise(panels):
    """Tell whether the noise of the image is drawn, voxel beside voxel, in all slices."""
    for name in ("xy", "xz", "yz"):
        grey = panels[name].centre()[..., 1]
        if grey.std() < 20:
            return False
    return True


def show(chromium, *sources, name, but=()):
    look = Look(position_zyx=(12.5, 64, 64))
    with floodem.view(*sources, view_size_wh=WINDOW, look=look) as viewer:
        page = chromium.show(viewer, layers=len(sources))
        panels = page.panels()
        check_scale(page)
        assert page.complaints(but=but) == []
        page.save(name)
        types = [layer["type"] for layer in page.state()["layers"]]
    return panels, types


def test_image_and_bodies_of_a_dvid_server_are_shown(chromium):
    with DvidServer(image(), labels(), voxel_size_xyz=SIZE_XYZ) as server:
        sources = [f"dvid://{server.address}/{UUID}/{name}" for name in ("gray", "bodies")]
        panels, types = show(chromium, *sources, name="dvid")
        assert server.wrong() == []
    assert types == ["image", "segmentation"]
    assert is_noise(panels)
    assert panels["xy"].colours() >= 3


def test_image_and_annotation_of_a_bossdb_server_are_shown(chromium, tmp_path):
    with BossServer(image(), labels(), voxel_size_xyz=SIZE_XYZ) as server:
        address = with_certificate(server, tmp_path)
        sources = [f"boss://{address}/c/e/{name}" for name in ("em", "cells")]
        panels, types = show(chromium, *sources, name="bossdb")
        assert server.wrong() == []
    assert types == ["image", "segmentation"]
    assert is_noise(panels)
    assert panels["xy"].colours() >= 3


def test_a_stack_of_a_render_server_is_shown(chromium):
    with RenderServer(image(), voxel_size_xyz=SIZE_XYZ) as server:
        source = f"render://{server.address}/o/p/s?tilesize=128"
        panels, types = show(chromium, source, name="render")
        assert server.wrong() == []
    assert types == ["image"]
    assert is_noise(panels)


@pytest.fixture
def files(tmp_path):
    """The same volumes as files, in folders that a plain web server serves."""
    small = (labels() % 1000).astype(np.uint32)  # 64-bit labels are no common thing in NIfTI
    made = {
        "n5://em.n5": image(),
        "nifti://seg.nii": small,
        "zarr://plain.zarr": image(),
        "zarr3://named.ome.zarr": image(),
        "precomputed://seg": labels(),
    }
    for uri, array in made.items():
        format_, name = uri.split("://")
        with create_volume(
            f"{format_}://{tmp_path / name}",
            shape=array.shape,
            dtype=array.dtype,
            voxel_size=VoxelSize(*SIZE_XYZ[::-1]),
        ) as volume:
            volume.write(volume.box, array)
    with OpenFiles(tmp_path) as server:
        yield server


def test_n5_and_nifti_over_http_are_read_by_the_page_itself(chromium, files):
    sources = [f"{files.address}/em.n5", f"segmentation={files.address}/seg.nii"]
    panels, types = show(chromium, *sources, name="http-n5-nifti", but=["/attributes.json"])
    assert types == ["image", "segmentation"]
    assert is_noise(panels)
    assert panels["xy"].colours() >= 3


@pytest.mark.parametrize(
    "sources",
    [
        ["zarr://{}/named.ome.zarr", "precomputed://{}/seg"],
        ["{}/named.ome.zarr|zarr3:", "{}/seg|precomputed:"],
        ["{}/named.ome.zarr", "{}/seg"],
    ],
    ids=["in front", "behind", "without"],
)
def test_zarr_and_precomputed_over_http_are_read_by_the_page_itself(chromium, files, sources):
    named = [source.format(files.address) for source in sources]
    panels, types = show(chromium, *named, name="http-zarr", but=["/.zarray", "/.zattrs"])
    assert types == ["image", "segmentation"]
    assert is_noise(panels)
    assert panels["xy"].colours() >= 3


def test_zarr_that_does_not_tell_its_axes_is_served_with_those_that_floodem_knows(chromium, files):
    sources = [f"{files.address}/plain.zarr", f"{files.address}/seg"]
    panels, types = show(chromium, *sources, name="http-plain-zarr")
    assert types == ["image", "segmentation"]
    assert is_noise(panels)
    assert panels["xy"].colours() >= 3
