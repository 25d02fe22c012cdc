"""A viewer that floods, asked over HTTP as its page asks: actions in, chunks, meshes, state out."""

from __future__ import annotations

import io
import json
import time
import urllib.error
import urllib.request
import zlib
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import floodem
from array_volume import ArrayVolume
from bright import bright_model
from clicking_cases import DARK, OFFSET, ON_CPU, SECOND_TUBE, SIZE, TUBE, tubes, until
from floodem.errors import (
    OptionError,
    RunConflictError,
    VolumeFormatError,
    VolumeNotFoundError,
)
from floodem.flooding.request import SegmentRequest
from floodem.geometry import Box, VoxelSize
from floodem.shapes.meshes.mesh import Mesh
from floodem.viewer import view
from floodem.viewer.clicking import ClickToFlood, Obstacle
from floodem.viewer.clicking.drawing import PENDING, Growing, Snapshot, mesh_of
from floodem.viewer.clicking.live_labels import LiveFrame, encode_mesh, live_labels
from floodem.viewer.clicking.pace import SHOW_AT_LEAST_EVERY_S
from floodem.viewer.clicking.pointing import voxel_under_mouse

neuroglancer = pytest.importorskip("neuroglancer")


class Asked:
    """What a page can ask of a viewer that floods."""

    def __init__(self, viewer, clicking):
        self.viewer, self.clicking = viewer, clicking
        self.client = viewer.client

    def url(self, path):
        return f"{self.viewer.site.address}/{path}"

    def act(self, action, voxel=None, **more):
        """Post an action as the page does, with the mouse in the middle of a voxel."""
        state = {"viewerState": self.client.state.to_json(), "selectedValues": {}, **more}
        if voxel is not None:
            state["mousePosition"] = [at + 0.5 for at in voxel[::-1]]
        body = json.dumps({"action": action, "state": state}).encode()
        request = urllib.request.Request(self.url(f"action/{self.client.token}"), data=body)
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 200

    def get(self, path):
        with urllib.request.urlopen(self.url(path), timeout=10) as answer:
            return answer.read()

    @property
    def said(self):
        return self.client.config_state.state.status_messages.get("floodem", "")

    def bindings(self):
        return dict(self.client.config_state.state.input_event_bindings.data_view.items())

    def keys(self, layer):
        """The volumes of a layer: slices, meshes."""
        sources = self.client.state.layers[layer].source
        return [source.url.removeprefix("python://volume/") for source in sources]

    def generation(self, key):
        return self.client.config_state.state.source_generations.get(key, 0)

    def labels(self, layer):
        """All voxels of a layer, z, y, x, as the page loads them."""
        key = self.keys(layer)[0]
        info = json.loads(self.get(f"neuroglancer/info/{key}"))
        shape = ",".join(str(edge) for edge in info["shape"])
        return chunk(self.get(f"neuroglancer/npz/{key}/1,1,1/0,0,0/{shape}"))

    def mesh(self, layer, label):
        return mesh_in(self.get(f"neuroglancer/mesh/{self.keys(layer)[1]}/{label}"))


def chunk(data):
    return np.load(io.BytesIO(zlib.decompress(data)), allow_pickle=False).T


def mesh_in(data):
    count = int.from_bytes(data[:4], "little")
    vertices = np.frombuffer(data, "<f4", 3 * count, 4).reshape(-1, 3)
    return vertices, np.frombuffer(data, "<u4", -1, 4 + 12 * count).reshape(-1, 3)


@pytest.fixture
def volume():
    return tubes()


@pytest.fixture
def page(tmp_path, volume):
    viewer = view(volume)
    with ClickToFlood(
        viewer.client, volume, model=bright_model(), keep=tmp_path / "k.zarr", request=ON_CPU
    ) as clicking:
        asked = Asked(viewer, clicking)
        until(lambda: "f or shift+click" in asked.said)
        yield asked
    viewer.close()


def flooded(page, voxel=TUBE):
    page.act("floodem-flood", voxel)
    until(lambda: page.said.startswith("done"))


def test_an_action_floods_from_the_voxel_under_the_mouse(page, volume):
    flooded(page)
    alone = floodem.flood_at(volume, TUBE, model=bright_model(), request=ON_CPU)
    np.testing.assert_array_equal(page.labels("flood") == PENDING, alone.mask)


