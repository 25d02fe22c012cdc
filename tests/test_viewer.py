"""Looking at volumes: what becomes a layer, where it lies, and what a browser draws of it."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from floodem.cli.view import parse_size
from floodem.errors import DependencyError, LabelError, OptionError, ResourceError, UsageError
from floodem.geometry import Box, VoxelSize
from floodem.shapes.meshes.marching import object_meshes
from floodem.shapes.precomputed import decode_legacy_fragment
from floodem.viewer import Kind, Layer, Look, Viewer, first_look, layers, save_screenshot, view
from floodem.viewer.first_look import zoom_to
from floodem.viewer.layers import (
    grey_range,
    guess_kind,
    largest_objects,
    objects_at_first,
    unique_names,
)
from floodem.viewer.objects import ObjectMeshes
from floodem.viewer.opening import split_kind
from floodem.viewer.screenshot import _draw, find_browser
from floodem.viewer.serving import Site
from floodem.volumes import create_volume
from viewer_cases import OFFSET, MemoryVolume, noise, two_objects

SIZE = VoxelSize(30, 6, 6)


def layer(volume, kind, name="layer"):
    return Layer(volume, kind, name)


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (noise(np.uint8), Kind.IMAGE),
        (noise(np.uint16), Kind.IMAGE),
        (noise(np.float32), Kind.IMAGE),
        (two_objects(np.uint8), Kind.SEGMENTATION),
        (two_objects(np.int16), Kind.SEGMENTATION),
        (noise(np.uint32), Kind.SEGMENTATION),
        (noise(np.int64), Kind.SEGMENTATION),
        (np.zeros((3, 3, 3), np.uint8), Kind.IMAGE),
    ],
)
def test_labels_are_told_from_images(array, kind):
    assert guess_kind(MemoryVolume(array)) is kind


def test_the_kind_of_a_large_volume_is_told_from_its_middle():
    volume = MemoryVolume(np.broadcast_to(np.uint8(1), (300, 70, 10)))
    guess_kind(volume)
    assert [box.shape for box in volume.boxes_read] == [(64, 64, 10)]


def test_grey_range_spans_the_values_and_not_the_padding():
    image = noise(np.uint16)
    image[:2] = 0
    low, high = grey_range(MemoryVolume(image))
    assert 40 <= low <= 42
    assert 207 <= high <= 209
    assert grey_range(MemoryVolume(np.zeros((4, 4, 4), np.uint8))) is None


def test_largest_objects_come_first_without_background():
    assert largest_objects(two_objects(np.uint8), count=5) == [7, 200]
    assert largest_objects(two_objects(np.uint8), count=1) == [7]


def objects_of(*voxels, edge=20):
    """Return labels 1, 2, ... of so many voxels each."""
    labels = np.repeat(np.arange(1, len(voxels) + 1), voxels)
    return np.pad(labels, (0, edge**3 - labels.size)).reshape(edge, edge, edge)


def test_in_3d_a_crowded_volume_shows_a_few_objects_that_hide_no_others():
    crowded = objects_of(3000, 600, *range(200, 180, -2), *[9] * 50)
    assert objects_at_first(crowded) == list(range(3, 11))


def test_in_3d_the_largest_objects_are_shown_where_others_are_crumbs():
    sparse = objects_of(3000, 600, *[9] * 50)
    assert objects_at_first(sparse) == list(range(1, 9))
    assert objects_at_first(objects_of(3000, 600, 200)) == [1, 2, 3]
    assert objects_at_first(np.zeros((2, 2, 2), np.uint32)) == []


def test_layers_of_one_name_are_numbered():
    uris = ["/a/em.h5@raw", r"C:\b\em.h5@raw", "s3://bucket/seg/", "em.h5@raw"]
    assert unique_names(uris) == ["em.h5@raw", "em.h5@raw (2)", "seg", "em.h5@raw (3)"]


@given(
    st.tuples(*[st.integers(1, 1500)] * 3),
    st.tuples(*[st.sampled_from([4.0, 8.0, 30.0])] * 3),
    st.tuples(st.integers(200, 3000), st.integers(200, 3000)),
)
def test_data_fill_the_panels_without_being_cut(shape, voxel_nm, window):
    size = VoxelSize(*voxel_nm)
    slices, _ = zoom_to(Box.from_shape(shape), size, view_size_wh=window)
    nm_per_pixel = slices * min(voxel_nm)
    z, y, x = (edge * nm / nm_per_pixel for edge, nm in zip(shape, voxel_nm, strict=True))
    width, height = window[0] / 2, window[1] / 2
    share = max(x / width, z / width, y / height, z / height)
    if slices < 4:
        assert share == pytest.approx(0.9)
    else:
        assert share >= 0.9


def test_zoom_counts_in_voxels_of_the_picture():
    box, window = Box.from_shape((40, 40, 40)), (800, 600)
    own = zoom_to(box, VoxelSize(8, 8, 8), view_size_wh=window)
    finer = zoom_to(box, VoxelSize(8, 8, 8), view_size_wh=window, frame=VoxelSize(30, 4, 4))
    assert finer == pytest.approx((own[0] * 2, own[1] * 2))


@pytest.mark.parametrize("text", ["1400", "x900", "0x9", "1400x900x3", "-1x5", "1e3x5", "123456x1"])
def test_window_sizes_that_are_none_are_refused(text):
    with pytest.raises(OptionError, match="is not WIDTHxHEIGHT"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "kind", "uri"),
    [
        ("segmentation=a.h5", "segmentation", "a.h5"),
        ("image=s3://b/x=1", "image", "s3://b/x=1"),
        ("s3://b/x=1", None, "s3://b/x=1"),
    ],
)
def test_a_layer_may_say_how_to_be_shown(text, kind, uri):
    assert split_kind(text) == (kind, uri)


@pytest.fixture
def state():
    return pytest.importorskip("neuroglancer").ViewerState()


@pytest.fixture
def fill():
    """Put layers into a state, in a window of 800 x 600."""
    pytest.importorskip("neuroglancer")
    with Site.start() as site:

        def put(state, shown, **options):
            settings = {"voxel_size": None, "view_size_wh": (800, 600), "site": site} | options
            first_look.fill(state, shown, **settings)

        yield put


def info_of(source):
    """What the server says of a source that it serves."""
    address = source.url.removeprefix("precomputed://")
    with urllib.request.urlopen(f"{address}/info", timeout=10) as answer:
        return json.loads(answer.read())


def test_layers_lie_where_their_volumes_do(state, fill):
    size = VoxelSize(30, 6, 5)
    shown = [
        layer(MemoryVolume(noise(np.uint8), voxel_size=size), Kind.IMAGE, "em"),
        layer(MemoryVolume(two_objects(np.uint8)), Kind.SEGMENTATION, "objects"),
    ]
    fill(state, shown)
    assert list(state.dimensions.names) == ["x", "y", "z"]
    assert list(state.dimensions.scales) == pytest.approx([5e-9, 6e-9, 30e-9])
    assert list(state.position) == [720.5, 75.5, 15.5]
    for name in ("em", "objects"):
        info = info_of(state.layers[name].source[0])
        assert info["scales"][0]["voxel_offset"] == [700, 60, 5]
        assert info["scales"][0]["resolution"] == [5, 6, 30]
    assert list(state.layers["objects"].segments) == [7, 200]
    assert info["mesh"]


def test_the_first_look_is_at_what_was_segmented(state, fill):
    image = MemoryVolume(noise(np.uint8, shape=(250, 250, 250)), offset=(0, 0, 0))
    labels = np.zeros((56, 56, 56), np.uint32)
    labels[2:12, 40:50, 6:16] = 1
    labels[30, 30, 30] = 2
    seg = MemoryVolume(labels, offset=(150, 20, 20))
    shown = [layer(image, Kind.IMAGE, "em"), layer(seg, Kind.SEGMENTATION, "seg")]
    fill(state, shown)
    x, y, z = (int(at) for at in state.position)
    assert labels[z - 150, y - 20, x - 20] == 1
    expected = zoom_to(seg.box, VoxelSize(1, 1, 1), view_size_wh=(800, 600))
    assert (state.cross_section_scale, state.projection_scale) == expected


def test_a_large_segmentation_is_looked_at_where_it_overlaps_the_image(state, fill, monkeypatch):
    monkeypatch.setattr(layers, "MESH_VOXELS", 10)
    image = MemoryVolume(
        noise(np.uint8, shape=(10, 10, 10)), offset=(10, 0, 20), voxel_size=VoxelSize(20, 10, 10)
    )
    seg = MemoryVolume(
        np.ones((90, 80, 80), np.uint32), offset=(0, 0, 0), voxel_size=VoxelSize(10, 10, 10)
    )
    shown = [layer(seg, Kind.SEGMENTATION, "seg"), layer(image, Kind.IMAGE, "em")]
    fill(state, shown)
    assert list(state.position) == [25.5, 5.5, 30.5]
    assert all(box.size <= 64**3 for box in seg.boxes_read)


def test_images_lie_below_segmentations_in_whatever_order_they_are_given(state, fill):
    seg = layer(MemoryVolume(two_objects(np.uint32)), Kind.SEGMENTATION, "seg")
    image = layer(MemoryVolume(noise(np.uint8)), Kind.IMAGE, "em")
    fill(state, [seg, image])
    assert [shown.name for shown in state.layers] == ["em", "seg"]


def test_an_empty_segmentation_is_looked_at_in_its_middle(state, fill):
    seg = layer(MemoryVolume(np.zeros((20, 30, 40), np.uint32)), Kind.SEGMENTATION)
    fill(state, [seg])
    assert list(state.position) == [720.5, 75.5, 15.5]


def test_large_segmentations_are_read_on_demand_and_have_no_meshes(state, fill, monkeypatch):
    monkeypatch.setattr(layers, "MESH_VOXELS", 10)
    volume = MemoryVolume(two_objects(np.uint64, shape=(20, 30, 80)))
    fill(state, [layer(volume, Kind.SEGMENTATION)])
    assert volume.box not in volume.boxes_read
    (source,) = state.layers["layer"].source
    assert "mesh" not in info_of(source)
    assert list(state.layers["layer"].segments) == []


def test_without_any_voxel_size_the_picture_has_no_unit(state, fill):
    fill(state, [layer(MemoryVolume(noise(np.uint8)), Kind.IMAGE, "em")])
    assert list(state.dimensions.units) == ["", "", ""]
    assert list(state.layers["em"].source[0].transform.output_dimensions.units) == ["", "", ""]


def test_what_the_user_wants_to_see_first_goes_before_what_would_be_chosen(state, fill):
    size = VoxelSize(30, 6, 5)
    seg = layer(MemoryVolume(two_objects(np.uint32), voxel_size=size), Kind.SEGMENTATION, "seg")
    fill(state, [seg], look=Look(position_zyx=(7, 70.5, 710), selected=(200,), layout="xy-3d"))
    assert list(state.position) == [710.5, 70.5, 7.5]
    assert list(state.layers["seg"].segments) == [200]
    assert state.layout.type == "xy-3d"


@pytest.mark.parametrize(
    "wish",
    [
        {"layout": "5panel"},
        {"selected": (0,)},
        {"selected": (2**64,)},
        {"position_zyx": (1, 2, np.nan)},
    ],
)
def test_a_first_look_at_what_is_not_there_is_refused(wish):
    with pytest.raises(OptionError):
        Look(**wish)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint64])
def test_a_mesh_on_demand_is_what_the_whole_volume_would_give(dtype):
    pytest.importorskip("zmesh")
    labels = two_objects(dtype)
    size = VoxelSize(20, 10, 5)
    made = ObjectMeshes(labels, start=OFFSET, voxel_size=size)
    whole = dict(object_meshes(labels.astype(np.uint32), voxel_size=size, start=OFFSET))
    for label, mesh in whole.items():
        mine = decode_legacy_fragment(made.fragment(label), what="it")
        assert mine.volume_nm3 == pytest.approx(mesh.volume_nm3)
        for of in (np.min, np.max):
            expected = of(mesh.vertices_zyx_nm, axis=0)
            np.testing.assert_allclose(of(mine.vertices_zyx_nm, axis=0), expected)
    assert made.fragment(5) is None
    assert made.fragment(2**64 - 1) is None


def start(*shown, **options):
    pytest.importorskip("neuroglancer")
    return Viewer(shown, **options)


def test_viewer_answers_on_this_machine_until_closed():
    with start(layer(MemoryVolume(noise(np.uint8)), Kind.IMAGE)) as viewer:
        assert viewer.address.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(viewer.address, timeout=10) as page:
            assert b"<html" in page.read().lower()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(viewer.address, timeout=10)


def test_viewer_serves_nothing_without_the_token_of_its_address():
    with start(layer(MemoryVolume(noise(np.uint8)), Kind.IMAGE)) as viewer:
        guess = viewer.address.replace(viewer.client.token, "0" * len(viewer.client.token))
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(guess, timeout=10)


def test_a_port_in_use_is_named():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} .*cannot be opened"):
            start(layer(MemoryVolume(noise(np.uint8)), Kind.IMAGE), port=port)
    with start(layer(MemoryVolume(noise(np.uint8)), Kind.IMAGE), port=port) as viewer:
        assert f":{port}/" in viewer.address


def test_a_viewer_of_nothing_is_refused():
    with pytest.raises(OptionError, match="nothing to show"):
        Viewer([])


def test_a_closed_viewer_leaves_others_alone():
    with start(layer(MemoryVolume(noise(np.uint8)), Kind.IMAGE)) as first:
        with start(layer(MemoryVolume(noise(np.uint8)), Kind.IMAGE)) as second:
            assert first.address != second.address
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(second.address, timeout=10)
        with urllib.request.urlopen(first.address, timeout=10) as page:
            assert page.status == 200


def test_negative_labels_are_refused_and_leave_no_server_behind():
    neuroglancer = pytest.importorskip("neuroglancer")
    volume = MemoryVolume(-two_objects(np.int32), uri="bad.h5")
    with pytest.raises(LabelError, match=r"bad\.h5 holds the negative label"):
        start(layer(volume, Kind.SEGMENTATION))
    assert not neuroglancer.is_server_running()


def test_voxel_sizes_that_are_not_stated_are_said(monkeypatch):
    monkeypatch.setattr(layers, "MESH_VOXELS", 10)
    plain = MemoryVolume(two_objects(np.uint32))
    sized = MemoryVolume(noise(np.uint8), voxel_size=VoxelSize(30, 6, 6))
    with start(layer(plain, Kind.SEGMENTATION, "seg")) as viewer:
        unknown, meshless = viewer.notes
        assert "shown in voxels of 1,1,1" in unknown
        assert meshless.startswith("seg has ")
    with start(layer(sized, Kind.IMAGE, "em"), layer(plain, Kind.IMAGE, "seg")) as viewer:
        assert viewer.notes == (
            "seg does not state its voxel size: shown with 30,6,6 nm, as another layer has",
        )
    with start(layer(plain, Kind.IMAGE), voxel_size=VoxelSize(8, 8, 8)) as viewer:
        assert viewer.notes == ()


def test_viewing_an_address_opens_the_volume_and_closes_it(monkeypatch):
    pytest.importorskip("neuroglancer")
    opened = []

    def open_one(uri):
        opened.append(MemoryVolume(two_objects(np.uint8), uri=uri))
        monkeypatch.setattr(opened[0], "close", lambda: opened.append("closed"))
        return opened[0]

    monkeypatch.setattr("floodem.viewer.opening.open_volume", open_one)
    image = MemoryVolume(noise(np.uint8), voxel_size=VoxelSize(8, 8, 8))
    with view(image, "segmentation=a/seg.npz") as viewer:
        named = [layer["name"] for layer in viewer.client.state.to_json()["layers"]]
        assert len(opened) == 1
    assert named == ["memory", "seg.npz"]
    assert opened[0].uri == "a/seg.npz"
    assert opened[1:] == ["closed"]


def test_small_integers_taken_for_labels_are_said():
    pytest.importorskip("neuroglancer")
    sized = {"voxel_size": VoxelSize(8, 8, 8)}
    with view(MemoryVolume(two_objects(np.uint8)), **sized) as viewer:
        (note,) = viewer.notes
    assert note == (
        "memory (uint8) looks like labels and is shown as a segmentation; "
        "image=memory shows it in grey"
    )
    with view(MemoryVolume(two_objects(np.uint32)), MemoryVolume(noise("u1")), **sized) as viewer:
        assert viewer.notes == ()


def test_without_a_browser_the_missing_programs_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("floodem.viewer.screenshot.BROWSER_PLACES", ())
    before = tmp_path / "picture.png"
    before.write_bytes(b"before")
    with (
        start(layer(MemoryVolume(noise(np.uint8)), Kind.IMAGE)) as viewer,
        pytest.raises(DependencyError, match="needs Chromium and chromedriver"),
    ):
        save_screenshot(viewer, before, size_wh=(400, 300))
    assert before.read_bytes() == b"before"


@pytest.mark.parametrize("size", [(0, 300), (400, 10_000)])
def test_impossible_pictures_are_refused(tmp_path, size):
    with (
        start(layer(MemoryVolume(noise(np.uint8)), Kind.IMAGE)) as viewer,
        pytest.raises(OptionError, match="is not within"),
    ):
        save_screenshot(viewer, tmp_path / "picture.png", size_wh=size)


@pytest.fixture
def browser():
    try:
        return find_browser()
    except DependencyError as error:
        pytest.skip(str(error))


def picture(shown, path, *, size_wh=(600, 500)):
    with start(*shown, view_size_wh=size_wh) as viewer:
        save_screenshot(viewer, path, size_wh=size_wh)
        assert json.dumps(viewer.client.state.to_json())
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert pixels.shape == (size_wh[1], size_wh[0], 3)
    return pixels


def panels(pixels):
    """Cut the picture into xy, xz, 3-D and yz."""
    height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
    margin = 4
    upper, lower = slice(margin, height - margin), slice(height + margin, -margin)
    left, right = slice(margin, width - margin), slice(width + margin, -margin)
    names = {"xy": (upper, left), "xz": (upper, right), "3d": (lower, left), "yz": (lower, right)}
    return {name: pixels[area] for name, area in names.items()}


BACKGROUND = 128


def share_coloured(panel):
    """Return the share of pixels that are not grey; lines of axes and bounds take 4 %."""
    return float(np.mean(np.ptp(panel, axis=2) > 30))


def share_textured(panel):
    """Return the share of grey pixels that are clearly not the background."""
    is_grey = np.ptp(panel, axis=2) < 5
    return float(np.mean(is_grey & (np.abs(panel[..., 0] - BACKGROUND) > 20)))


@pytest.mark.usefixtures("browser")
def test_browser_draws_image_segments_and_meshes(tmp_path):
    size = VoxelSize(20, 10, 10)
    image = layer(MemoryVolume(noise(np.uint8), voxel_size=size), Kind.IMAGE, "em")
    # 8-bit labels on purpose: handed over as they are they would be grey.
    objects = layer(
        MemoryVolume(two_objects(np.uint8), voxel_size=size), Kind.SEGMENTATION, "objects"
    )
    grey = panels(picture([image], tmp_path / "grey.png"))
    both = panels(picture([image, objects], tmp_path / "both.png"))
    for name in ("xy", "xz", "yz"):
        assert share_textured(grey[name]) > 0.15, name
        assert share_coloured(grey[name]) < 0.06, name
        assert share_coloured(both[name]) > 0.12, name
        assert share_textured(both[name]) > 0.05, name  # the image beside the objects
    assert share_coloured(grey["3d"]) < 0.06
    assert share_coloured(both["3d"]) > 0.12


def test_a_page_that_is_never_drawn_ends_in_a_sentence():
    class Page:
        def screenshot(self, size):
            threading.Event().wait()

    viewer = SimpleNamespace(client=Page())
    with pytest.raises(ResourceError, match=r"did not draw the page within 0\.01 s"):
        _draw(viewer, (400, 300), drawn_within_s=0.01)


def test_a_layer_that_is_just_being_added_in_the_page_is_no_error():
    with start(layer(MemoryVolume(noise(np.uint8)), Kind.IMAGE, "em")) as viewer:
        state = viewer.client.state.to_json()
        adding = {"type": "new", "source": "", "name": "new layer"}
        viewer.client.set_state(state | {"layers": [*state["layers"], adding]})
        assert [one.name for one in viewer.client.state.layers] == ["em", "new layer"]
        with viewer.client.txn() as changed:
            changed.layout = "xy"
        assert viewer.share()["layout"] == "xy"


def test_a_volume_of_100_gigabytes_opens_at_once(tmp_path):
    pytest.importorskip("neuroglancer")
    uris = [f"zarr3://{tmp_path / name}" for name in ("em", "seg")]
    for uri, dtype in zip(uris, (np.uint8, np.uint64), strict=True):
        with create_volume(
            uri, shape=(4000, 5000, 5000), dtype=dtype, chunks=(64, 64, 64), voxel_size=SIZE
        ):
            pass
    begin = time.monotonic()
    with view(*uris) as viewer:
        shown = viewer.client.state.layers
        assert [one.layer.type for one in shown] == ["image", "segmentation"]
        (source,) = shown["seg"].source
        info = info_of(source)
        assert info["scales"][0]["size"] == [5000, 5000, 4000]
        assert time.monotonic() - begin < 10
    assert viewer.notes[0].startswith("seg has 100000 million voxels")


def test_a_segmentation_in_a_bucket_is_served_and_shared_by_its_own_address(gs, no_servers):
    pytest.importorskip("neuroglancer")
    uri = "precomputed://gs://bucket/seg"
    with create_volume(uri, shape=(20, 30, 40), dtype=np.uint32, voxel_size=SIZE) as volume:
        volume.write(volume.box, two_objects(np.uint32))
    with view(uri) as viewer:
        (source,) = viewer.client.state.layers["seg"].source
        assert source.url.startswith(f"precomputed://{viewer.site.address}/d/")
        assert info_of(source)["scales"][0]["size"] == [40, 30, 20]
        (shared,) = viewer.share()["layers"]
    assert shared["source"] == [{"url": uri}]
