"""One server for all that a viewer shows: where it listens, who shares it, when it ends."""

from __future__ import annotations

import io
import json
import os
import socket
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest

from array_volume import ArrayVolume
from floodem.errors import OptionError, UsageError
from floodem.viewer.layers import Kind
from floodem.viewer.serving import Site
from serving_cases import ask, plain

neuroglancer = pytest.importorskip("neuroglancer")

IMAGE = Kind.IMAGE


@pytest.fixture
def site():
    with Site.start() as running:
        yield running


def noise(shape):
    return np.random.default_rng(7).integers(0, 200, shape).astype(np.uint8)


def test_it_listens_to_this_machine_alone(site):
    assert site.address == f"http://127.0.0.1:{site.port}"
    names = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), site.port)}
    for other in sorted(name for name in names if not name.startswith("127.")):
        with pytest.raises(OSError), socket.create_connection((other, site.port), timeout=2):
            pass


def test_the_port_is_given_back():
    with Site.start() as site:
        port = site.port
    with Site.start(port=port) as again:
        assert again.port == port


def test_a_port_that_is_taken_is_a_mistake_in_usage():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} of 127.0.0.1 cannot be opened"):
            Site.start(port=port)
    assert neuroglancer.server.global_server is None
    with pytest.raises(OptionError, match="port 65536 is not within"):
        Site.start(port=65536)
    with pytest.raises(UsageError, match="cannot be opened"):
        Site.start(host="192.0.2.1")


@pytest.mark.parametrize(("host", "shown"), [("localhost", "localhost"), ("::1", "[::1]")])
def test_it_listens_where_it_is_told(host, shown):
    if host == "::1" and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    with Site.start(host=host) as site:
        assert site.address == f"http://{shown}:{site.port}"
        assert ask(f"{site.address}/").status == 404


def has_ipv6():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def test_a_server_of_the_network_has_the_name_of_its_machine():
    with Site.start(host="0.0.0.0") as site:
        assert site.address == f"http://{socket.gethostname()}:{site.port}"
        assert ask(f"http://127.0.0.1:{site.port}/").status == 404


@pytest.mark.parametrize("host", ["", "no such host", "x" * 300])
def test_a_host_that_is_none_is_a_mistake_in_usage(host):
    with pytest.raises(UsageError, match="cannot be opened"):
        Site.start(host=host)


def test_viewers_of_one_process_share_one_server(site):
    with Site.start() as other:
        assert other.address == site.address
        mine = site.serve_volume(ArrayVolume(noise((8, 8, 8))), kind=IMAGE, name="em")
        theirs = other.serve_volume(ArrayVolume(noise((8, 8, 8))), kind=IMAGE, name="em")
        assert mine != theirs
        viewer = neuroglancer.Viewer(allow_credentials=False)
        assert viewer.get_viewer_url().startswith(site.address)
        assert ask(viewer.get_viewer_url()).status == 200
    assert ask(f"{theirs}/info").status == 404
    assert ask(f"{mine}/info").status == 200
    with pytest.raises(UsageError, match="listens at .* already"):
        Site.start(port=1 if site.port != 1 else 2)


def test_neuroglancers_own_server_is_not_taken_over():
    neuroglancer.Viewer(allow_credentials=False)
    try:
        with pytest.raises(UsageError, match="neuroglancer.stop"):
            Site.start()
    finally:
        neuroglancer.stop()


def test_a_server_that_neuroglancer_stopped_is_started_anew():
    stopped = Site.start()
    neuroglancer.stop()
    with Site.start() as site:
        assert ask(f"{site.address}/").status == 404
        stopped.close()
        assert ask(f"{site.address}/").status == 404


def test_a_closed_site_serves_nothing_more(tmp_path):
    site = Site.start()
    site.close()
    site.close()
    with pytest.raises(UsageError, match="closed"):
        site.serve_folder(tmp_path)


def test_tokens_are_long_and_different(site, tmp_path):
    tokens = {plain(site.serve_folder(tmp_path)).rsplit("/", 1)[1] for _ in range(5)}
    assert len(tokens) == 5
    assert all(len(token) >= 22 for token in tokens)  # 128 bits in base 64