def test_a_page_that_draws_slowly_is_shown_growth_and_its_mesh_less_often(page, monkeypatch):
    def shown():
        before = [page.generation(key) for key in page.keys("flood")]
        flooded(page)
        page.act("floodem-take-back")
        until(lambda: page.said.startswith("taken back"))
        after = [page.generation(key) for key in page.keys("flood")]
        return np.subtract(after, before)

    network = page.clicking._line._flooder._predictor
    predict = network.predict
    monkeypatch.setattr(network, "predict", lambda *a: (time.sleep(0.1), predict(*a))[1])
    quick, _ = shown()
    for _ in range(10):
        page.act("floodem-drawn", drawnForS=1)
    pace = page.clicking._screen._pace
    until(lambda: pace.every_s == SHOW_AT_LEAST_EVERY_S)
    slow, slow_mesh = shown()
    ends = 2  # what was flooded, and nothing
    assert slow - ends <= 0.6 * (quick - ends)
    assert ends <= slow_mesh < slow


def test_pages_are_told_to_load_anew_whenever_something_changes(page):
    slices, meshes = page.keys("flood")
    before = page.generation(slices)
    flooded(page)
    grown = page.generation(slices)
    assert grown >= before + 2
    assert page.generation(meshes) == grown
    kept = page.keys("kept floods")[0]
    assert page.generation(kept) == 0
    page.act("floodem-keep")
    until(lambda: page.said.startswith("kept as 1"))
    assert page.generation(kept) == 1
    assert page.generation(slices) == grown + 1


def test_the_state_that_belongs_to_the_page_is_left_alone(page):
    generation = page.client.shared_state.state_generation
    flooded(page)
    page.act("floodem-keep")
    until(lambda: page.said.startswith("kept as 1"))
    page.act("floodem-undo")
    until(lambda: page.said.startswith("took back"))
    assert page.client.shared_state.state_generation == generation


def test_keep_take_back_and_undo_show_in_their_layers(page):
    flooded(page)
    grown = page.labels("flood") == PENDING
    assert not page.labels("kept floods").any()
    page.act("floodem-keep")
    until(lambda: page.said.startswith("kept as 1"))
    assert not page.labels("flood").any()
    np.testing.assert_array_equal(page.labels("kept floods") == 1, grown)
    flooded(page, SECOND_TUBE)
    page.act("floodem-take-back")
    until(lambda: page.said.startswith("taken back"))
    assert not page.labels("flood").any()
    page.act("floodem-undo")
    until(lambda: page.said.startswith("took back the last flood of 1"))
    assert not page.labels("kept floods").any()


def test_meshes_lie_where_the_voxels_are(page):
    flooded(page)
    mask = page.labels("flood") == PENDING
    page.act("floodem-keep")
    until(lambda: page.said.startswith("kept as 1"))
    vertices, faces = page.mesh("kept floods", 1)
    edges_m = np.array(SIZE.zyx_nm[::-1]) * 1e-9
    inside = np.argwhere(mask)
    np.testing.assert_allclose(vertices.min(axis=0), inside.min(axis=0)[::-1] * edges_m, rtol=1e-5)
    np.testing.assert_allclose(
        vertices.max(axis=0), (inside.max(axis=0) + 1)[::-1] * edges_m, rtol=1e-5
    )
    a, b, c = (vertices.astype(float)[faces[:, corner]] for corner in range(3))
    enclosed = np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6
    assert enclosed == pytest.approx(mask.sum() * np.prod(edges_m), rel=0.1)
    assert len(page.mesh("flood", PENDING)[0]) == len(page.mesh("kept floods", 2)[0]) == 0


def test_the_page_is_told_which_objects_are_kept(page):
    key = page.keys("kept floods")[1]

    def notes():
        return json.loads(page.get(f"neuroglancer/info/{key}"))["floodem"]

    assert notes() == {"layer": "kept floods", "segments": []}
    flooded(page)
    page.act("floodem-keep")
    until(lambda: page.said.startswith("kept as 1"))
    assert notes()["segments"] == ["1"]


def test_the_page_is_told_which_flood_is_shown_so_that_it_selects_each(page):
    def notes():
        told = [
            json.loads(page.get(f"neuroglancer/info/{key}"))["floodem"]
            for key in page.keys("flood")
        ]
        assert told[0] == told[1]
        return told[0]

    assert notes() == {"layer": "flood", "segments": ["1"], "number": 0}
    for number in (1, 2):
        flooded(page)
        assert notes()["number"] == number
        page.act("floodem-take-back")
        until(lambda: page.said.startswith("taken back"))
        assert notes()["number"] == number


