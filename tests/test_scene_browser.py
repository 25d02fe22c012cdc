"""What Chromium draws of a scene, from the plainest web server and from ours."""

from __future__ import annotations

import shutil
from dataclasses import replace
from urllib.parse import unquote

import numpy as np
import pytest

from floodem.geometry import Box, VoxelSize
from floodem.viewer.scenes import SceneOptions, make_scene
from floodem.viewer.serving import Site
from floodem.volumes import open_volume
from scene_cases import NO_SHAPES, make, plain_server, scores_file

BOX = Box((60, 60, 60), (156, 156, 156))
WINDOW = (1200, 800)
LARGEST = 64


@pytest.fixture(scope="module")
def fib25(shared_data, tmp_path_factory):
    """A crop of FIB-25 with its published segmentation, meshes, skeletons and names."""
    made = make_scene(
        tmp_path_factory.mktemp("scenes") / "fib25",
        images=[shared_data / "fib25" / "grayscale_maps.h5"],
        segmentations=[shared_data / "fib25" / "sample-training2.npz"],
        options=SceneOptions(
            box=BOX,
            voxel_size=VoxelSize(10, 10, 10),
            names={LARGEST: "the largest"},
            title="FIB-25 medulla",
        ),
    )
    return made.folder


def addresses_of(page):
    """Every address that the page and its workers asked for, without those of its own server."""
    names = page.run("return performance.getEntriesByType('resource').map((e) => e.name)")
    origin = page.run("return location.origin")
    return [name for name in names if not name.startswith((origin, "blob:", "data:"))]


def require_drawn(page, *, has_meshes=True):
    """Check slices, colours, shapes, scale bar, list, and that nothing was complained about."""
    panels = page.panels()
    for name in ("xy", "xz", "yz"):
        assert panels[name].share_coloured() > 0.3, name
        assert panels[name].colours() >= 5, name
    assert panels["3d"].share_coloured() > (0.1 if has_meshes else 0.02)
    (bar,) = panels["xy"].bars
    assert panels["xy"].has_bar_of(bar)
    assert page.complaints() == []
    assert addresses_of(page) == []


def test_any_web_server_shows_a_scene(chromium, fib25):
    with plain_server(fib25) as (address, log):
        page = chromium.open(f"{address}/", size_wh=WINDOW)
        page.wait_until("window.viewer !== undefined")
        page.wait_drawn(layers=2)
        require_drawn(page)
        assert page.run("return document.title").startswith("FIB-25 medulla")
        listed = page.run("return document.body.innerText")
        assert "the largest" in listed
        with open_volume(f"precomputed://{fib25 / 'segmentation'}") as labels:
            assert str(np.count_nonzero(labels.read() == LARGEST)) in listed
        page.save("scene-http-server")
        (bar,) = page.panels()["xy"].bars
        scale_nm = 10 * page.state()["crossSectionScale"]
        assert bar.nm_per_pixel == pytest.approx(scale_nm, rel=0.02)
    wrong = [line for line in log if '" 200' not in line and '" 304' not in line]
    assert wrong == []
    assert any("/segmentation/mesh/" in line for line in log)
    assert any("/segmentation/skeletons/" in line for line in log)


def test_our_own_server_shows_the_same(chromium, fib25):
    with Site.start() as site:
        page = chromium.open(f"{site.serve_folder(fib25)}/v/scene/", size_wh=WINDOW)
        page.wait_until("window.viewer !== undefined")
        page.wait_drawn(layers=2)
        require_drawn(page)
        page.save("scene-site")


def test_skeletons_are_drawn_without_meshes(chromium, fib25, tmp_path):
    folder = shutil.copytree(fib25, tmp_path / "scene")
    (folder / "segmentation" / "info").write_text(
        (folder / "segmentation" / "info").read_text().replace('"mesh": "mesh", ', "")
    )
    with plain_server(folder) as (address, _):
        page = chromium.open(f"{address}/v/scene/", size_wh=WINDOW)
        page.wait_until("window.viewer !== undefined")
        page.wait_drawn(layers=2)
        page.run(
            "const state = window.viewer.state.toJSON();"
            "window.viewer.state.reset();"
            "window.viewer.state.restoreState({...state, layout: '3d', showSlices: false,"
            " showAxisLines: false, showDefaultAnnotations: false});"
        )
        page.wait_drawn(layers=2)
        page.save("scene-skeletons")
        (panel,) = page.panels().values()
        assert 0.001 < panel.share_coloured() < 0.2  # lines, and nothing filled
        coarse = panel.pixels[panel.coloured()] // 64
        _, counts = np.unique(coarse, axis=0, return_counts=True)
        assert np.count_nonzero(counts > 50) >= 3


