"""Published files come whole, verified and resumed, or are refused in one sentence."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from floodem.errors import (
    DestinationExistsError,
    FloodemError,
    OptionError,
    ResourceError,
    RunConflictError,
    StoppedError,
    StorageError,
    UsageError,
    VolumeFormatError,
    VolumeNotFoundError,
)
from floodem.files import exclusive
from floodem.geometry import VoxelSize
from floodem.legacy.checkpoints.import_model import import_tensorflow_model
from floodem.legacy.published.bodies import body_of, make_bodies
from floodem.legacy.published.catalogue import (
    Part,
    Published,
    PublishedFile,
    PublishedNetwork,
    catalogue,
)
from floodem.legacy.published.download import _Redirects
from floodem.legacy.published.fetch import fetch
from floodem.legacy.published.transfer import mirrored
from floodem.network.model_file import load_model
from floodem.network.named import FETCHABLE, model_path
from floodem.volumes import open_volume
from refusals import everything_in, floodem
from servers.base import RESET, STALL, STALL_INSIDE, TRUNCATE, Answer, Fault
from servers.files import FileServer

PNG = b"\x89PNG\r\n\x1a\n"
BODY = PNG + random.Random(1).randbytes(400_000)
"""Takes several reads."""


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def one_file(path="a/one.png", **changes) -> PublishedFile:
    values = {
        "path": path,
        "address": f"https://files.example/pub/{path}",
        "content": "png",
        "size": len(BODY),
        "at_most_bytes": len(BODY),
        "sha256": sha256(BODY),
    }
    return PublishedFile(**{**values, **changes})


UNKNOWN = {"size": None, "sha256": None, "at_most_bytes": 500_000}
"""A file of which nobody says size or digest."""


class Strange(FileServer):
    """A server of files whose answers a test may change."""

    etag: str | None = None
    answers = staticmethod(lambda asked, usual: usual)

    def answer(self, asked):
        usual = super().answer(asked)
        headers = dict(usual.headers)
        if self.etag is not None:
            headers["ETag"] = self.etag
        condition = asked.headers.get("if-range")
        same = condition is None or condition == headers.get("ETag")
        usual = Answer(usual.status, usual.body, headers, ranges=usual.ranges and same)
        return self.answers(asked, usual)


class Place:
    """A server with a folder of copies, a catalogue that names them, and where they go."""

    def __init__(self, tmp_path, monkeypatch):
        self.served = tmp_path / "served"
        self.folder = tmp_path / "here"
        self.server = Strange(self.served)
        self._monkeypatch = monkeypatch

    def publish(self, *files, data=BODY, **parts):
        """Put files on the server, and make the catalogue hold them."""
        for file in files:
            self.put(file, data)
        made = [
            Part(
                name=name, summary="s", licence="L 1.0", citation="C 2020", is_extra=False, files=f
            )
            for name, f in ({"sample": files} | parts).items()
        ]
        network = PublishedNetwork(
            checkpoint="none",
            fov=(3, 3, 3),
            deltas=(1, 1, 1),
            image_mean=1.0,
            image_stddev=1.0,
            voxel_size=VoxelSize(8, 8, 8),
            pad_value=0.05,
            move_threshold=0.9,
            licence="",
            source="",
        )
        toy = Published(name="toy", summary="a toy", network=network, parts=tuple(made))
        for module in ("catalogue", "fetch"):
            name = {"catalogue": "catalogue", "fetch": "find_published"}[module]
            self._monkeypatch.setattr(
                f"floodem.legacy.published.{module}.{name}",
                (lambda: {"toy": toy}) if module == "catalogue" else (lambda name: toy),
            )

    def put(self, file, data):
        path = self.served / file.address.partition("://")[2]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def fetch(self, **options):
        return fetch("toy", self.folder, mirror=self.server.address, **options)

    def asked(self):
        """Forget what was asked so far, and return it."""
        found = list(self.server.asked)
        self.server.asked.clear()
        return found

    def held(self, name="a/one.png"):
        return (self.folder / name).read_bytes()

    def left(self):
        """Names of what is in the folder."""
        return sorted(everything_in(self.folder)) if self.folder.exists() else []


@pytest.fixture
def place(tmp_path, monkeypatch, no_servers):
    monkeypatch.setattr("floodem.legacy.published.download._FIRST_DELAY_S", 0.005)
    monkeypatch.setattr("floodem.volumes.servers.patience._FIRST_DELAY_S", 0.01)
    monkeypatch.setattr("floodem.volumes.servers.patience.UNREACHABLE_DEADLINE_S", 0.1)
    monkeypatch.setenv("FLOODEM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FLOODEM_REMOTE_DEADLINE", "10")
    made = Place(tmp_path, monkeypatch)
    with made.server:
        yield made


def test_the_catalogue_names_files_by_secure_addresses_and_safe_paths():
    assert tuple(catalogue()) == FETCHABLE
    hosts = {"raw.githubusercontent.com", "storage.googleapis.com"}
    for published in catalogue().values():
        files = [file for part in published.parts for file in part.files]
        assert len({file.path for file in files}) == len(files)
        assert {file.address.split("/")[2] for file in files} <= hosts
        for part in published.parts:
            assert part.licence
            assert part.citation
        (network,) = (part for part in published.parts if part.name == "network")
        assert all(file.sha256 and file.size for file in network.files)
        assert all(file.path.startswith(published.network.checkpoint) for file in network.files)
        assert not network.is_extra


@pytest.mark.parametrize("path", ["../a.png", "/a.png", "a/../../b.png", "a\\b.png", ""])
def test_the_catalogue_may_not_name_paths_outside_of_the_folder(path):
    with pytest.raises(AssertionError):
        one_file(path)


def test_pinned_digests_are_those_of_the_published_files(shared_data):
    held = 0
    for name, published in catalogue().items():
        for file in (file for part in published.parts for file in part.files):
            path = shared_copy(shared_data, name, file)
            if file.sha256 is not None and path is not None:
                assert sha256(path.read_bytes()) == file.sha256
                assert path.stat().st_size == (file.size or path.stat().st_size)
                held += 1
    assert held == 2 + 1 + 2 + 100


def shared_copy(shared_data, name, file):
    """The shared data's copy of a published file, where it holds the very bytes."""
    if file.content == "hdf5" or file.path.startswith(("images/", "ground_truth/")):
        return None
    folder = "images_for_inference" if file.content == "png" else "."
    path = shared_data / name / folder / Path(file.path).name
    return path if path.exists() else None


