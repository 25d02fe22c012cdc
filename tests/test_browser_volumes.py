"""What Chromium draws of volumes that floodem serves: arrays, files, published data."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

import floodem
from floodem.geometry import Box, VoxelSize
from floodem.viewer import Look
from floodem.volumes import create_volume
from viewer_cases import noise, two_objects

WINDOW = (700, 600)

# One box in the middle of nothing: z 8:16, y 10:30, x 12:36 of 24 x 40 x 60 voxels.
SIZE = VoxelSize(20, 10, 5)
OBJECT = Box((8, 10, 12), (16, 30, 36))


def one_box(dtype=np.uint64, label=2**40 + 7):
    labels = np.zeros((24, 40, 60), dtype)
    labels[OBJECT.slices()] = label
    return labels


def bare(viewer, **changes):
    """Draw nothing but data: no axes, no bounds, and what else is wanted."""
    with viewer.client.txn() as state:
        state.show_axis_lines = False
        state.show_default_annotations = False
        for name, value in changes.items():
            setattr(state, name, value)


def extent(panel):
    """First row, row behind the last, and the same columns of the largest coloured patch."""
    patches, count = ndimage.label(panel.coloured())
    largest = 1 + np.argmax(np.bincount(patches.ravel(), minlength=count + 1)[1:])
    rows, columns = ndimage.find_objects(patches)[largest - 1]
    return rows.start, rows.stop, columns.start, columns.stop


def test_a_slice_shows_each_object_where_and_as_large_as_it_is(chromium):
    with floodem.view(segmentation=one_box(), voxel_size=SIZE, view_size_wh=WINDOW) as viewer:
        bare(viewer, show_scale_bar=True)
        page = chromium.show(viewer)
        panels = page.panels()
        (bar,) = panels["xy"].bars
        assert panels["xy"].has_bar_of(bar)
        widths = {"xy": (20 * 10, 24 * 5), "xz": (8 * 20, 24 * 5), "yz": (20 * 10, 8 * 20)}
        for name, (down_nm, across_nm) in widths.items():
            top, bottom, left, right = extent(panels[name])
            assert (bottom - top) * bar.nm_per_pixel == pytest.approx(down_nm, rel=0.03), name
            assert (right - left) * bar.nm_per_pixel == pytest.approx(across_nm, rel=0.03), name
        assert page.complaints() == []
        page.save("array-object")


def test_a_mesh_is_drawn_where_the_object_is_and_as_large(chromium):
    with floodem.view(segmentation=one_box(), voxel_size=SIZE, view_size_wh=WINDOW) as viewer:
        bare(
            viewer,
            layout="3d",
            projection_orientation=[0, 0, 0, 1],
            position=[30, 20, 12],  # x, y, z: the middle of the volume
            projection_scale=120,  # of 5 nm
            show_slices=False,
        )
        with viewer.client.txn() as state:
            state.layout = "3d"
            state.layout.orthographic_projection = True
        page = chromium.show(viewer)
        (panel,) = page.panels().values()
        assert panel.is_3d
        height, width = panel.pixels.shape[:2]
        nm_per_pixel = 120 * 5 / (height + 4)  # the frame is cut off
        top, bottom, left, right = extent(panel)
        assert (bottom - top) * nm_per_pixel == pytest.approx(200, rel=0.04)
        assert (right - left) * nm_per_pixel == pytest.approx(120, rel=0.04)
        middle_x_nm = ((left + right) / 2 - width / 2) * nm_per_pixel
        middle_y_nm = ((top + bottom) / 2 - height / 2) * nm_per_pixel
        assert middle_x_nm == pytest.approx((24 - 30) * 5, abs=6)
        assert middle_y_nm == pytest.approx(0, abs=6)
        assert page.complaints() == []
        page.save("array-mesh")


def test_an_oblique_slice_cuts_the_object_along_its_diagonal(chromium):
    labels = np.zeros((60, 60, 60), np.uint32)
    labels[20:40, 20:40, 10:50] = 5
    turned = [math.sin(math.pi / 8), 0, 0, math.cos(math.pi / 8)]  # 45 degrees around x
    size = VoxelSize(10, 10, 10)
    with floodem.view(segmentation=labels, voxel_size=size, view_size_wh=WINDOW) as viewer:
        bare(viewer, layout="xy", cross_section_orientation=turned)
        page = chromium.show(viewer)
        (panel,) = page.panels().values()
        top, bottom, left, right = extent(panel)
        nm_per_pixel = panel.bars[0].nm_per_pixel
        assert (bottom - top) * nm_per_pixel == pytest.approx(200 * math.sqrt(2), rel=0.03)
        assert (right - left) * nm_per_pixel == pytest.approx(400, rel=0.03)
        assert page.complaints() == []
        page.save("oblique")


def test_a_numpy_image_and_small_labels_are_shown_together(chromium):
    image, labels = noise(np.uint16), two_objects(np.uint8)
    with floodem.view(image, labels, voxel_size=(20, 10, 10), view_size_wh=WINDOW) as viewer:
        page = chromium.show(viewer, layers=2)
        panels = page.panels()
        for name in ("xy", "xz", "yz"):
            assert panels[name].share_coloured() > 0.12, name
            assert panels[name].share_textured() > 0.05, name
        assert panels["3d"].colours() >= 2
        assert page.complaints() == []
        page.save("arrays")


def test_volumes_that_state_no_voxel_size_are_shown_in_voxels(chromium):
    image, labels = noise(np.uint8), two_objects(np.uint32)
    with floodem.view(image, labels, view_size_wh=WINDOW) as viewer:
        page = chromium.show(viewer, layers=2)
        panels = page.panels()
        for name in ("xy", "xz", "yz"):
            assert panels[name].share_coloured() > 0.12, name
            assert panels[name].share_textured() > 0.05, name
        assert panels["3d"].colours() >= 2
        assert page.complaints() == []
        page.save("arrays-in-voxels")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """An image in N5 and labels in NIfTI, with a voxel size of 30, 6, 6 nm and an offset."""
    folder = tmp_path_factory.mktemp("files")
    made = {"em.n5": noise(np.uint8, shape=(24, 96, 96)), "seg.nii": one_of_three()}
    for name, array in made.items():
        uri = str(folder / name)
        with create_volume(
            uri, shape=array.shape, dtype=array.dtype, voxel_size=VoxelSize(30, 6, 6)
        ) as volume:
            volume.write(volume.box, array)
    return folder


def one_of_three():
    labels = np.zeros((24, 96, 96), np.uint16)
    labels[4:20, 10:40, 10:90] = 3
    labels[4:20, 50:70, 10:60] = 500
    labels[4:12, 75:90, 30:90] = 40_000
    return labels


def test_n5_and_nifti_files_are_shown_as_they_are(chromium, files):
    sources = [str(files / "em.n5"), f"segmentation={files / 'seg.nii'}"]
    look = Look(position_zyx=(8, 48, 48))
    with floodem.view(*sources, view_size_wh=WINDOW, look=look) as viewer:
        page = chromium.show(viewer, layers=2)
        panels = page.panels()
        assert panels["xy"].share_coloured() > 0.2
        assert panels["xy"].colours() >= 3
        assert panels["xy"].share_textured() > 0.1
        assert panels["3d"].colours() >= 3
        (bar,) = panels["xy"].bars[:1]
        assert panels["xy"].has_bar_of(bar)
        # 24 voxels of 30 nm, the longest edge, fill nine tenths of half a window.
        assert 24 * 30 / bar.nm_per_pixel == pytest.approx(0.9 * 300, rel=0.1)
        assert page.complaints() == []
        page.save("n5-nifti")


def test_the_published_segmentation_of_fib25_is_shown(chromium, shared_data):
    folder = shared_data / "fib25"
    sources = [f"{folder / 'grayscale_maps.h5'}@raw", str(folder / "sample-training2.npz")]
    look = Look(position_zyx=(125, 125, 125))
    size = (1000, 800)
    with floodem.view(*sources, voxel_size=(10, 10, 10), view_size_wh=size, look=look) as viewer:
        assert viewer.notes[-1].startswith("sample-training2.npz (uint8) looks like labels")
        page = chromium.show(viewer, layers=2, size_wh=size)
        panels = page.panels()
        for name in ("xy", "xz", "yz"):
            assert panels[name].share_coloured() > 0.3, name
            assert panels[name].colours() >= 6, name
        assert panels["3d"].colours() >= 4
        (bar,) = panels["xy"].bars
        assert panels["xy"].has_bar_of(bar)
        assert page.complaints() == []
        page.save("fib25")


def test_snemi3d_with_labels_from_folders_of_png_is_shown(chromium, shared_data):
    folder = shared_data / "snemi3d"
    sources = [str(folder / "images"), f"segmentation={folder / 'segment'}"]
    size = (1000, 800)
    with floodem.view(*sources, voxel_size=(30, 6, 6), view_size_wh=size) as viewer:
        assert any(note.startswith("segment has 20 million voxels") for note in viewer.notes)
        page = chromium.show(viewer, layers=2, size_wh=size)
        panels = page.panels()
        for name in ("xy", "xz", "yz"):
            assert panels[name].share_coloured() > 0.3, name
            assert panels[name].colours() >= 6, name
            assert panels[name].share_textured() > 0.02, name
        assert panels["3d"].share_coloured() > 0.1  # the slices, where there are no meshes
        (bar,) = panels["xy"].bars
        assert panels["xy"].has_bar_of(bar)
        assert page.complaints() == []
        page.save("snemi3d")