@pytest.mark.slow
def test_shards_are_shown_by_servers_without_ranges(chromium, shared_data, tmp_path):
    made = make_scene(
        tmp_path / "out",
        images=[shared_data / "fib25" / "grayscale_maps.h5"],
        segmentations=[shared_data / "fib25" / "sample-training2.npz"],
        options=SceneOptions(box=BOX, voxel_size=VoxelSize(10, 10, 10), is_sharded=True),
    )
    with plain_server(made.folder) as (address, log):
        page = chromium.open(f"{address}/", size_wh=WINDOW)
        page.wait_until("window.viewer !== undefined")
        page.wait_drawn(layers=2)
        require_drawn(page)
    assert all("/mesh/" not in line or ".shard" in line or "info" in line for line in log)


def test_a_view_that_was_changed_is_kept_when_the_page_is_loaded_again(chromium, tmp_path):
    folder = make(tmp_path / "out").folder
    with plain_server(folder) as (address, _):
        page = chromium.open(f"{address}/", size_wh=WINDOW)
        page.wait_until("window.viewer !== undefined")
        page.wait_drawn(layers=2)
        page.run("window.viewer.position.value = Float32Array.of(110, 30, 9)")
        page.wait_until("decodeURIComponent(location.hash).includes('\"position\":[110,30,9]')")
        page.driver.refresh()
        page.wait_until("window.viewer !== undefined")
        page.wait_drawn(layers=2)
        assert page.state()["position"] == [110, 30, 9]
        assert page.complaints() == []
        link = page.run("return location.hash")
    # The address of the server is not in the link, so that it holds wherever the folder goes.
    assert address not in unquote(link)
    with plain_server(folder.rename(tmp_path / "moved")) as (elsewhere, _):
        page = chromium.open(f"{elsewhere}/{link}", size_wh=WINDOW)
        page.wait_until("window.viewer !== undefined")
        page.wait_drawn(layers=2)
        assert page.state()["position"] == [110, 30, 9]
        assert page.panels()["xy"].share_textured() > 0.05


def test_mistakes_are_points_with_their_segments(chromium, tmp_path):
    scored = replace(NO_SHAPES, scores=scores_file(tmp_path))
    with plain_server(make(tmp_path / "out", options=scored).folder) as (address, _):
        page = chromium.open(f"{address}/", size_wh=WINDOW)
        page.wait_until("window.viewer !== undefined")
        page.wait_drawn(layers=4)
        layers = {layer["name"]: layer for layer in page.state()["layers"]}
        assert list(layers) == ["image", "segmentation", "splits", "mergers"]
        assert len(layers["splits"]["annotations"]) == 1
        assert page.complaints() == []
        page.save("scene-scores")


def test_a_page_from_the_disk_says_how_to_go_on(chromium, tmp_path):
    folder = make(tmp_path / "out", options=replace(NO_SHAPES, title="Mine")).folder
    page = chromium.open((folder / "index.html").as_uri())
    text = page.run("return document.body.innerText")
    assert "python -m http.server" in text
    assert "floodem view" in text
    assert "viewer opens" not in text


def test_a_broken_scene_says_what_is_missing(chromium, tmp_path):
    folder = make(tmp_path / "out").folder
    (folder / "scene.json").unlink()
    with plain_server(folder) as (address, _):
        page = chromium.open(f"{address}/v/scene/")
        page.wait_until("document.body.innerText.includes('cannot be opened')")
        assert "scene.json: 404" in page.run("return document.body.innerText")


def test_a_scene_without_segments_shows_its_slices_in_3d(chromium, tmp_path):
    folder = make(tmp_path / "out", segmentations=[]).folder
    with plain_server(folder) as (address, _):
        page = chromium.open(f"{address}/", size_wh=WINDOW)
        page.wait_until("window.viewer !== undefined")
        page.wait_drawn(layers=1)
        panels = page.panels()
        assert panels["xy"].share_textured() > 0.05
        brightness = panels["3d"].pixels.mean(axis=2)
        assert np.mean(brightness > 40) > 0.02
        assert page.complaints() == []