def test_objects_kept_earlier_are_shown_from_the_beginning(tmp_path, volume):
    for number in range(2):
        viewer = view(volume)
        with ClickToFlood(
            viewer.client, volume, model=bright_model(), keep=tmp_path / "k.zarr", request=ON_CPU
        ) as clicking:
            page = Asked(viewer, clicking)
            assert sorted(viewer.client.state.layers["kept floods"].segments) == [1] * number
            if number == 0:
                flooded(page)
                page.act("floodem-keep")
                until(lambda: page.said.startswith("kept as 1"))  # noqa: B023 - called here
        viewer.close()


def test_enter_escape_and_backspace_are_ours_only_while_a_flood_is_pending(page):
    always = {
        "keyf": "floodem-flood",
        "shift+click0": "floodem-flood",
        "keyu": "floodem-undo",
    }
    deciding = {
        "escape": "floodem-stop",
        "enter": "floodem-keep",
        "numpadenter": "floodem-keep",
        "backspace": "floodem-take-back",
    }
    assert page.bindings() == always
    flooded(page)
    assert page.bindings() == {**always, **deciding}
    page.act("floodem-take-back")
    until(lambda: page.said.startswith("taken back"))
    assert page.bindings() == always
    state = page.client.config_state.state.input_event_bindings
    assert len(state.viewer) == len(state.slice_view) == len(state.perspective_view) == 0


def test_bindings_of_others_are_left_alone(page):
    with page.client.config_state.txn() as state:
        state.input_event_bindings.data_view["keyq"] = "quit"
        state.input_event_bindings.viewer["keyw"] = "wait"
        state.status_messages["mine"] = "hello"
    flooded(page)
    page.act("floodem-take-back")
    until(lambda: page.said.startswith("taken back"))
    page.clicking.close()
    state = page.client.config_state.state
    assert dict(state.input_event_bindings.data_view.items()) == {"keyq": "quit"}
    assert dict(state.input_event_bindings.viewer.items()) == {"keyw": "wait"}
    assert dict(state.status_messages.items()) == {"mine": "hello"}


@pytest.mark.parametrize(
    ("voxel", "says"),
    [
        (None, "the mouse points at nothing"),
        ((0, 0, 0), "0,0,0 (z,y,x) is outside of the image, which is 100:124,200:240,300:364"),
        (DARK, "the network sees no object at 112,213,320"),
    ],
)
def test_a_place_where_nothing_can_be_is_said(page, voxel, says):
    page.act("floodem-flood", voxel)
    until(lambda: says in page.said)


def test_actions_are_answered_while_a_flood_grows(page, monkeypatch):
    slow = page.clicking._line._flooder._predictor
    predict = slow.predict
    monkeypatch.setattr(slow, "predict", lambda *a: (time.sleep(0.1), predict(*a))[1])
    page.act("floodem-flood", TUBE)
    until(lambda: page.said.startswith("flooding"))
    began = time.monotonic()
    for _ in range(5):
        page.act("floodem-flood", SECOND_TUBE)
        page.labels("flood")
    assert time.monotonic() - began < 1.0
    page.act("floodem-stop")
    until(lambda: "5 more waiting" in page.said)


@pytest.mark.parametrize(
    "path",
    [
        "npz/{}/1,1,1/0,0,0/65,40,24",
        "npz/{}/1,1,1/5,0,0/5,40,24",
        "npz/{}/0,1,1/0,0,0/1,1,1",
        "npz/{}/9999999,1,1/0,0,0/1,1,1",
        "npz/{}/1,1/0,0,0/1,1,1",
        "npz/{}/1,1,1/0,0/1,1",
        "npz/{}/2,2,2/0,0,0/33,20,12",
        "npz/{}/a,b,c/0,0,0/1,1,1",
    ],
)
def test_chunks_that_are_not_there_are_refused(page, path):
    for layer in ("flood", "kept floods"):
        for key in page.keys(layer):
            with pytest.raises(urllib.error.HTTPError) as refused:
                page.get("neuroglancer/" + path.format(key))
            refused.value.close()
            assert refused.value.code in {400, 404}
    flooded(page)


