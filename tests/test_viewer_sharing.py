"""What is passed on of a view: nothing that leads to this machine, nothing secret."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from floodem.geometry import Box, VoxelSize
from floodem.viewer import Kind, Layer, RemoteLayer, Viewer
from floodem.viewer.sharing import is_local_source, shareable
from viewer_cases import MemoryVolume, noise, two_objects

TOKEN = "kRj3tokentokentoken"
SITE = "http://lab-pc.example:4711"


def share(*layers, public=None, **rest):
    state = {"layers": list(layers), **rest}
    return shareable(state, public=public or {}, secrets=(TOKEN, SITE))


def layer(source, name="em", **rest):
    return {"type": "image", "source": source, "name": name, **rest}


@pytest.mark.parametrize(
    "url",
    [
        f"precomputed://http://127.0.0.1:4711/d/{TOKEN}/em",
        "precomputed://http://localhost:9000/em",
        "zarr://http://[::1]:9000/em",
        "http://127.1.2.3:9000/em|zarr3:",
        "http://0.0.0.0:9000/em|zarr3:",
        "http://me:pw@127.0.0.1:9000/em|zarr3:",
        "python://volume/abc",
        "file:///home/me/em",
        "/home/me/em",
        r"C:\data\em",
    ],
)
def test_what_only_this_machine_can_read_is_left_out(url):
    assert is_local_source(url)
    shared = share(layer(url), layer("precomputed://https://host/em", name="far"))
    assert [one["name"] for one in shared.state["layers"]] == ["far"]
    assert shared.remarks == ("em: left out, as only this machine can read it",)


def test_a_server_at_another_address_of_this_machine_is_left_out_too():
    shared = share(layer(f"precomputed://{SITE}/d/{TOKEN}/em"))
    assert shared.state["layers"] == []


def test_what_lies_in_a_bucket_is_named_in_place_of_what_is_served_here():
    local = [{"url": f"precomputed://{SITE}/d/{TOKEN}/seg"}, {"url": f"precomputed://{SITE}/f/x"}]
    shared = share(layer(local, name="seg"), public={"seg": "precomputed://gs://bucket/seg"})
    (kept,) = shared.state["layers"]
    assert kept["source"] == [{"url": "precomputed://gs://bucket/seg"}]
    assert shared.remarks[0].startswith("seg: precomputed://gs://bucket/seg stands for")


def test_passwords_and_signatures_are_cut_out_of_addresses():
    shared = share(layer({"url": "zarr://https://me:pw@host/em?X-Amz-Signature=abc"}))
    assert shared.state["layers"][0]["source"] == {"url": "zarr://https://host/em"}
    assert shared.remarks == ("em: passwords and signed queries are left out of its address",)


def test_nothing_points_at_a_layer_that_is_left_out():
    shared = share(
        layer(f"{SITE}/em"), layer("n5://https://h/x", name="far"), selectedLayer={"layer": "em"}
    )
    assert "selectedLayer" not in shared.state


NAMES = st.sampled_from(["title", "layout", "x", TOKEN])
VALUES = st.recursive(
    st.sampled_from([f"see {SITE}/v/{TOKEN}/", TOKEN, "plain", 3, None, True]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(NAMES, VALUES, max_size=4), st.lists(VALUES, max_size=3))
def test_no_token_and_no_address_of_the_server_is_left_anywhere(rest, annotations):
    shared = share(layer("n5://https://host/em", annotations=annotations, note=rest), **rest)
    text = json.dumps(shared.state)
    assert TOKEN not in text
    assert SITE not in text


def test_a_running_viewer_shares_what_others_can_read():
    pytest.importorskip("neuroglancer")
    size = VoxelSize(8, 8, 8)
    shown = [
        Layer(MemoryVolume(noise("u1"), uri="/home/me/em.h5", voxel_size=size), Kind.IMAGE, "em"),
        Layer(
            MemoryVolume(two_objects(np.uint32), voxel_size=size),
            Kind.SEGMENTATION,
            "seg",
            public="precomputed://gs://bucket/seg",
        ),
        RemoteLayer(
            source="precomputed://https://host/far?token=abc",
            name="far",
            kind=Kind.IMAGE,
            box=Box((0, 0, 0), (9, 9, 9)),
            voxel_size=size,
        ),
    ]
    with Viewer(shown) as viewer:
        state = viewer.share()
        remarks = viewer.shared().remarks
        token = viewer.client.token
    text = json.dumps(state)
    for private in (token, "127.0.0.1", "/home/me", "abc"):
        assert private not in text
    assert [one["name"] for one in state["layers"]] == ["far", "seg"]
    assert state["position"] == [720.5, 75.5, 15.5]
    assert len(remarks) == 3


def test_a_notebook_keeps_no_more_than_the_address_of_a_server_that_ends_with_it():
    pytest.importorskip("neuroglancer")
    em = Layer(MemoryVolume(noise("u1"), uri="/home/me/em.h5"), Kind.IMAGE, "em")
    with Viewer([em], height_px=321) as viewer:
        plain, shown = repr(viewer), viewer._repr_html_()
        token, address = viewer.client.token, viewer.address
    assert plain == "<Viewer of em; .address is to be opened in a browser>"
    assert token not in plain
    assert f'<iframe src="{address}"' in shown
    assert 'height="321"' in shown
    assert "/home/me" not in shown
