"""The viewer's page itself: without WebGL, closed, in a picture."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import floodem
from browser import running_chromium
from floodem.viewer import Look
from viewer_cases import noise


@pytest.fixture
def viewer():
    pytest.importorskip("neuroglancer")
    with floodem.view(noise(np.uint8), voxel_size=(8, 8, 8), view_size_wh=(500, 400)) as running:
        yield running


@pytest.mark.parametrize("flag", ["--disable-3d-apis", "--disable-webgl2"])
def test_without_webgl_2_the_page_says_what_to_do(viewer, flag):
    with running_chromium(flag) as browser:
        page = browser.open(viewer.address)
        page.wait_until("document.querySelector('h1') !== null", within_s=20)
        text = page.run("return document.body.innerText")
        page.save("without-webgl")
    assert "This browser cannot draw the volumes" in text
    assert "WebGL 2" in text
    assert text.index("chrome://settings/system") < text.index("about:config")


def test_what_is_changed_in_python_is_drawn_in_the_page(chromium, viewer):
    page = chromium.show(viewer)
    assert len(page.panels()) == 4
    with viewer.client.txn() as state:
        state.layout = "xz"
    page.wait_until("[...window.viewer.display.panels].filter((p) => p.sliceView).length === 1")
    page.wait_drawn()
    (panel,) = page.panels().values()
    assert panel.share_textured() > 0.05


def test_what_is_changed_in_the_page_is_known_in_python(chromium, viewer):
    page = chromium.show(viewer)
    page.run("window.viewer.position.value = new Float32Array([3, 4, 5])")
    page.wait_until("JSON.stringify(window.viewer.state).includes('[3,4,5]')")
    position = None
    for _ in range(100):
        position = list(viewer.client.state.position)
        if position == [3, 4, 5]:
            break
        page.wait_until("true")
        page.driver.execute_async_script("setTimeout(arguments[0], 50)")
    assert position == [3, 4, 5]


def test_a_picture_shows_what_was_asked_for(tmp_path):
    pytest.importorskip("neuroglancer")
    image = noise(np.uint8)
    image[9] = 255  # a bright section
    shown = {}
    for z in (4, 9):
        look = Look(position_zyx=(z + 0.5, 15, 20), layout="xy")
        path = tmp_path / f"{z}.png"
        with floodem.view(image=image, voxel_size=(8, 8, 8), look=look) as viewer:
            assert viewer.screenshot(path, size_wh=(300, 200)) == path
        shown[z] = np.asarray(Image.open(path).convert("L")).astype(int)
        assert shown[z].shape == (200, 300)
    assert shown[9][80:120, 130:170].mean() > 240
    assert shown[4][80:120, 130:170].mean() < 200