def test_a_click_finds_its_voxel_in_a_picture_with_other_voxels(tmp_path, volume):
    coarse = ArrayVolume(np.zeros((9, 9, 9), np.uint8), voxel_size=VoxelSize(60, 12, 12))
    viewer = view(coarse, volume)
    with ClickToFlood(
        viewer.client, volume, model=bright_model(), keep=tmp_path / "k.zarr", request=ON_CPU
    ) as clicking:
        page = Asked(viewer, clicking)
        state = {"viewerState": {}, "mousePosition": [(at + 0.5) / 2 for at in TUBE[::-1]]}
        page.act("floodem-flood", **state)
        until(lambda: page.said.startswith("done"))
        page.act("floodem-keep")
        until(lambda: page.said.startswith("kept"))
        assert clicking.kept.floods[0].seed == TUBE
    viewer.close()


def test_what_is_shown_along_is_respected_when_its_voxels_are_the_images(tmp_path, volume):
    labels = np.zeros(volume.shape, np.uint32)
    labels[:, :, 40:] = 17
    same = Obstacle(name="a", volume=ArrayVolume(labels, offset=OFFSET, voxel_size=SIZE))
    other = Obstacle(name="b", volume=ArrayVolume(labels, voxel_size=VoxelSize(1, 1, 1)))
    viewer = view(volume)
    with ClickToFlood(
        viewer.client,
        volume,
        model=bright_model(),
        keep=tmp_path / "k.zarr",
        obstacles=[same, other],
        request=ON_CPU,
    ) as clicking:
        page = Asked(viewer, clicking)
        assert clicking.notes == (
            "b has voxels of 1,1,1 nm (z,y,x) and the image has 30,6,6: floods do not see it",
        )
        flooded(page)
        grown = page.labels("flood")
        assert grown[:, :, :40].any()
        assert not grown[:, :, 40:].any()
    viewer.close()


@pytest.mark.parametrize(
    ("stated", "given_by_user", "trained_on", "says"),
    [
        (SIZE, None, SIZE, ()),
        (SIZE, None, VoxelSize(33, 6, 6), ()),
        (SIZE, None, VoxelSize(1, 1, 1), ()),
        (None, None, VoxelSize(1, 1, 1), ()),
        (None, SIZE, SIZE, ()),
        (SIZE, None, VoxelSize(10, 6, 6), ("voxels of 30,6,6 nm", "trained on 10,6,6 nm")),
        (None, SIZE, VoxelSize(30, 4, 4), ("voxels of 30,6,6 nm", "trained on 30,4,4 nm")),
        (None, None, VoxelSize(10, 8, 8), ("states no voxel size", "on 10,8,8 nm", "--voxel-size")),
    ],
)
def test_voxels_that_the_network_does_not_know_are_noted(
    tmp_path, stated, given_by_user, trained_on, says
):
    model = bright_model()
    model = replace(model, description=replace(model.description, voxel_size=trained_on))
    image = ArrayVolume(np.zeros((24, 40, 64), np.uint8), voxel_size=stated)
    viewer = view(image, voxel_size=given_by_user)
    with ClickToFlood(
        viewer.client,
        image,
        model=model,
        keep=tmp_path / "k.zarr",
        request=ON_CPU,
        voxel_size=given_by_user,
    ) as clicking:
        assert len(clicking.notes) == bool(says)
        assert all(part in clicking.notes[0] for part in says)
    viewer.close()


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"model": "nobody"}, VolumeNotFoundError),
        ({"keep": "floods.h5@labels"}, VolumeFormatError),
        ({"request": SegmentRequest(device="quick")}, OptionError),
    ],
)
def test_what_cannot_be_is_refused_at_once_and_changes_nothing(
    tmp_path, volume, monkeypatch, changes, error
):
    monkeypatch.chdir(tmp_path)
    viewer = view(volume)
    before = viewer.client.state.to_json()
    options = {"model": bright_model(), "keep": "k.zarr", "request": ON_CPU, **changes}
    with pytest.raises(error):
        ClickToFlood(viewer.client, volume, **options)
    assert viewer.client.state.to_json() == before
    assert len(viewer.client.config_state.state.input_event_bindings.data_view) == 0
    assert list(tmp_path.iterdir()) == []
    viewer.close()