def test_files_arrive_and_are_not_brought_twice(place):
    files = one_file(), one_file("b/two.png")
    place.publish(*files)
    made = place.fetch()
    assert place.held("a/one.png") == place.held("b/two.png") == BODY
    assert [(file.sha256, file.is_pinned, file.was_here) for file in made.files] == [
        (sha256(BODY), True, False)
    ] * 2
    assert place.left() == ["a", "a/one.png", "b", "b/two.png", "toy.fetched.json"]
    assert len(place.asked()) == 2
    again = place.fetch()
    assert [file.was_here for file in again.files] == [True, True]
    assert place.asked() == []


def test_a_mirror_holds_files_below_their_host_and_path():
    address = "https://files.example/pub/a.png"
    assert mirrored(address, mirror=None) == address
    assert mirrored(address, mirror="http://m/x/") == "http://m/x/files.example/pub/a.png"


@pytest.mark.parametrize("mirror", ["somewhere", "ftp://host/x", "http://", "http://h/x?y=1"])
def test_a_mirror_that_is_no_folder_on_a_server_is_refused(tmp_path, mirror):
    with pytest.raises(OptionError, match="is no address of a folder"):
        fetch("fib25", tmp_path / "d", mirror=mirror)
    assert not (tmp_path / "d").exists()