def test_names_in_addresses_are_safe_and_differ(site):
    names = ["a b/é@raw", "../x", "", "em", "em", "n" * 300]
    volume = ArrayVolume(noise((4, 4, 4)))
    addresses = [site.serve_volume(volume, kind=IMAGE, name=name) for name in names]
    assert len(set(addresses)) == len(names)
    for address in addresses:
        assert len(address) < 200
        assert ask(f"{address}/info").status == 200


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="/proc tells open files")
def test_starting_and_closing_leaves_no_thread_and_no_descriptor(tmp_path):
    def use():
        with Site.start() as site:
            volume = ArrayVolume(noise((16, 16, 16)))
            ask(site.serve_volume(volume, kind=IMAGE, name="a") + "/1_1_1/0-16_0-16_0-16")
            ask(site.serve_folder(tmp_path) + "/nothing")
            viewer = neuroglancer.Viewer(allow_credentials=False)
            ask(viewer.get_viewer_url() + "main.js")

    use()
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        use()
    assert threading.active_count() <= threads
    assert len(os.listdir("/proc/self/fd")) <= descriptors


# What is relied on inside of the neuroglancer package.


def test_every_route_of_neuroglancers_server_is_known():
    known = {
        "INFO_PATH_REGEX",
        "SKELETON_INFO_PATH_REGEX",
        "DATA_PATH_REGEX",
        "SKELETON_PATH_REGEX",
        "MESH_PATH_REGEX",
        "STATIC_PATH_REGEX",
        "ACTION_PATH_REGEX",
        "VOLUME_INFO_RESPONSE_PATH_REGEX",
        "VOLUME_CHUNK_RESPONSE_PATH_REGEX",
        "EVENTS_PATH_REGEX",
        "SET_STATE_PATH_REGEX",
        "CREDENTIALS_PATH_REGEX",
    }
    there = {name for name in vars(neuroglancer.server) if name.endswith("_PATH_REGEX")}
    assert there == known, (
        "neuroglancer's server has other routes than floodem.viewer.serving.wire.routes knows: "
        "add or refuse them there"
    )


def test_the_server_has_all_that_neuroglancers_own_sets_up(site):
    from neuroglancer import async_util, server

    ours = server.global_server
    assert isinstance(ours, server.Server)
    theirs = server.Server()
    try:
        missing = set(vars(theirs)) - set(vars(ours))
        assert not missing, f"neuroglancer's server sets {missing}, which wire.SiteServer does not"
    finally:
        theirs.stop()
        theirs.executor.shutdown()
    for name in ("_attempt_to_start_server", "_stop", "request_stop", "stop"):
        assert callable(getattr(async_util.BackgroundTornadoServer, name))


def test_a_viewer_keeps_its_state_in_step_through_our_server(site):
    viewer = neuroglancer.Viewer(allow_credentials=False)
    with viewer.txn() as state:
        state.layout = "xy"
    token = viewer.token
    generation = viewer.shared_state.raw_state_and_generation[1]
    body = json.dumps({"pg": generation, "g": "1", "s": {"layout": "3d"}, "c": "me"})
    reply = ask(f"{site.address}/state/{token}", method="POST", body=body)
    assert (reply.status, reply.json) == (200, {"g": "me/1"})
    assert viewer.state.layout.type == "3d"
    heard = threading.Event()
    viewer.actions.add("wave", lambda event: heard.set())
    body = json.dumps({"action": "wave", "state": {}})
    assert ask(f"{site.address}/action/{token}", method="POST", body=body).status == 200
    assert heard.wait(10)


def test_volumes_in_memory_come_through_our_server(site):
    viewer = neuroglancer.Viewer(allow_credentials=False)
    array = noise((4, 5, 6))
    dimensions = neuroglancer.CoordinateSpace(names=["x", "y", "z"], units="nm", scales=[1, 1, 1])
    local = neuroglancer.LocalVolume(array.T, dimensions=dimensions)
    with viewer.txn() as state:
        state.layers["a"] = neuroglancer.ImageLayer(source=local)
    place = f"{site.address}/neuroglancer"
    info = ask(f"{place}/info/{viewer.token}.{local.token}").json
    assert info["dataType"] == "uint8"
    key = f"{viewer.token}.{local.token}"
    reply = ask(f"{place}/npz/{key}/1,1,1/0,0,0/6,5,4")
    np.testing.assert_array_equal(np.load(io.BytesIO(zlib.decompress(reply.body))), array.T)
    assert ask(f"{place}/npz/{key}/1,1,1/0,0,0/6,5,{10**30}").status == 400
