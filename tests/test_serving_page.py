"""The page of a viewer: Neuroglancer's own, behind a look at what the browser can do."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from array_volume import ArrayVolume
from browser import running_chromium
from floodem.errors import DependencyError
from floodem.geometry import VoxelSize
from floodem.viewer.layers import Kind
from floodem.viewer.serving import Site
from floodem.viewer.serving.pages import PAGE_FOLDER, client_folder, with_scripts
from serving_cases import ask

neuroglancer = pytest.importorskip("neuroglancer")


@pytest.fixture
def site():
    with Site.start() as running:
        yield running


@pytest.fixture
def page(site):
    """A viewer and the address of its page."""
    viewer = neuroglancer.Viewer(allow_credentials=False)
    return viewer, viewer.get_viewer_url()


def test_our_scripts_run_before_the_clients_in_the_order_of_their_names(page):
    index = ask(page[1]).body.decode()
    ours = [path.name for path in sorted(PAGE_FOLDER.glob("*.js"))]
    assert "capabilities.js" in ours
    places = [index.index(f'src="page/{name}"') for name in ours]
    assert places == sorted(places)
    waiting = index[index.index('<template id="client">') : index.index("</template>")]
    assert waiting.count("<script") == index.count("<script") - len(ours)
    assert places[-1] < index.index("<template")


def test_all_that_the_page_asks_for_is_there(page):
    _, address = page
    client = sorted(path.name for path in client_folder().iterdir() if path.suffix != ".map")
    for name in [*client, "page/icon.svg", *(f"page/{p.name}" for p in PAGE_FOLDER.glob("*.js"))]:
        reply = ask(address + name)
        assert reply.status == 200, name
        packed = ask(address + name, headers={"Accept-Encoding": "gzip"})
        is_packed = packed.headers.get("content-encoding") == "gzip"
        assert (gzip.decompress(packed.body) if is_packed else packed.body) == reply.body
    for name in ("nothing.js", "page/nothing.js", "../server.py", "page/../pages.py", "page/"):
        assert ask(address + name).status == 404, name


def test_only_scripts_of_the_server_run_in_the_page(page):
    policy = ask(page[1]).headers["content-security-policy"]
    assert "script-src 'self' 'wasm-unsafe-eval'" in policy
    assert "unsafe-inline" not in policy


def test_a_page_of_an_unknown_client_is_refused():
    with pytest.raises(DependencyError, match="is not known to this floodem"):
        with_scripts(b"<html><body>something else</body></html>")


def test_the_client_draws_a_served_volume_without_a_complaint(chromium, site, page):
    viewer, address = page
    stripes = np.zeros((40, 64, 64), np.uint8)
    stripes[:, ::2] = 255
    volume = ArrayVolume(stripes, chunks=(16, 64, 64))
    source = site.serve_volume(volume, kind=Kind.IMAGE, name="em", voxel_size=VoxelSize(30, 6, 6))
    with viewer.txn() as state:
        state.dimensions = neuroglancer.CoordinateSpace(
            names=["x", "y", "z"], units="nm", scales=[6, 6, 30]
        )
        state.position = [32, 32, 20]
        state.layers["em"] = neuroglancer.ImageLayer(source=source)
        state.layout = "xy"
        state.cross_section_scale = 0.2
    shown = chromium.open(address)
    shown.wait_drawn()
    (panel,) = shown.panels().values()
    centre = panel.centre().min(axis=2)
    assert centre.max() > 230
    assert centre.min() < 25
    assert shown.complaints() == []
    assert shown.run("return window.floodem.lacks") is None


def test_a_browser_without_webgl_is_told_what_to_do(site, page):
    with running_chromium("--disable-3d-apis") as browser:
        shown = browser.open(page[1])
        text = shown.run("return document.body.innerText")
        assert "WebGL 2" in text
        for place in (
            "chrome://settings/system",
            "chrome://gpu",
            "chrome://flags/#ignore-gpu-blocklist",
            "about:config",
            "webgl.force-enabled",
            "about:support",
        ):
            assert place in text
        assert shown.run("return typeof window.viewer") == "undefined"
        assert shown.run("return document.querySelectorAll('canvas').length") == 0
        assert shown.run("return document.scrollingElement.scrollWidth <= window.innerWidth")
        shown.save("start-page-without-webgl")


def test_a_browser_without_float_colours_is_told_so(site, page):
    hide = (
        "const real = HTMLCanvasElement.prototype.getContext;"
        "HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {"
        "  const gl = real.call(this, kind, ...rest);"
        "  if (kind === 'webgl2') gl.getExtension = () => null;"
        "  return gl; };"
    )
    with running_chromium() as browser:
        driver = browser.driver
        driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": hide})
        shown = browser.open(page[1])
        assert "EXT_color_buffer_float" in shown.run("return document.body.innerText")