def test_a_connection_that_breaks_is_taken_up_where_it_was(place, monkeypatch):
    place.publish(one_file())
    place.server.faults = [Fault(TRUNCATE), Fault(RESET), Fault(STALL_INSIDE)]
    monkeypatch.setattr("floodem.legacy.published.download.stall_s", lambda: 0.3)
    place.fetch()
    assert place.held() == BODY
    ranges = [asked.headers.get("range") for asked in place.asked()]
    half = len(BODY) // 2
    assert ranges == [None, f"bytes={half}-", f"bytes={half}-", f"bytes={half + half // 2}-"]
    assert place.server.sent_bytes == len(BODY)


def test_a_call_that_was_stopped_is_gone_on_with_later(place):
    file = one_file(**UNKNOWN)
    place.publish(file)
    got = []
    with pytest.raises(StoppedError, match="run the same command again"):
        place.fetch(progress=lambda report: got.append(report.done), should_stop=lambda: any(got))
    assert place.left() == ["a", "a/one.png.part", "a/one.png.part.json"]
    kept = (place.folder / "a/one.png.part").stat().st_size
    assert 0 < kept < len(BODY)
    place.asked()
    place.fetch()
    (asked,) = place.asked()
    assert asked.headers["range"] == f"bytes={kept}-"
    assert asked.headers["if-range"].startswith('"')
    assert place.held() == BODY


def stop_early(place):
    with pytest.raises(StoppedError):
        place.fetch(should_stop=(place.folder / "a/one.png.part").exists)
    place.asked()


def test_another_version_on_the_server_is_fetched_from_its_beginning(place):
    file = one_file(**UNKNOWN)
    place.publish(file)
    stop_early(place)
    newer = PNG + random.Random(2).randbytes(300_000)
    place.put(file, newer)
    place.server.etag = '"newer"'
    place.fetch()
    assert place.held() == newer


def test_without_any_proof_of_the_version_a_file_begins_again(place):
    place.server.etag = 'W/"weak"'
    place.publish(one_file(**UNKNOWN))
    stop_early(place)
    place.fetch()
    (asked,) = place.asked()
    assert "range" not in asked.headers
    assert place.held() == BODY


def test_a_known_digest_is_proof_enough_to_go_on(place):
    place.server.etag = 'W/"weak"'
    place.publish(one_file())
    stop_early(place)
    place.fetch()
    (asked,) = place.asked()
    assert asked.headers["range"].startswith("bytes=")
    assert "if-range" not in asked.headers


def test_a_beginning_that_was_of_other_bytes_is_thrown_away_once(place):
    place.publish(one_file())
    place.folder.joinpath("a").mkdir(parents=True)
    place.folder.joinpath("a/one.png.part").write_bytes(b"x" * 1000)
    place.fetch()
    assert place.held() == BODY
    assert [asked.headers.get("range") for asked in place.asked()] == ["bytes=1000-", None]


def test_a_partial_file_that_was_whole_already_is_taken(place):
    place.publish(one_file())
    place.folder.joinpath("a").mkdir(parents=True)
    place.folder.joinpath("a/one.png.part").write_bytes(BODY)
    place.fetch()
    assert place.held() == BODY
    assert place.server.sent_bytes == 0


def test_a_partial_file_longer_than_the_published_one_begins_again(place):
    place.publish(one_file())
    place.folder.joinpath("a").mkdir(parents=True)
    place.folder.joinpath("a/one.png.part").write_bytes(BODY + b"x")
    place.fetch()
    assert place.held() == BODY


def test_a_server_without_ranges_does_as_well(place):
    place.server.ranges = False
    place.publish(one_file())
    place.server.faults = [Fault(TRUNCATE)]
    place.fetch()
    assert place.held() == BODY
    assert len(place.asked()) == 2


@pytest.mark.parametrize("ranges", [True, False])
def test_a_server_that_always_breaks_off_is_given_up(place, ranges):
    place.server.ranges = ranges
    if not ranges:
        place.server.faults = [Fault(TRUNCATE, times=1000)]
    else:
        place.server.answers = lambda asked, usual: Answer(
            206, b"", {"Content-Range": f"bytes 5-6/{len(BODY)}"}, ranges=False
        )
    place.publish(one_file())
    with pytest.raises(StorageError, match="breaks again and again"):
        place.fetch()
    assert len(place.asked()) < 12