def test_two_viewers_do_not_keep_in_one_place(tmp_path, volume):
    viewer = view(volume)
    options = {"model": bright_model(), "keep": tmp_path / "k.zarr", "request": ON_CPU}
    with (
        ClickToFlood(viewer.client, volume, **options),
        pytest.raises(RunConflictError, match="another process is working on"),
    ):
        # It is said before the network is looked for, which takes long.
        ClickToFlood(viewer.client, volume, **{**options, "model": "nobody"})
    viewer.close()


BOX = Box((3, 5, 7), (43, 38, 61))
FRAME = LiveFrame(box=BOX, voxel_size=VoxelSize(30, 6, 6), scales_xyz=(6e-9, 6e-9, 3e-8), unit="m")


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_every_level_of_a_live_volume_is_every_nth_voxel(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    inner = Box((10, 10, 10), (31, 22, 50))
    growing = Growing(FRAME.voxel_size, layer="flood")
    growing.show(Snapshot(inner, rng.random(inner.shape) > 0.5))
    whole = np.zeros(BOX.shape, np.uint8)
    whole[inner.slices(origin=BOX.start)] = growing.now.mask
    step = data.draw(st.tuples(*[st.integers(1, 9)] * 3))
    expected = whole[:: step[0], :: step[1], :: step[2]]
    start = [data.draw(st.integers(0, edge - 1)) for edge in expected.shape]
    stop = [data.draw(st.integers(a + 1, e)) for a, e in zip(start, expected.shape, strict=True)]
    made, _ = live_labels(growing, FRAME, in_planes=True).get_encoded_subvolume(
        "npz", np.array(start[::-1]), np.array(stop[::-1]), ",".join(map(str, step[::-1]))
    )
    window = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    np.testing.assert_array_equal(chunk(made), expected[window])


def test_meshes_count_from_the_first_corner_of_their_volume():
    corner = np.array(BOX.start) * np.array(FRAME.voxel_size.zyx_nm)
    vertices = (np.array([[0, 0, 0], [30, 0, 0], [0, 12, 0]]) + corner).astype(np.float32)
    made, faces = mesh_in(encode_mesh(Mesh(vertices, np.array([[0, 1, 2]], np.uint32)), FRAME))
    np.testing.assert_allclose(made, [[0, 0, 0], [0, 0, 3e-8], [0, 12e-9, 0]], atol=1e-12)
    assert sorted(faces[0]) == [0, 1, 2]


def test_large_masks_are_meshed_coarsely_and_thin_parts_stay(monkeypatch):
    mask = np.zeros((40, 41, 42), bool)
    mask[20, 20, :] = True
    fine = mesh_of(mask, start=(1, 2, 3), voxel_size=SIZE)
    monkeypatch.setattr("floodem.viewer.clicking.drawing.FINE_VOXELS", 10_000)
    coarse = mesh_of(mask, start=(1, 2, 3), voxel_size=SIZE)
    assert 0 < len(coarse.faces) < len(fine.faces)
    spans = np.ptp(coarse.vertices_zyx_nm, axis=0) / np.ptp(fine.vertices_zyx_nm, axis=0)
    np.testing.assert_allclose(spans, [2, 2, 1], atol=0.05)
    assert mesh_of(np.zeros((4, 4, 4), bool), start=(0, 0, 0), voxel_size=SIZE) is None


@pytest.mark.parametrize(
    ("place", "names", "voxel"),
    [
        ([33.0, 21.99, 18.5], "xyz", (18, 21, 33)),
        ([-0.5, 0, 0], "xyz", (0, 0, -1)),
        ([18.5, 21.5, 33.5], "zyx", (18, 21, 33)),
        ([33.5, 21.5, 18.5, 7], "xyzt", (18, 21, 33)),
        ([33.5, float("nan"), 18.5], "xyz", None),
        ([33.5, 21.5], "xyz", None),
        ([33.5, 21.5, 18.5], "abc", None),
        (None, "xyz", None),
    ],
)
def test_the_voxel_under_the_mouse_is_found_by_the_names_of_axes(place, names, voxel):
    state = SimpleNamespace(mouse_position=None if place is None else np.array(place))
    dimensions = SimpleNamespace(names=tuple(names), scales=[2.0] * len(names))
    assert voxel_under_mouse(state, dimensions, scales_xyz=(2.0, 2.0, 2.0)) == voxel
