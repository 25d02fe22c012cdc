"""Folders over HTTP: what may be seen, in which parts, packed how; ``floodem serve``."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import subprocess
import sys
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from floodem.errors import OptionError
from floodem.geometry import VoxelSize
from floodem.viewer.serving import Site
from floodem.viewer.serving.answers import Answer, FilePart, Request, accepts, shrunk
from floodem.viewer.serving.finding import find_sources
from floodem.viewer.serving.folders import ServedFolder, parse_range, segments_of
from floodem.volumes import create_volume
from serving_cases import ask, send, status_of

pytest.importorskip("neuroglancer")

DATA = bytes(range(256)) * 40


@pytest.fixture
def folder(tmp_path):
    inside = tmp_path / "served"
    (inside / "sub").mkdir(parents=True)
    (inside / "data.bin").write_bytes(DATA)
    (inside / "sub" / "info").write_text(json.dumps({"a": [1, 2, 3] * 500}), encoding="utf-8")
    (inside / "12:0").write_bytes(b"manifest") if sys.platform != "win32" else None
    (inside / ".secret").write_text("no", encoding="utf-8")
    (inside / ".git").mkdir()
    (inside / ".git" / "config").write_text("no", encoding="utf-8")
    (tmp_path / "outside.txt").write_text("no", encoding="utf-8")
    return inside


@pytest.fixture
def site():
    with Site.start() as running:
        yield running


@pytest.fixture
def address(site, folder):
    return site.serve_folder(folder)


def test_files_are_sent_as_they_are(address):
    reply = ask(f"{address}/data.bin")
    assert (reply.status, reply.body) == (200, DATA)
    assert reply.headers["content-length"] == str(len(DATA))
    assert reply.headers["accept-ranges"] == "bytes"
    assert reply.headers["content-type"] == "application/octet-stream"


def test_the_head_of_a_file_is_sent_without_the_file(address):
    reply = ask(f"{address}/data.bin", method="HEAD")
    assert (reply.status, reply.body) == (200, b"")
    assert reply.headers["content-length"] == str(len(DATA))


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=5-9", 5, 10),
        ("bytes=100-", 100, len(DATA)),
        ("bytes=-7", len(DATA) - 7, len(DATA)),
        ("bytes=10-99999999", 10, len(DATA)),
        ("bytes=-99999999", 0, len(DATA)),
    ],
)
def test_a_range_is_sent_alone(address, asked, start, stop):
    reply = ask(f"{address}/data.bin", headers={"Range": asked, "Accept-Encoding": "gzip"})
    assert (reply.status, reply.body) == (206, DATA[start:stop])
    assert reply.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(DATA)}"
    assert "content-encoding" not in reply.headers


@pytest.mark.parametrize("asked", ["bytes=99999-", f"bytes={len(DATA)}-", "bytes=-0"])
def test_a_range_beyond_the_end_is_refused_with_the_length(address, asked):
    reply = ask(f"{address}/data.bin", headers={"Range": asked})
    assert reply.status == 416
    assert reply.headers["content-range"] == f"bytes */{len(DATA)}"


@pytest.mark.parametrize(
    "asked",
    [
        "bytes=",
        "bytes=-",
        "bytes=9-3",
        "bytes=a-b",
        "bytes=1-2,4-5",
        "bytes=0x1-2",
        "items=1-2",
        "1-2",
        "bytes=1--2",
        "bytes=-1-2",
        "bytes=99999999999999999999999999999-",
        "bytes=٣-٤",
    ],
)
def test_a_malformed_range_is_ignored(address, asked):
    reply = ask(f"{address}/data.bin", headers={"Range": asked.encode()})
    assert (reply.status, reply.body) == (200, DATA)


@given(st.text(alphabet="bytes=-, 0123456789", max_size=20), st.integers(0, 1000))
def test_every_range_lies_in_the_file_or_is_none(text, size):
    part = parse_range(text, size=size)
    if part:
        start, stop = part
        assert 0 <= start < stop <= size


def test_a_range_of_an_empty_file_is_refused(site, tmp_path):
    (tmp_path / "empty").touch()
    address = site.serve_folder(tmp_path)
    assert ask(f"{address}/empty", headers={"Range": "bytes=0-0"}).status == 416
    assert ask(f"{address}/empty").body == b""


def test_a_range_of_a_file_that_has_changed_is_not_sent_alone(address):
    when = ask(f"{address}/data.bin").headers["last-modified"]
    part = {"Range": "bytes=0-3"}
    assert ask(f"{address}/data.bin", headers=part | {"If-Range": when}).status == 206
    old = "Mon, 01 Jan 2001 00:00:00 GMT"
    assert ask(f"{address}/data.bin", headers=part | {"If-Range": old}).status == 200


def test_a_file_that_is_known_is_sent_again_only_when_it_changed(address, folder):
    first = ask(f"{address}/data.bin")
    known = {"If-None-Match": first.headers["etag"]}
    again = ask(f"{address}/data.bin", headers=known)
    assert (again.status, again.body) == (304, b"")
    (folder / "data.bin").write_bytes(b"new")
    assert ask(f"{address}/data.bin", headers=known).body == b"new"


def test_text_is_packed_for_who_can_unpack_it(address, folder):
    plain = (folder / "sub" / "info").read_bytes()
    packed = ask(f"{address}/sub/info", headers={"Accept-Encoding": "br, gzip;q=0.5"})
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed.body) == plain
    assert ask(f"{address}/sub/info").body == plain
    assert ask(f"{address}/sub/info", headers={"Accept-Encoding": "gzip;q=0"}).body == plain


def test_chunks_that_are_stored_packed_are_found_under_their_names(address, folder):
    voxels = bytes(5000)
    (folder / "0-64_0-64_0-64.gz").write_bytes(gzip.compress(voxels))
    (folder / "damaged.gz").write_bytes(b"\x1f\x8bnonsense")
    place = f"{address}/0-64_0-64_0-64"
    packed = ask(place, headers={"Accept-Encoding": "gzip", "Range": "bytes=0-3"})
    assert packed.headers["content-encoding"] == "gzip"
    assert (packed.status, gzip.decompress(packed.body)) == (200, voxels)
    assert ask(place).body == voxels
    assert ask(f"{address}/damaged").status == 500


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("index.html", "text/html; charset=utf-8"),
        ("main.js", "text/javascript; charset=utf-8"),
        ("a.css", "text/css; charset=utf-8"),
        ("a.json", "application/json"),
        ("a.wasm", "application/wasm"),
        ("a.png", "image/png"),
        (".zattrs", "application/json"),
        ("0.0.0", "application/octet-stream"),
    ],
)
def test_files_say_what_they_are(address, folder, name, kind):
    (folder / name).write_bytes(b"{}")
    assert ask(f"{address}/{name}").headers["content-type"] == kind


def test_the_index_of_a_folder_is_sent_for_it(address, folder):
    (folder / "sub" / "index.html").write_text("<p>hi", encoding="utf-8")
    assert ask(f"{address}/sub/").body == b"<p>hi"
    moved = ask(f"{address}/sub")
    assert (moved.status, moved.headers["location"]) == (301, "sub/")
    assert ask(f"{address}/").status == 404
    (folder / "index.html").write_text("<p>top", encoding="utf-8")
    assert ask(f"{address}/").body == b"<p>top"


@pytest.mark.parametrize("name", [".zarray", ".zgroup", ".zattrs", ".zmetadata"])
def test_metadata_of_zarr_are_no_hidden_files(address, folder, name):
    (folder / name).write_text("{}", encoding="utf-8")
    assert ask(f"{address}/{name}").status == 200


ESCAPES = [
    "../outside.txt",
    "%2e%2e/outside.txt",
    "%2E%2E%2Foutside.txt",
    "..%2foutside.txt",
    "..%5coutside.txt",
    "..\\outside.txt",
    "sub/../../outside.txt",
    "sub/%2e%2e/%2e%2e/outside.txt",
    "%252e%252e/outside.txt",
    "..%c0%afoutside.txt",
    "%c0%ae%c0%ae/outside.txt",
    "....//outside.txt",
    "./data.bin",
    "sub/./info",
    "sub//info",
    "/etc/passwd",
    "//etc/passwd",
    "%2fetc%2fpasswd",
    "C:/Windows/win.ini",
    "C:%5cWindows%5cwin.ini",
    "%5c%5chost%5cshare",
    "data.bin%00",
    "data.bin%00.txt",
    "%00",
    "data.bin%0a",
    "data.bin/",
    "data.bin/x",
    ".secret",
    "%2esecret",
    ".git/config",
    "sub/.hidden",
    "~/outside.txt",
    "%ff%fe",
    "x" * 5000,
    "a/" * 1000,
]


@pytest.mark.parametrize("path", ESCAPES)
def test_no_path_leads_out_of_the_folder_or_to_hidden_files(site, address, path):
    place = address.removeprefix(site.address)
    line = (
        f"GET {place}/{path} HTTP/1.1\r\nHost: 127.0.0.1:{site.port}\r\nConnection: close\r\n\r\n"
    )
    reply = send(site, line.encode())
    assert status_of(reply) in {400, 404}
    assert b"no" not in reply.partition(b"\r\n\r\n")[2].split()


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
def test_links_are_followed_only_inside(address, folder, tmp_path):
    (folder / "inner").symlink_to(folder / "sub")
    (folder / "outer").symlink_to(tmp_path)
    (folder / "out.txt").symlink_to(tmp_path / "outside.txt")
    (folder / "hidden.txt").symlink_to(folder / ".secret")
    (folder / "loop").symlink_to(folder / "loop")
    assert ask(f"{address}/inner/info").status == 200
    for path in ("outer/outside.txt", "out.txt", "hidden.txt", "loop", "loop/x"):
        assert ask(f"{address}/{path}").status == 404, path


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such files there")
def test_a_pipe_does_not_keep_the_server_waiting(address, folder):
    os.mkfifo(folder / "pipe")
    assert ask(f"{address}/pipe", timeout=5).status == 404


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_not_there(address, folder):
    (folder / "data.bin").chmod(0)
    assert ask(f"{address}/data.bin").status == 404


@pytest.mark.skipif(sys.platform == "win32", reason="a colon is part of no name there")
def test_names_of_mesh_manifests_hold_a_colon(address):
    assert ask(f"{address}/12:0").body == b"manifest"


def test_names_of_all_languages_are_served(address, folder):
    (folder / "生体 データ é.txt").write_bytes(b"yes")
    assert ask(f"{address}/{quote('生体 データ é.txt')}").body == b"yes"


@settings(deadline=None, max_examples=300)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(["..", ".", "", "sub", "info", "outside.txt", ".secret", "data.bin"]),
            st.text(max_size=8),
        ),
        max_size=6,
    ).map("/".join)
)
def test_whatever_is_asked_for_only_files_of_the_folder_are_found(tmp_path_factory, path):
    root = tmp_path_factory.getbasetemp() / "fuzzed"
    if not root.exists():
        (root / "served" / "sub").mkdir(parents=True)
        for name in ("outside.txt", "served/data.bin", "served/sub/info", "served/.secret"):
            (root / name).write_bytes(b"x")
    source = ServedFolder(root / "served")
    found = source.find(path)
    source.close()
    inside = {root / "served" / name for name in ("", "sub", "data.bin", "sub/info")}
    assert found is None or found in {one.resolve() for one in inside}
    assert segments_of(path) is not None or found is None


def test_a_huge_file_is_sent_in_pieces(site, tmp_path):
    size = 3 * 10**9
    with open(tmp_path / "huge", "wb") as handle:
        handle.truncate(size)
    source = ServedFolder(tmp_path)
    answer = source.answer(Request(path="huge", headers={"accept-encoding": "gzip"}))
    source.close()
    assert isinstance(answer.body, FilePart)
    assert len(answer.body) == size
    assert len(answer.body.read(size - 10)) == 10
    assert len(answer.body.read(0)) < 2**20
    reply = ask(f"{site.serve_folder(tmp_path)}/huge", headers={"Range": f"bytes={size - 5}-"})
    assert reply.body == bytes(5)


def test_a_file_that_changes_while_it_is_sent_is_not_sent_half_old_half_new(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"x" * 10)
    source = ServedFolder(tmp_path)
    answer: Answer = source.answer(Request(path="a", headers={}))
    source.close()
    path.write_bytes(b"y" * 20)
    with pytest.raises(OSError, match="was changed while it was sent"):
        answer.body.read(0)


def test_a_folder_that_is_not_there_is_refused(site, tmp_path):
    with pytest.raises(OptionError, match="there is no folder"):
        site.serve_folder(tmp_path / "nowhere")


def test_only_a_public_folder_is_read_by_pages_of_other_origins(site, folder):
    private, public = site.serve_folder(folder), site.serve_folder(folder, is_public=True)
    page = {"Origin": "https://example.org"}
    assert "access-control-allow-origin" not in ask(f"{private}/data.bin", headers=page).headers
    open_to_all = ask(f"{public}/data.bin", headers=page | {"Range": "bytes=0-1"})
    assert open_to_all.headers["access-control-allow-origin"] == "*"
    assert "Content-Range" in open_to_all.headers["access-control-expose-headers"]
    preflight = ask(
        f"{public}/data.bin",
        method="OPTIONS",
        headers=page | {"Access-Control-Request-Method": "GET"},
    )
    assert preflight.status == 204
    assert "Range" in preflight.headers["access-control-allow-headers"]
    assert preflight.headers["access-control-allow-private-network"] == "true"
    refused = ask(f"{private}/data.bin", method="OPTIONS", headers=page)
    assert "access-control-allow-origin" not in refused.headers


def test_the_same_server_under_another_of_its_names_may_be_asked(site, address):
    page = {"Origin": f"http://localhost:{site.port}"}
    reply = ask(f"{address}/data.bin", headers=page)
    assert reply.headers["access-control-allow-origin"] == page["Origin"]


@pytest.mark.parametrize(
    ("header", "is_taken"),
    [
        ("gzip", True),
        ("GZIP;Q=1.0", True),
        ("*", True),
        ("*;q=0", False),
        ("gzip;q=0, *", False),
        ("br, deflate", False),
        ("gzip;q=nonsense", False),
        ("", False),
    ],
)
def test_gzip_is_sent_only_to_who_takes_it(header, is_taken):
    assert accepts(header, "gzip") is is_taken


@given(st.binary(max_size=2000))
def test_what_is_packed_unpacks_to_the_same(data):
    packed = shrunk(data)
    assert packed is None or gzip.decompress(packed) == data


# What can be opened below a folder, and the command.


@pytest.fixture
def volumes(tmp_path):
    top = tmp_path / "lab"
    (top / "run 1").mkdir(parents=True)
    (top / "notes").mkdir()
    (top / ".hidden.zarr").mkdir()
    for uri in ("precomputed://{}/em", "{}/run 1/em.zarr", "zarr3://{}/em3", "n5://{}/em.n5"):
        with create_volume(
            uri.format(top), shape=(8, 8, 8), dtype="uint8", voxel_size=VoxelSize(8, 8, 8)
        ) as volume:
            volume.write(volume.box, np.ones(volume.shape, np.uint8))
    (top / "mesh").mkdir()
    info = json.dumps({"@type": "neuroglancer_multilod_draco"})
    (top / "mesh" / "info").write_text(info, encoding="utf-8")
    return top


def test_what_a_client_can_open_is_found(volumes):
    found = {one.path: (one.scheme, one.what) for one in find_sources(volumes)}
    assert found == {
        "em": ("precomputed", "volume"),
        "em.n5": ("n5", "volume"),
        "em3": ("zarr3", "volume"),
        "mesh": ("precomputed", "meshes"),
        "run 1/em.zarr": ("zarr", "volume"),
    }
    (alone,) = find_sources(volumes / "em")
    assert alone.address("http://h/f/t") == "precomputed://http://h/f/t"


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C reaches a whole console there")
def test_a_folder_is_served_until_ctrl_c(volumes):
    start = "from floodem.cli.main import main; main()"
    command = [sys.executable, "-c", start, "serve", str(volumes), "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        said = []
        for line in process.stdout:
            said.append(line)
            if line.startswith("Ctrl-C"):
                break
        base = re.search(r"http://127\.0\.0\.1:\d+/f/[\w-]{22,}", said[0])[0]
        lines = [line.split(None, 1) for line in said[1:-1]]
        assert ["volume", f"zarr://{base}/run%201/em.zarr\n"] in lines
        assert len(lines) == 5
        reply = ask(f"{base}/em/info", headers={"Origin": "https://example.org"})
        assert reply.headers["access-control-allow-origin"] == "*"
        assert ask(base.rsplit("/", 1)[0] + "/wrong/em/info").status == HTTPStatus.NOT_FOUND
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=30)
    assert (out, errors, process.returncode) == ("closed\n", "", 0)


def test_a_served_zarr_is_read_back_over_http(site, volumes):
    from floodem.volumes import open_volume

    address = site.serve_folder(volumes, is_public=True)
    for one in find_sources(volumes):
        if one.what == "volume":
            with open_volume(one.address(address)) as volume:
                assert (volume.read() == 1).all()


def test_serving_what_is_no_folder_is_a_mistake_in_usage(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("x", encoding="utf-8")
    start = "from floodem.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", start, "serve", str(path), "--port", "0"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert "there is no folder" in done.stderr
    assert Path(path).exists()