@pytest.mark.parametrize("state", [b"", b"[]", b"{", b'{"etag": 3, "address": 4}', b"[" * 10**5])
def test_a_damaged_note_about_a_partial_file_is_no_proof(place, state):
    place.publish(one_file(**UNKNOWN))
    place.folder.joinpath("a").mkdir(parents=True)
    place.folder.joinpath("a/one.png.part").write_bytes(b"x" * 1000)
    place.folder.joinpath("a/one.png.part.json").write_bytes(state)
    place.fetch()
    assert place.held() == BODY


def test_wrong_bytes_are_refused_and_nothing_of_them_stays(place):
    place.publish(one_file(), data=BODY[:-1] + b"!")
    with pytest.raises(
        VolumeFormatError, match=r"has the SHA-256 \w+ instead of \w+, so it is not"
    ):
        place.fetch()
    assert not place.folder.exists()


@pytest.mark.parametrize(
    ("data", "known", "says"),
    [
        (b"<html>log in</html>", {}, r"is 19 bytes long, and the published file 400008"),
        (BODY + b"x", UNKNOWN | {"at_most_bytes": len(BODY)}, r"400009 .* at most 400008"),
        (b"<html>log in</html>", UNKNOWN, "does not begin as png files do"),
        (b"", UNKNOWN, "does not begin as png files do"),
    ],
)
def test_a_page_in_place_of_the_file_is_refused(place, data, known, says):
    place.publish(one_file(**known), data=data)
    with pytest.raises(VolumeFormatError, match=says) as refused:
        place.fetch()
    assert "a page of their own" in str(refused.value)
    assert not place.folder.exists()


def test_an_endless_file_is_cut_off_at_its_bound(place):
    file = one_file(**UNKNOWN | {"at_most_bytes": 100_000})
    place.publish(file)

    def endless(asked, usual):
        return Answer(200, BODY, {"Content-Length": ""}, ranges=False)

    place.server.answers = endless
    with pytest.raises(VolumeFormatError, match="longer than the published file, 100000 bytes"):
        place.fetch()
    assert all(path.stat().st_size < 1000 for path in place.folder.rglob("*.*"))


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        (404, VolumeNotFoundError, r"is not there any more \(HTTP 404\).*--mirror"),
        (410, VolumeNotFoundError, r"HTTP 410"),
        (403, StorageError, r"access is denied \(HTTP 403\).*--mirror"),
        (407, StorageError, r"access is denied \(HTTP 407\)"),
        (400, StorageError, r"HTTP 400 Bad Request"),
        (503, StorageError, r"HTTP 503 Service Unavailable \(waited .* same command goes on"),
        (STALL, StorageError, r"it does not answer.*FLOODEM_REMOTE_DEADLINE"),
        (RESET, StorageError, r"\(waited "),
    ],
)
def test_a_server_that_refuses_is_quoted_with_what_to_do(place, monkeypatch, fault, kind, says):
    monkeypatch.setenv("FLOODEM_REMOTE_DEADLINE", "0.5")
    monkeypatch.setattr("floodem.legacy.published.download.stall_s", lambda: 0.2)
    place.publish(one_file())
    place.server.faults = [Fault(fault, times=1000)]
    with pytest.raises(kind, match=says):
        place.fetch()
    assert not place.folder.exists()


def test_a_server_that_is_busy_for_a_moment_is_asked_again(place):
    place.publish(one_file())
    place.server.faults = [Fault(503), Fault(429)]
    place.fetch()
    assert place.held() == BODY


def test_without_a_network_one_sentence_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("floodem.volumes.servers.patience.UNREACHABLE_DEADLINE_S", 0.1)
    with pytest.raises(StorageError, match=r"cannot fetch http://no-such-host.invalid/.*resolve"):
        fetch("fib25", tmp_path / "d", parts=["network"], mirror="http://no-such-host.invalid")
    assert not (tmp_path / "d").exists()


