"""The pictures of docs/viewing.md, as a browser draws them: tissue made from numbers alone.

They are written to build/screenshots; docs/pictures holds copies. To take them anew:
python3 tasks.py test -- -m slow tests/test_viewing_pictures.py
"""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

import floodem
from browser import running_chromium
from clicking_cases import until
from floodem.cli.demo import PRESET
from floodem.labels import sizes
from floodem.viewer import Look
from floodem.viewer.scenes import SceneOptions, make_scene
from floodem.volumes import open_volume
from floodem.volumes.synthetic import SyntheticOptions, write_synthetic

pytestmark = pytest.mark.slow

WINDOW_WH = (900, 640)
SHAPE = (96, 96, 96)
SEED = 2026
MARGIN = 28
"""Of voxels to the faces, within which the flood begins."""
SAID = (
    "return [...document.querySelectorAll('[id^=neuroglancer-status-container] li')]"
    ".map((e) => e.textContent).join(' ')"
)


@pytest.fixture(scope="module")
def tissue(tmp_path_factory):
    """Image and labels that `floodem demo` begins with."""
    folder = tmp_path_factory.mktemp("tissue")
    image, labels = str(folder / "tissue.zarr"), str(folder / "labels.zarr")
    options = SyntheticOptions.preset(PRESET, shape=SHAPE, seed=SEED)
    write_synthetic(options, image=image, labels=labels)
    return image, labels


@pytest.fixture(scope="module")
def neurite(tissue):
    """The id and an inner voxel of a long object that does not hide the others."""
    with open_volume(tissue[1]) as volume:
        labels = volume.read()
    ids, voxels = sizes(labels)
    order = np.argsort(-voxels)
    label = next(int(ids[at]) for at in order if ids[at] and voxels[at] < labels.size / 16)
    inner = labels[MARGIN:-MARGIN, MARGIN:-MARGIN, MARGIN:-MARGIN] == label
    depth = distance_transform_edt(inner)
    z, y, x = (int(at) + MARGIN for at in np.unravel_index(int(depth.argmax()), depth.shape))
    return label, (z, y, x)


def test_picture_of_panels(chromium, tissue):
    with floodem.view(*tissue, view_size_wh=WINDOW_WH) as viewer:
        page = chromium.show(viewer, layers=2, size_wh=WINDOW_WH)
        panels = page.panels()
        assert all(panels[name].colours() >= 6 for name in ("xy", "xz", "yz"))
        assert panels["3d"].colours() >= 4
        assert page.complaints() == []
        page.save("viewing-panels")


def test_pictures_of_a_flood_that_grows_and_is_kept(chromium, tissue, neurite, tmp_path):
    image, _ = tissue
    _, seed = neurite
    look = Look(position_zyx=tuple(at + 0.5 for at in seed))
    with floodem.view(
        image,
        model="synthetic",
        device="cpu",
        keep=tmp_path / "floods.zarr",
        look=look,
        view_size_wh=WINDOW_WH,
    ) as viewer:
        page = chromium.show(viewer, layers=3, size_wh=WINDOW_WH)
        panel = page.run(
            "const {left, top, width, height} = [...viewer.display.panels]"
            ".find((p) => p.sliceView !== undefined).element.getBoundingClientRect();"
            "return [left + width / 2, top + height / 2];"
        )
        chain = ActionChains(chromium.driver, duration=0)
        for by in (5, 0):
            chain.w3c_actions.pointer_action.move_to_location(
                round(panel[0]) + by, round(panel[1]) + by
            )
        chain.perform()
        page.wait_until("viewer.mouseState.active", within_s=10)
        began = time.monotonic()
        ActionChains(chromium.driver, duration=0).send_keys("f").perform()
        until(lambda: "network calls" in page.run(SAID), within_s=60)
        first = time.monotonic() - began
        page.save("viewing-flood-growing")
        until(lambda: "Enter keeps it as 1" in page.run(SAID), within_s=120)
        page.wait_drawn(layers=3)
        page.save("viewing-flood-done")
        ActionChains(chromium.driver, duration=0).send_keys(Keys.RETURN).perform()
        until(lambda: "kept as 1" in page.run(SAID), within_s=60)
        assert page.complaints() == []
    print(f"first growth on the page {first:.2f} s after the key")
    with open_volume(tmp_path / "floods.zarr") as volume:
        assert volume.read()[seed] == 1


def test_picture_of_a_scene(chromium, tissue, tmp_path):
    scene = make_scene(
        tmp_path / "scene",
        images=[f"tissue={tissue[0]}"],
        segmentations=[f"neurons={tissue[1]}"],
        options=SceneOptions(title="Synthetic tissue"),
    )
    with floodem.view(scene.folder, view_size_wh=WINDOW_WH) as viewer:
        page = chromium.show(viewer, layers=2, size_wh=WINDOW_WH)
        assert page.panels()["3d"].colours() >= 3
        assert page.complaints() == []
        page.save("viewing-scene")


def test_picture_of_the_page_that_explains(tissue):
    with running_chromium("--disable-3d-apis") as without_webgl, floodem.view(*tissue) as viewer:
        page = without_webgl.open(viewer.address, size_wh=WINDOW_WH)
        page.wait_until("document.querySelector('h1') !== null")
        assert "WebGL 2" in page.run("return document.body.innerText")
        page.save("viewing-advice")
