"""What Chromium makes of a report: the page itself, and where its links lead."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from floodem.project.report.serving import serve_report
from floodem.viewer.serving import Site
from report_cases import HARD_NAME, MERGER, SPLIT, mended, segmentation, written
from scene_cases import plain_server

WINDOW = (1300, 900)


def click_first(page, number):
    """Click the link of a place, which opens another tab; go there."""
    driver = page.driver
    before = set(driver.window_handles)
    driver.find_elements("css selector", "a.open")[number].click()
    (opened,) = set(driver.window_handles) - before
    driver.switch_to.window(opened)


def close_tab(page):
    page.driver.close()
    page.driver.switch_to.window(page.driver.window_handles[0])


def require_at_place(page, *, segments, objects, position_layers):
    page.wait_until("window.viewer !== undefined")
    page.wait_drawn(layers=len(position_layers))
    state = page.state()
    layers = {layer["name"]: layer for layer in state["layers"]}
    assert list(layers) == position_layers
    assert {int(one) for one in layers[position_layers[1]]["segments"]} <= {*segments, *objects}
    panels = page.panels()
    assert panels["xy"].share_coloured() > 0.02
    assert panels["3d"].share_coloured() > 0.02
    assert page.complaints() == []


@pytest.mark.parametrize("name", [HARD_NAME, pytest.param("out.html", marks=pytest.mark.slow)])
def test_one_click_opens_the_viewer_at_the_place(chromium, tmp_path, name):
    report = written(tmp_path / name, has_viewer=True)
    with Site.start() as site:
        page = chromium.open(serve_report(site, report), size_wh=WINDOW)
        assert page.complaints() == []
        click_first(page, 0)
        try:
            require_at_place(
                page,
                segments={MERGER},
                objects={1, 2},
                position_layers=["image", "segmentation segmentation", "truth"],
            )
            truth = page.state()["layers"][2]
            assert set(truth["segments"]) == {"1", "2"}
            assert [round(at - 0.5) for at in page.state()["position"]][2] in range(9, 29)
        finally:
            close_tab(page)
        click_first(page, 1)
        try:
            require_at_place(
                page,
                segments={7, 8},
                objects={SPLIT},
                position_layers=["image", "truth", "segmentation segmentation"],
            )
            assert set(page.state()["layers"][2]["segments"]) == {"7", "8"}
            page.save("report-place")
        finally:
            close_tab(page)


@pytest.mark.slow
def test_any_web_server_serves_a_report_with_its_places(chromium, tmp_path):
    report = written(tmp_path / HARD_NAME, many=(segmentation, mended), has_viewer=True)
    with plain_server(tmp_path) as (address, _):
        page = chromium.open(f"{address}/{quote(report.name)}", size_wh=WINDOW)
        assert page.complaints() == []
        click_first(page, 0)
        try:
            page.wait_until("window.viewer !== undefined")
            page.wait_drawn(layers=4)
            assert page.complaints() == []
        finally:
            close_tab(page)


def test_a_page_from_the_disk_shows_its_pictures_and_loads_nothing(chromium, tmp_path):
    report = written(tmp_path / HARD_NAME, has_viewer=True)
    page = chromium.open(report.as_uri(), size_wh=WINDOW)
    sizes = page.run("return [...document.images].map((one) => one.naturalWidth)")
    assert len(sizes) == 6
    assert min(sizes) > 100
    asked = page.run("return performance.getEntriesByType('resource').map((one) => one.name)")
    assert [one for one in asked if not one.startswith("data:")] == []
    assert page.complaints() == []
    assert "floodem view" in page.run("return document.body.innerText")
    # The style is the one that the policy lets through.
    assert page.run("return getComputedStyle(document.querySelector('.key.first')).width") == "12px"
    page.save("report")


def test_a_link_from_the_disk_leads_to_a_page_that_says_how_to_go_on(chromium, tmp_path):
    report = written(tmp_path / HARD_NAME, has_viewer=True)
    page = chromium.open(report.as_uri(), size_wh=WINDOW)
    click_first(page, 0)
    try:
        page.wait_until("document.body.innerText.includes('floodem view')")
    finally:
        close_tab(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_dark(chromium, tmp_path, scheme):
    report = written(tmp_path / "out.html")
    page = chromium.open("about:blank", size_wh=WINDOW)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    try:
        page.driver.get(report.as_uri())
        picture = page.picture()
        paper = picture[5, 5].mean()
        ink = picture[:120, :600].mean(axis=2)
        assert (paper > 200) == (scheme == "light")
        assert abs(ink - paper).max() > 150
    finally:
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