def redirecting(times, *, to=None):
    def answers(asked, usual):
        count = int(asked.query.get("n", 0))
        if count >= times:
            return usual
        return Answer(302, b"", {"Location": to or f"{asked.path}?n={count + 1}"})

    return answers


def test_a_few_redirections_are_followed(place):
    place.publish(one_file())
    place.server.answers = redirecting(5)
    place.fetch()
    assert place.held() == BODY


def test_endless_redirections_are_not(place):
    place.publish(one_file())
    place.server.answers = redirecting(1000)
    with pytest.raises(StorageError, match="sent on more than 5 times"):
        place.fetch()
    assert len(place.asked()) == 6


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://host/x", "data:text/plain,x"])
def test_a_redirection_away_from_http_is_not_followed(place, to):
    place.publish(one_file())
    place.server.answers = redirecting(1, to=to)
    with pytest.raises(StorageError, match="it was not followed|sent on .* nowhere"):
        place.fetch()
    assert not place.folder.exists()


@pytest.mark.parametrize(
    ("old", "new", "follows"),
    [
        ("https://a/x", "https://b/y", True),
        ("http://a/x", "https://b/y", True),
        ("http://a/x", "http://b/y", True),
        ("https://a/x", "http://a/x", False),
        ("https://a/x", "HTTP://a/x", False),
    ],
)
def test_encryption_is_never_given_up_on_the_way(old, new, follows):
    handler, request = _Redirects(), urllib.request.Request(old)
    if follows:
        assert handler.redirect_request(request, None, 302, "", {}, new).full_url == new
    else:
        with pytest.raises(StorageError, match="no https address"):
            handler.redirect_request(request, None, 302, "", {}, new)


NUMBERS = st.one_of(st.integers(-3, 10), st.just(len(BODY)), st.just(10**30))


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    status=st.sampled_from([200, 206, 416]),
    length=st.one_of(NUMBERS.map(str), st.sampled_from(["", "x", "1e3", "\xb2"])),
    parts=st.tuples(st.sampled_from(["bytes", "items"]), NUMBERS, NUMBERS, NUMBERS),
    etag=st.sampled_from(['"a"', "a", 'W/"a"', '"', '"' + "a" * 500 + '"', ""]),
    kept=st.sampled_from([0, 5, len(BODY)]),
    pinned=st.booleans(),
)
def test_no_headers_bring_anything_but_the_file_or_a_sentence(
    place, status, length, parts, etag, kept, pinned
):
    file = one_file() if pinned else one_file(**UNKNOWN)
    place.publish(file)
    shutil.rmtree(place.folder, ignore_errors=True)
    place.folder.joinpath("a").mkdir(parents=True)
    if kept:
        place.folder.joinpath("a/one.png.part").write_bytes(BODY[:kept])
    unit, first, last, total = parts
    headers = {
        "Content-Length": length,
        "Content-Range": f"{unit} {first}-{last}/{total}",
        "ETag": etag,
    }
    place.server.answers = lambda asked, usual: Answer(status, BODY, headers, ranges=False)
    try:
        place.fetch()
    except FloodemError:
        assert not place.folder.joinpath("a/one.png").exists()
    else:
        # Without a digest nobody can tell a file from its beginning that is called whole.
        assert BODY.startswith(place.held()) if not pinned else place.held() == BODY
    assert all(path.stat().st_size <= 500_000 for path in place.folder.rglob("*.p*"))


def test_compressed_answers_are_refused(place):
    place.publish(one_file())
    place.server.answers = lambda asked, usual: Answer(200, BODY, {"Content-Encoding": "gzip"})
    with pytest.raises(StorageError, match="comes compressed"):
        place.fetch()


def test_a_file_that_is_something_else_is_left_alone(place):
    place.publish(one_file())
    place.folder.joinpath("a").mkdir(parents=True)
    place.folder.joinpath("a/one.png").write_bytes(b"mine")
    before = everything_in(place.folder)
    with pytest.raises(DestinationExistsError, match="not known to be the published file"):
        place.fetch()
    assert everything_in(place.folder) == before
    assert place.asked() == []
    place.fetch(overwrite=True)
    assert place.held() == BODY


