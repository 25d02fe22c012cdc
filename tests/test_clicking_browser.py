"""Real clicks and keys in a real browser: what floods, what is seen, what stays the client's."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pytest

import clicking_server
import floodem
from bright import bright_model
from clicking_cases import ON_CPU, SECOND_TUBE, TUBE, tubes, until
from floodem.flooding.kept import KeptFloods
from floodem.geometry import VoxelSize
from floodem.legacy.checkpoints.import_model import import_tensorflow_model
from floodem.network.model_file import save_model
from floodem.viewer import view
from floodem.viewer.clicking import ClickToFlood
from floodem.volumes import open_volume

pytest.importorskip("neuroglancer")
selenium = pytest.importorskip("selenium")

SIZE_WH = (700, 600)
XY_CENTRE = (175, 184)
"""Of the first panel, in pixels of the window: where the slices cross."""

NOTHING, SOMETHING = 0.004, 0.015
"""Share of a panel's pixels: lines of axes, and a tube."""


class Hand:
    """A user's mouse and keyboard, over the page that the browser shows."""

    def __init__(self, driver, page):
        self.driver, self.page = driver, page

    def _chain(self):
        from selenium.webdriver.common.action_chains import ActionChains

        return ActionChains(self.driver, duration=0)

    def point(self, x, y):
        for aside in (5, 0):  # a mouse that stays where it is tells the page nothing
            chain = self._chain()
            chain.w3c_actions.pointer_action.move_to_location(round(x) + aside, round(y))
            chain.perform()
        self.page.wait_until("viewer.mouseState.active", within_s=20)

    def press(self, *keys):
        self._chain().send_keys(*keys).perform()

    def shift_click(self, by=(0, 0)):
        from selenium.webdriver.common.keys import Keys

        chain = self._chain().key_down(Keys.SHIFT).click_and_hold()
        if by != (0, 0):
            chain = chain.move_by_offset(by[0] // 2, by[1] // 2).move_by_offset(*by)
        chain.release().key_up(Keys.SHIFT).perform()


class FloodingPage:
    """A page on which one can click, and the viewer behind it."""

    def __init__(self, page, hand, viewer, clicking):
        self.page, self.hand = page, hand
        self.viewer, self.clicking = viewer, clicking

    @property
    def said(self):
        """The status line, as the page shows it."""
        return self.page.run(
            "return [...document.querySelectorAll('[id^=neuroglancer-status-container] li')]"
            ".filter((e) => e.style.display !== 'none').map((e) => e.textContent).join(' ')"
        )

    def until_said(self, text, *, within_s=30):
        until(lambda: text in self.said, within_s=within_s)

    def slow_down(self, seconds):
        """Let each network call take longer, so that there is something to see."""
        predictor = self.clicking._line._flooder._predictor
        predict = predictor.predict
        predictor.predict = lambda *asked: (time.sleep(seconds), predict(*asked))[1]

    def selected(self, name="kept floods"):
        """Which objects of a layer have their mesh shown."""
        layer = next(one for one in self.page.state()["layers"] if one["name"] == name)
        segments = [str(segment) for segment in layer.get("segments", [])]
        return sorted(int(one) for one in segments if not one.startswith("!"))

    def watch(self, x, y):
        """Write down the colour of one pixel of the window each time the page is drawn."""
        self.page.run(
            """
            const [x, y] = arguments, d = viewer.display, gl = d.gl;
            window.seen = [];
            d.updateFinished.add(() => {
              const r = d.canvas.getBoundingClientRect(), s = d.canvas.width / r.width;
              const pixel = new Uint8Array(4);
              gl.bindFramebuffer(gl.FRAMEBUFFER, null);
              gl.readPixels(Math.round((x - r.left) * s),
                            d.canvas.height - 1 - Math.round((y - r.top) * s),
                            1, 1, gl.RGBA, gl.UNSIGNED_BYTE, pixel);
              window.seen.push([performance.now(), ...pixel.slice(0, 3)]);
            });
            """,
            x,
            y,
        )

    def seen(self):
        return np.array(self.page.run("return window.seen"))


def is_orange(colours):
    """Tell which colours have the tint of what is pending."""
    red, green, blue = (colours[..., channel] for channel in range(3))
    return (red - blue > 30) & (red - green > 10)  # the box around the data is yellow


@pytest.fixture
def shown(chromium, tmp_path):
    @contextmanager
    def show(image=None, *, model=None, at=TUBE, size_wh=SIZE_WH, keep="k.zarr", voxel_size=None):
        image = image or tubes()
        viewer = view(image=image, view_size_wh=size_wh, voxel_size=voxel_size)
        with viewer.client.txn() as state:
            state.position = [place + 0.5 for place in at[::-1]]
        with ClickToFlood(
            viewer.client,
            image,
            model=model or bright_model(),
            keep=tmp_path / keep,
            request=ON_CPU,
            voxel_size=voxel_size,
        ) as clicking:
            page = chromium.open(viewer.address, size_wh=size_wh)
            page.wait_drawn(layers=3)
            yield FloodingPage(page, Hand(chromium.driver, page), viewer, clicking)
            assert page.complaints() == []
        viewer.close()

    return show


@pytest.mark.parametrize("how", ["f", "shift+click"])
def test_a_click_on_a_tube_floods_it_in_slices_and_mesh(shown, how):
    with shown() as flooding:
        before = flooding.page.panels()
        flooding.hand.point(*XY_CENTRE)
        if how == "f":
            flooding.hand.press("f")
        else:
            flooding.hand.shift_click()
        flooding.until_said("done: ")
        assert flooding.viewer.client.config_state.state.status_messages["floodem"] in flooding.said
        until(lambda: is_orange(flooding.page.panels()["3d"].pixels).mean() > NOTHING)
        after = flooding.page.panels()
        for name in ("xy", "xz", "yz"):
            assert is_orange(before[name].pixels).mean() < NOTHING
            assert is_orange(after[name].pixels).mean() > SOMETHING
        mask = floodem.flood_at(tubes(), TUBE, model=bright_model(), request=ON_CPU).mask
        np.testing.assert_array_equal(
            flooding.clicking._line._pending.made.mask, mask, err_msg="another voxel was clicked"
        )


def test_it_grows_visibly_several_times_a_second_and_never_flickers(shown):
    with shown(tubes((24, 40, 90))) as flooding:
        flooding.slow_down(0.06)
        flooding.watch(XY_CENTRE[0] + 12, XY_CENTRE[1] - 6)
        flooding.hand.point(*XY_CENTRE)
        flooding.hand.press("f")
        meshes = []
        while "done: " not in flooding.said:
            meshes.append(is_orange(flooding.page.panels()["3d"].pixels).sum())
        assert meshes[len(meshes) // 2] > 0
        assert meshes[-1] > 1.5 * meshes[len(meshes) // 4]
        seen = flooding.seen()
        tinted = is_orange(seen[:, 1:])
        first = int(tinted.argmax())
        assert tinted[first:].all(), "".join(str(int(one)) for one in tinted)
        assert len(tinted) - first > 10
        generations = flooding.viewer.client.config_state.state.source_generations
        assert max(generations.values()) > 10


def test_enter_keeps_with_its_mesh_and_u_undoes(shown, tmp_path):
    from selenium.webdriver.common.keys import Keys

    with shown() as flooding:
        hand = flooding.hand
        hand.point(*XY_CENTRE)
        hand.press("f")
        flooding.until_said("Enter keeps it as 1")
        hand.press(Keys.RETURN)
        flooding.until_said("kept as 1")
        until(lambda: flooding.selected() == [1])
        until(lambda: is_orange(flooding.page.panels()["xy"].pixels).mean() < NOTHING)
        until(lambda: flooding.page.panels()["3d"].share_coloured() > 0.03)
        with open_volume(tmp_path / "k.zarr") as volume:
            kept = volume.read() == 1
        made = floodem.flood_at(tubes(), TUBE, model=bright_model(), request=ON_CPU)
        np.testing.assert_array_equal(kept, made.mask)
        hand.press("u")
        flooding.until_said("took back the last flood of 1")
        until(lambda: flooding.selected() == [])
        with open_volume(tmp_path / "k.zarr") as volume:
            assert not volume.read().any()


def test_a_flood_is_shown_whatever_was_cleared_before(shown):
    from selenium.webdriver.common.keys import Keys

    def is_mesh_shown():
        return is_orange(flooding.page.panels()["3d"].pixels).mean() > NOTHING

    with shown() as flooding:
        hand = flooding.hand
        hand.point(*XY_CENTRE)
        hand.press("x")
        until(lambda: flooding.selected("flood") == [])
        hand.press("f")
        flooding.until_said("Enter keeps it as 1")
        until(is_mesh_shown)
        assert flooding.selected("flood") == [1]
        hand.press("x")
        until(lambda: flooding.selected("flood") == [])
        until(lambda: not is_mesh_shown())
        hand.press(Keys.BACKSPACE)
        flooding.until_said("taken back")
        hand.press("f")
        flooding.until_said("Enter keeps it as 1")
        until(is_mesh_shown)


def test_backspace_takes_back_what_escape_has_stopped(shown, tmp_path):
    from selenium.webdriver.common.keys import Keys

    with shown() as flooding:
        flooding.slow_down(0.05)
        flooding.hand.point(*XY_CENTRE)
        flooding.hand.press("f")
        flooding.until_said("Escape stops it")
        flooding.hand.press(Keys.ESCAPE)
        flooding.until_said("stopped: ")
        flooding.hand.press(Keys.BACKSPACE)
        flooding.until_said("taken back")
        until(lambda: is_orange(flooding.page.panels()["xy"].pixels).mean() < NOTHING)
        assert not (tmp_path / "k.zarr").exists()


def test_shift_drag_turns_the_slice_and_floods_nothing(shown):
    with shown() as flooding:
        page, hand = flooding.page, flooding.hand
        assert "crossSectionOrientation" not in page.state()
        hand.point(*XY_CENTRE)
        hand.shift_click(by=(60, 20))
        page.wait_until("JSON.stringify(viewer.state).includes('crossSectionOrientation')")
        page.wait_until("floodem.swallowed === 1")
        # A drag that comes back to where it began is one as well.
        hand.point(*XY_CENTRE)
        from selenium.webdriver.common.keys import Keys

        chain = hand._chain().key_down(Keys.SHIFT).click_and_hold()
        chain.move_by_offset(40, 0).move_by_offset(-40, 0).release().key_up(Keys.SHIFT).perform()
        page.wait_until("floodem.swallowed === 2")
        time.sleep(0.5)
        assert "f or shift+click on a cell floods it" in flooding.said
        # A hand that trembles while it clicks does not drag.
        hand.point(*XY_CENTRE)
        hand.shift_click(by=(2, 1))
        flooding.until_said("Enter keeps it as 1")


@pytest.mark.slow
def test_shift_drag_still_moves_the_3d_view(shown):
    with shown() as flooding:
        position = flooding.page.state()["position"]
        flooding.hand._chain().w3c_actions.pointer_action.move_to_location(175, 450)
        chain = flooding.hand._chain()
        chain.w3c_actions.pointer_action.move_to_location(175, 450)
        chain.perform()
        flooding.hand.shift_click(by=(40, 20))
        until(lambda: flooding.page.state()["position"] != position)
        assert "f or shift+click on a cell floods it" in flooding.said


CLIENTS_OWN = {
    "l": "recolor",
    "x": "clear-segments",
    "s": "toggle-show-slices",
    "b": "toggle-scale-bar",
    "a": "toggle-axis-lines",
    "o": "toggle-orthographic-projection",
    "v": "toggle-default-annotations",
    "z": "snap",
    "r": "rotate-relative-z-",
    "e": "rotate-relative-z+",
    ",": "z-",
    ".": "z+",
    " ": "toggle-layout",
    "\ue012": "x-",
    "\ue014": "x+",
    "\ue013": "y-",
    "\ue015": "y+",
    "1": "toggle-layer-1",
}
WHEN_NOTHING_IS_PENDING = {"\ue006": "finish-annotation", "\ue003": "undo-annotation-step"}
OURS = ("floodem-flood", "floodem-keep", "floodem-take-back", "floodem-stop", "floodem-undo")


def pressed(flooding, keys):
    """Which actions keys start, in the page."""
    names = [*CLIENTS_OWN.values(), *WHEN_NOTHING_IS_PENDING.values(), *OURS, "help"]
    flooding.page.run(
        """
        window.started = [];
        for (const name of arguments[0]) {
          viewer.element.addEventListener("action:" + name, (e) => {
            window.started.push(name);
          }, true);
        }
        """,
        sorted(set(names)),
    )
    found = {}
    for key in keys:
        flooding.page.run("window.started = []")
        flooding.hand.point(*XY_CENTRE)
        flooding.hand.press(key)
        found[key] = list(dict.fromkeys(flooding.page.run("return window.started")))
        if key == " ":
            flooding.hand.press(key)  # back to four panels
    return found


@pytest.mark.parametrize("is_pending", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_clients_own_keys_do_what_they_do_without_us(shown, is_pending):
    own = dict(CLIENTS_OWN)
    if not is_pending:
        own |= WHEN_NOTHING_IS_PENDING
    with shown() as flooding:
        if is_pending:
            flooding.hand.point(*XY_CENTRE)
            flooding.hand.press("f")
            flooding.until_said("Enter keeps it as 1")
        assert pressed(flooding, own) == {key: [action] for key, action in own.items()}
        if not is_pending:
            assert pressed(flooding, ["\ue00c"]) == {"\ue00c": []}
        assert pressed(flooding, ["h"]) == {"h": ["help"]}


def test_while_a_flood_is_pending_three_keys_are_ours_and_then_the_clients_again(shown):
    with shown() as flooding:
        for key, action in (("\ue006", "floodem-keep"), ("\ue003", "floodem-take-back")):
            flooding.hand.point(*XY_CENTRE)
            flooding.hand.press("f")
            flooding.until_said("Enter keeps it as 1, ")
            assert pressed(flooding, ["\ue00c", key]) == {"\ue00c": ["floodem-stop"], key: [action]}
            flooding.until_said("kept as" if action == "floodem-keep" else "taken back")
            assert pressed(flooding, [key]) == {key: [WHEN_NOTHING_IS_PENDING[key]]}
            if action == "floodem-keep":
                flooding.hand.press("u")
                flooding.until_said("took back")


@pytest.mark.slow
def test_enter_in_a_text_field_is_not_ours(shown):
    with shown() as flooding:
        flooding.hand.point(*XY_CENTRE)
        flooding.hand.press("f")
        flooding.until_said("Enter keeps it as 1")
        flooding.page.run(
            """
            const field = document.createElement("input");
            viewer.element.querySelector(".neuroglancer-viewer-top-row").append(field);
            field.focus();
            """
        )
        flooding.hand.press("a\ue003b\ue006")
        time.sleep(0.5)
        assert "Enter keeps it as 1" in flooding.said


@pytest.mark.slow
def test_several_clicks_wait_in_line(shown):
    with shown() as flooding:
        page, hand = flooding.page, flooding.hand
        flooding.slow_down(0.03)
        hand.point(*XY_CENTRE)
        hand.press("f")
        flooding.until_said("flooding from")
        down = SECOND_TUBE[1] - TUBE[1]
        page.run(
            "viewer.position.value = Float32Array.of(...arguments[0])",
            [place + 0.5 for place in SECOND_TUBE[::-1]],
        )
        assert down > 0
        page.wait_drawn(layers=3)
        hand.point(*XY_CENTRE)
        hand.press("f")
        flooding.until_said("1 more waiting")
        flooding.until_said("done: ")
        hand.press("\ue006")
        flooding.until_said("Enter keeps it as 2")
        hand.press("\ue006")
        flooding.until_said("kept as 2")
        assert [flood.seed for flood in flooding.clicking.kept.floods] == [TUBE, SECOND_TUBE]
        until(lambda: flooding.selected() == [1, 2])


@contextmanager
def server(*arguments):
    """A viewer in another process, to be killed."""
    command = [sys.executable, clicking_server.__file__, *map(str, arguments)]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield running, running.stdout.readline().strip()
    finally:
        running.kill()
        running.wait(timeout=30)
        running.stdout.close()


@pytest.mark.parametrize("how", ["kill", pytest.param("send_signal", marks=pytest.mark.slow)])
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_page_whose_server_has_ended_says_so(chromium, tmp_path, how):
    with server(tmp_path / "k.zarr") as (running, address):
        page = chromium.open(address, size_wh=SIZE_WH)
        page.wait_drawn(layers=3)
        flooding = FloodingPage(page, Hand(chromium.driver, page), None, None)
        flooding.hand.point(*XY_CENTRE)
        flooding.hand.press("f")
        flooding.until_said("Enter keeps it as 1")
        if how == "kill":
            running.kill()
        else:
            running.send_signal(signal.SIGINT)
        flooding.until_said("floodem has ended: start it again and open the new address")
        assert "Enter keeps it" not in flooding.said


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_what_was_kept_is_there_after_the_server_was_killed(chromium, tmp_path):
    keep = tmp_path / "k.zarr"
    made = floodem.flood_at(tubes(), TUBE, model=bright_model(), request=ON_CPU)
    for press, said, expected in (
        ("f\ue006", "kept as 1", made.mask),
        ("f", "nothing new", made.mask),
        ("u", "took back the last flood of 1", made.mask & False),
    ):
        with server(keep) as (running, address):
            page = chromium.open(address, size_wh=SIZE_WH)
            page.wait_drawn(layers=3)
            flooding = FloodingPage(page, Hand(chromium.driver, page), None, None)
            flooding.hand.point(*XY_CENTRE)
            for key in press:
                if key == "\ue006":
                    flooding.until_said("Enter keeps it as 1")
                flooding.hand.press(key)
            flooding.until_said(said)
            running.kill()
            running.wait(timeout=30)
        with KeptFloods(keep, image=tubes()) as kept:
            np.testing.assert_array_equal(kept.read(kept.box) == 1, expected)


@pytest.fixture(scope="module")
def fib25(shared_data, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "fib25.safetensors"
    model = import_tensorflow_model(
        shared_data / "fib25" / "model.ckpt-27465036",
        fov=(33, 33, 33),
        deltas=(8, 8, 8),
        image_mean=128,
        image_stddev=33,
        voxel_size=VoxelSize(10, 10, 10),
    )
    save_model(model, path)
    return path


@pytest.mark.slow
def test_a_real_click_with_the_published_network_equals_the_python_call(
    shown, shared_data, fib25, tmp_path
):
    image = open_volume(shared_data / "golden" / "fib25-image.h5@raw")
    seed = (18, 21, 33)
    window = (1200, 900)
    with shown(
        image, model=fib25, at=seed, size_wh=window, voxel_size=VoxelSize(10, 10, 10)
    ) as flooding:
        hand = flooding.hand
        hand.point(window[0] // 4, 46 + (window[1] - 46) // 4)
        began = time.monotonic()
        hand.shift_click()
        until(lambda: flooding.clicking._screen._growing.now is not None)
        print(f"first growth {time.monotonic() - began:.2f} s after the click")
        flooding.until_said("network calls", within_s=120)
        flooding.page.save("click-growing")
        flooding.until_said("done: ", within_s=300)
        time.sleep(2)
        flooding.page.save("click-done")
        hand.press("\ue006")
        flooding.until_said("kept as 1", within_s=30)
        until(lambda: flooding.selected() == [1])
        flooding.page.wait_drawn(layers=3)
        time.sleep(1)
        flooding.page.save("click-kept")
        flood = flooding.clicking.kept.floods[0]
        assert all(abs(a - b) <= 1 for a, b in zip(flood.seed, seed, strict=True))
        made = floodem.flood_at(image, flood.seed, model=fib25, request=ON_CPU)
        with open_volume(tmp_path / "k.zarr") as volume:
            labels = volume.read()
            assert volume.voxel_size == VoxelSize(10, 10, 10)
        np.testing.assert_array_equal(labels == 1, made.mask)
        assert made.voxels > 50_000
        assert (flood.calls, flood.voxels) == (made.calls, made.voxels)
    image.close()
