"""What Firefox draws: the same as Chromium."""

from __future__ import annotations

import numpy as np
import pytest

import floodem
from firefox import running_firefox
from floodem.viewer import Look
from viewer_cases import noise, two_objects

WINDOW = (700, 600)


@pytest.fixture(scope="module")
def firefox():
    pytest.importorskip("neuroglancer")
    with running_firefox() as browser:
        yield browser


def test_firefox_draws_slices_segments_and_meshes_as_chromium_does(firefox, chromium):
    options = {"voxel_size": (20, 10, 10), "view_size_wh": WINDOW}
    shown = {}
    with floodem.view(noise(np.uint8), two_objects(np.uint8), **options) as viewer:
        for name, browser in (("firefox", firefox), ("chromium", chromium)):
            page = browser.show(viewer, layers=2)
            assert page.complaints() == []
            shown[name] = page.panels()
            (bar,) = shown[name]["xy"].bars
            assert shown[name]["xy"].has_bar_of(bar)
    for name, panel in shown["firefox"].items():
        theirs = shown["chromium"][name]
        assert panel.share_coloured() == pytest.approx(theirs.share_coloured(), abs=0.03), name
        assert panel.share_textured() == pytest.approx(theirs.share_textured(), abs=0.03), name


def test_firefox_draws_the_published_segmentation_of_fib25(firefox, shared_data):
    folder = shared_data / "fib25"
    sources = [f"{folder / 'grayscale_maps.h5'}@raw", str(folder / "sample-training2.npz")]
    look = Look(position_zyx=(125, 125, 125))
    with floodem.view(*sources, voxel_size=(10, 10, 10), view_size_wh=WINDOW, look=look) as viewer:
        page = firefox.show(viewer, layers=2, within_s=300)  # its software renderer is slow
        panels = page.panels()
        for name in ("xy", "xz", "yz"):
            assert panels[name].share_coloured() > 0.3, name
            assert panels[name].colours() >= 6, name
        assert panels["3d"].colours() >= 4
        (bar,) = panels["xy"].bars
        assert panels["xy"].has_bar_of(bar)
        assert page.complaints() == []
        page.save("fib25-firefox")