def test_a_published_file_that_lies_there_is_taken(place):
    place.publish(one_file())
    place.folder.joinpath("a").mkdir(parents=True)
    place.folder.joinpath("a/one.png").write_bytes(BODY)
    assert place.fetch().files[0].was_here
    assert place.asked() == []


def test_an_unknown_digest_is_recorded_and_said_and_held_to_afterwards(place):
    file = one_file(**UNKNOWN)
    place.publish(file)
    made = place.fetch()
    (notice,) = made.notices
    assert "no digest is published for one.png" in notice
    record = json.loads(made.record.read_text(encoding="utf-8"))
    assert record["files"]["a/one.png"] == {
        "address": file.address,
        "bytes": len(BODY),
        "sha256": sha256(BODY),
        "digest_was_known": False,
    }
    assert place.fetch().notices == ()
    place.folder.joinpath("a/one.png").write_bytes(PNG + b"changed")
    with pytest.raises(DestinationExistsError):
        place.fetch()
    place.put(file, PNG + b"another")
    changed = place.fetch(overwrite=True)
    assert any("is not what it was when it was fetched before" in text for text in changed.notices)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"files": 3}', '{"files": {"a/one.png": 4}}'])
def test_a_damaged_record_proves_nothing(place, text):
    place.publish(one_file(**UNKNOWN))
    place.fetch()
    place.folder.joinpath("toy.fetched.json").write_text(text, encoding="utf-8")
    with pytest.raises(DestinationExistsError):
        place.fetch()


def test_a_full_disk_is_noticed_before_anything_is_brought(place, monkeypatch):
    place.publish(one_file())
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(ResourceError, match="fetching toy needs 0.40 MB"):
        place.fetch()
    place.publish(one_file(**UNKNOWN))
    with pytest.raises(ResourceError, match="fetching one.png needs 0.40 MB"):
        place.fetch()
    assert not place.folder.exists()


def test_a_folder_that_cannot_be_is_refused(place, tmp_path):
    place.publish(one_file())
    place.folder.write_bytes(b"mine")
    with pytest.raises(StorageError, match="is a file"):
        place.fetch()
    assert place.folder.read_bytes() == b"mine"


def test_two_fetches_into_one_folder_refuse_each_other(place):
    place.publish(one_file())
    place.folder.mkdir()
    with (
        exclusive(place.folder / ".floodem-fetch.lock", what="x"),
        pytest.raises(RunConflictError, match="another process is working on the fetch of toy"),
    ):
        place.fetch()


def test_many_files_come_several_at_a_time_and_progress_adds_up(place):
    files = [one_file(f"a/{number}.png") for number in range(9)]
    place.publish(*files)
    together, most, lock = [0], [0], threading.Lock()
    place.server.delay_s = 0.02

    def answers(asked, usual):
        with lock:
            together[0] += 1
            most[0] = max(most[0], together[0])
        threading.Event().wait(0.02)
        with lock:
            together[0] -= 1
        return usual

    place.server.answers = answers
    told = []
    place.fetch(progress=told.append)
    assert 1 < most[0] <= 4
    assert told[-1].done == told[-1].total == 9 * len(BODY)
    assert all(a.done <= b.done for a, b in itertools.pairwise(told))


def test_one_file_that_fails_ends_the_others_and_is_the_one_named(place):
    files = [one_file(f"a/{number}.png") for number in range(6)]
    place.publish(*files)
    place.server.faults = [Fault(404, inside="3.png")]
    with pytest.raises(VolumeNotFoundError, match="3.png"):
        place.fetch()
    place.fetch()
    assert all(place.held(file.path) == BODY for file in files)


def test_parts_are_chosen_by_name(place):
    extra = one_file("b/two.png")
    place.put(extra, BODY)
    place.publish(one_file(), more=(extra,))
    assert [file.path.name for file in place.fetch(parts=["more"]).files] == ["two.png"]
    with pytest.raises(UsageError, match=r"no part 'mor' \(nearest: more\): give sample, more"):
        place.fetch(parts=["mor"])


@given(
    npst.arrays(np.uint32, st.tuples(*[st.integers(1, 4)] * 3), elements=st.integers(0, 9)),
    npst.arrays(np.int64, st.tuples(st.integers(0, 8), st.just(2)), elements=st.integers(0, 9)),
)
def test_bodies_are_looked_up_as_a_dictionary_would(supervoxels, transforms):
    table = {int(source): int(target) for source, target in transforms}
    bodies, missing = body_of(supervoxels, transforms)
    expected = [table.get(int(voxel), 0) for voxel in supervoxels.flat]
    assert bodies.ravel().tolist() == expected
    assert missing == sum(1 for voxel in supervoxels.flat if voxel and int(voxel) not in table)


def write_truth(path, *, transforms=((1, 40), (2, 40), (3, 7))):
    path.parent.mkdir(parents=True, exist_ok=True)
    stack = np.random.default_rng(0).integers(1, 4, (20, 5, 6)).astype(np.uint32)
    with h5py.File(path, "w") as file:
        file["stack"] = stack
        if transforms is not None:
            file["transforms"] = np.array(transforms, np.uint64)
    return stack


def test_supervoxels_become_neurons_that_can_be_opened(place, tmp_path):
    stack = write_truth(tmp_path / "t.h5")
    data = (tmp_path / "t.h5").read_bytes()
    file = one_file(
        "a/truth.h5",
        content="hdf5",
        size=len(data),
        at_most_bytes=len(data),
        sha256=sha256(data),
        bodies="a/bodies.h5",
    )
    place.publish(file, data=data)
    made = place.fetch()
    (address,) = made.bodies
    with open_volume(address) as bodies:
        np.testing.assert_array_equal(bodies.read(), np.array([0, 40, 40, 7])[stack])
        assert bodies.voxel_size == VoxelSize(8, 8, 8)
    before = everything_in(place.folder)
    assert place.fetch().bodies == (address,)
    assert everything_in(place.folder) == before


def test_supervoxels_of_no_neuron_are_counted(tmp_path):
    stack = write_truth(tmp_path / "t.h5", transforms=[(1, 5)])
    missing = make_bodies(tmp_path / "t.h5", tmp_path / "b.h5", voxel_size=VoxelSize(8, 8, 8))
    assert missing == np.count_nonzero(stack != 1)


@pytest.mark.parametrize("transforms", [None, [1, 2, 3], [[1.5, 2.5]], [[1, 2, 3]]])
def test_truth_without_a_table_of_neurons_is_refused(tmp_path, transforms):
    write_truth(tmp_path / "t.h5", transforms=None)
    if transforms is not None:
        with h5py.File(tmp_path / "t.h5", "a") as file:
            file["transforms"] = np.array(transforms)
    with pytest.raises(VolumeFormatError, match="fetch it again with --overwrite"):
        make_bodies(tmp_path / "t.h5", tmp_path / "b.h5", voxel_size=VoxelSize(8, 8, 8))
    assert not (tmp_path / "b.h5").exists()


def run(place, *arguments):
    return floodem("fetch", *arguments, "--mirror", place.server.address)


def test_the_command_says_licence_and_citation_before_and_after(place):
    place.publish(one_file())
    ended = run(place, "toy", place.folder)
    assert ended.code == 0, ended
    before, after = ended.out.split("1 file, 0.4 MB, checked")
    for half in (before, after):
        assert "L 1.0" in half
        assert "C 2020" in half
    plain = json.loads(run(place, "toy", place.folder, "--json").out)
    assert plain["files"][0]["sha256"] == sha256(BODY)
    assert plain["files"][0]["was_here"]
    assert plain["terms"] == [{"part": "sample", "licence": "L 1.0", "citation": "C 2020"}]


def test_the_command_goes_to_a_folder_of_the_name(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place.publish(one_file())
    assert run(place, "toy").code == 0
    assert (tmp_path / "toy/a/one.png").read_bytes() == BODY


def test_refusals_of_the_command_are_one_sentence(place):
    ended = floodem("fetch", "fib52")
    assert ended.code == 2
    assert "nothing is published as 'fib52' (nearest: fib25): give fib25 or snemi3d" in ended.err
    place.publish(one_file(), data=b"wrong")
    ended = run(place, "toy", place.folder)
    assert ended.code == 3
    assert ended.err.count("\n") == 1
    assert "Traceback" not in ended.err


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends Ctrl-C to a console only")
def test_ctrl_c_keeps_what_has_arrived(tmp_path, shared_data):
    with mirror_of(shared_data, tmp_path) as server:
        server.faults = [Fault(STALL_INSIDE, inside="data-00000")]
        command = ["fetch", "fib25", "--part", "network", "--mirror", server.address]
        environment = {
            **os.environ,
            "FLOODEM_HOME": str(tmp_path / "home"),
            "FLOODEM_REMOTE_DEADLINE": "6",
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "floodem", *command],
            cwd=tmp_path,
            env=environment,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        partial = next_partial(tmp_path)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 4, said
        assert "run the same command again to go on" in said
        assert partial.exists()
        done = subprocess.run(
            [sys.executable, "-m", "floodem", *command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert any("range" in asked.headers for asked in server.asked)


def next_partial(folder):
    """Wait until something has arrived."""
    for _ in range(3000):
        found = [one for one in folder.rglob("*.data-*.part") if one.stat().st_size > 10**6]
        if found:
            return found[0]
        threading.Event().wait(0.01)
    raise AssertionError("nothing arrived")


def mirror_of(shared_data, tmp_path):
    """A server of the published files that the shared data holds."""
    served = tmp_path / "mirror"
    for name, published in catalogue().items():
        for file in (file for part in published.parts for file in part.files):
            copy = shared_copy(shared_data, name, file)
            if copy is not None:
                path = served / file.address.partition("://")[2]
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(copy, path)
    return FileServer(served)


@pytest.mark.parametrize("name", FETCHABLE)
def test_a_fetched_network_is_imported_and_used_by_name(shared_data, tmp_path, monkeypatch, name):
    monkeypatch.setenv("FLOODEM_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VolumeNotFoundError, match=f"`floodem fetch {name}` brings"):
        load_model(name)
    with mirror_of(shared_data, tmp_path) as server:
        made = fetch(name, name, parts=["network"], mirror=server.address)
    assert made.model == model_path(name) == tmp_path / "home" / "models" / f"{name}.safetensors"
    # The folder of the fetch has the same name, and is no model.
    description = load_model(name).description
    checkpoint = next((shared_data / name).glob("*.index"))
    expected = import_tensorflow_model(
        checkpoint,
        fov={"fib25": (33, 33, 33), "snemi3d": (17, 33, 33)}[name],
        deltas={"fib25": (8, 8, 8), "snemi3d": (4, 8, 8)}[name],
        image_mean={"fib25": 128, "snemi3d": 131}[name],
        image_stddev={"fib25": 33, "snemi3d": 62}[name],
        voxel_size={"fib25": VoxelSize(10, 10, 10), "snemi3d": VoxelSize(30, 6, 6)}[name],
        licence=description.licence,
        source=description.source,
    )
    assert load_model(name).digest() == expected.digest()
    assert "doi" in description.source
    assert (description.pad_value, description.move_threshold) == (0.05, 0.9)


def test_an_imported_network_is_made_anew_where_it_was_damaged(shared_data, tmp_path, monkeypatch):
    monkeypatch.setenv("FLOODEM_HOME", str(tmp_path / "home"))
    with mirror_of(shared_data, tmp_path) as server:
        call = {"parts": ["network"], "mirror": server.address}
        path = fetch("snemi3d", tmp_path / "d", **call).model
        whole, written = path.read_bytes(), path.stat().st_mtime_ns
        fetch("snemi3d", tmp_path / "d", **call)
        assert path.stat().st_mtime_ns == written
        path.write_bytes(whole[: len(whole) // 2])
        fetch("snemi3d", tmp_path / "d", **call)
    assert path.read_bytes() == whole
