"""Volumes on servers: written and read there, whatever the network does meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from floodem.errors import (
    DestinationExistsError,
    FloodemError,
    OptionError,
    StorageError,
    VolumeFormatError,
    VolumeNotFoundError,
)
from floodem.geometry import Box, VoxelSize
from floodem.volumes import create_volume, open_volume
from floodem.volumes.servers.transport import open_store
from servers.base import LOST, RESET, TRUNCATE, FakeServer, Fault
from servers.files import FileServer
from servers.s3 import S3Server

SHAPE = (20, 40, 50)
CHUNKS = (16, 16, 16)
FORMATS = ("zarr", "zarr3", "n5", "precomputed")
VOXEL_SIZE = VoxelSize(30, 6, 7)
OFFSET = (1, 2, 3)
PASSING = (500, 502, 503, 504, 429, 408, TRUNCATE, RESET)
"""What goes wrong for a moment."""


def labels() -> np.ndarray:
    """Ids up to 2^64 - 1, and a background of whole chunks."""
    array = np.random.default_rng(0).integers(2**53, 2**64 - 1, SHAPE, np.uint64, endpoint=True)
    array[:, 16:, :32] = 0
    return array


@pytest.fixture(autouse=True)
def environment(no_servers: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("floodem.volumes.servers.patience._FIRST_DELAY_S", 0.01)


def fill(uri: str | Path, **options: object) -> None:
    with create_volume(
        uri,
        shape=SHAPE,
        dtype="uint64",
        voxel_size=VOXEL_SIZE,
        offset=OFFSET,
        chunks=CHUNKS,
        **options,
    ) as volume:
        volume.write(volume.box, labels())


def require_filled(uri: str | Path) -> None:
    with open_volume(uri) as volume:
        np.testing.assert_array_equal(volume.read(), labels())
        assert (volume.offset, volume.voxel_size) == (OFFSET, VOXEL_SIZE)


# --- what is written is read -----------------------------------------------------


@pytest.mark.parametrize("format_", FORMATS)
def test_a_volume_goes_to_a_bucket_and_back(bucket: FakeServer, format_: str) -> None:
    uri = f"{format_}://{bucket.root}/生体 データ/em#1"
    fill(uri)
    require_filled(uri)
    box = Box((3, 20, 10), (17, 40, 43))
    with open_volume(uri, writable=True) as volume:
        volume.write(box, np.full(box.shape, 7))
    with open_volume(uri) as volume:
        assert (volume.read(box) == 7).all()


@pytest.mark.parametrize("format_", FORMATS)
def test_a_bucket_holds_the_files_of_a_local_store(
    bucket: FakeServer, format_: str, tmp_path: Path
) -> None:
    fill(f"{format_}://{bucket.root}/em")
    fill(f"{format_}://{tmp_path / 'em'}")
    local = {
        f"em/{path.relative_to(tmp_path / 'em').as_posix()}": path.read_bytes()
        for path in (tmp_path / "em").rglob("*")
        if path.is_file()
    }
    assert bucket.objects == local


@pytest.mark.parametrize("format_", FORMATS)
def test_a_store_is_read_over_http(web: FileServer, tmp_path: Path, format_: str) -> None:
    fill(f"{format_}://{tmp_path / 'a b' / 'em'}")
    require_filled(f"{format_}://{web.address}/a b/em")
    require_filled(f"{format_}://{web.address}/a%20b/em/")


@pytest.mark.parametrize("format_", ["zarr3", "precomputed"])
def test_shards_of_a_server_that_sends_whole_files_are_to_be_downloaded(
    tmp_path: Path, format_: str
) -> None:
    fill(f"{format_}://{tmp_path / 'em'}", shards=(16, 32, 32))
    with FileServer(tmp_path, ranges=False) as server:
        address = f"{format_}://{server.address}/em"
        with open_volume(address) as volume, pytest.raises(StorageError) as refusal:
            volume.read()
    assert str(refusal.value) == (
        f"{address} cannot be read in parts, because its server sends only whole files: "
        "download it and open the copy"
    )


def test_nothing_is_written_over_http(web: FileServer, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="http addresses are for reading only"):
        fill(f"zarr://{web.address}/em.zarr")
    assert not list(tmp_path.iterdir())


def test_only_the_chunks_of_a_box_are_fetched(web: FileServer, tmp_path: Path) -> None:
    fill(tmp_path / "em.zarr")
    with open_volume(f"{web.address}/em.zarr") as volume:
        web.asked.clear()
        volume.read(Box((1, 2, 3), (2, 3, 4)))
    assert [asked.path for asked in web.asked] == ["/em.zarr/0/0/0"]


def test_a_pyramid_is_written_and_read_in_a_bucket(bucket: FakeServer) -> None:
    uri = f"zarr://{bucket.root}/em.zarr"
    with create_volume(
        uri, shape=SHAPE, dtype="uint8", voxel_size=VOXEL_SIZE, levels=((1, 2, 2),)
    ) as volume:
        for number, level in enumerate(volume.levels, start=1):
            level.write(level.box, np.full(level.shape, number))
    for number in (1, 2):
        with open_volume(uri, level=number - 1) as level:
            assert (level.read() == number).all()


# --- what goes wrong for a moment ------------------------------------------------


@pytest.mark.parametrize("kind", PASSING)
def test_reading_goes_on_after_a_fault(web: FileServer, tmp_path: Path, kind: int | str) -> None:
    fill(tmp_path / "em.zarr")
    metadata = Fault(kind, inside="/.zarray")
    chunks = Fault(kind, times=3, inside="/em.zarr/", skip=6)
    web.faults = [metadata, chunks]
    require_filled(f"{web.address}/em.zarr")
    assert (metadata.done, chunks.done) == (1, 3)


@pytest.mark.parametrize("kind", [*PASSING, LOST])
@pytest.mark.parametrize("format_", ["zarr", "precomputed"])
def test_writing_goes_on_after_a_fault(bucket: FakeServer, format_: str, kind: int | str) -> None:
    fill(f"{format_}://{bucket.root}/em")
    without_faults = dict(bucket.objects)
    bucket.objects.clear()
    writing = "PUT" if isinstance(bucket, S3Server) else "POST"
    first = Fault(kind, method=writing)
    chunks = Fault(kind, times=4, method=writing, skip=3)
    bucket.faults = [first, chunks]
    fill(f"{format_}://{bucket.root}/em")
    assert (first.done, chunks.done) == (1, 4)
    assert bucket.objects == without_faults


@pytest.mark.parametrize("action", ["open", "read", "write"])
def test_there_is_one_deadline(s3: S3Server, monkeypatch: pytest.MonkeyPatch, action: str) -> None:
    uri = "zarr://s3://bucket/em"
    fill(uri)
    monkeypatch.setenv("FLOODEM_REMOTE_DEADLINE", "1")
    began = time.monotonic()

    def require_sentence(act: Callable[[], object]) -> None:
        s3.faults = [Fault(503, times=10**6)]
        with pytest.raises(StorageError) as caught:
            act()
        sentence = str(caught.value)
        assert sentence.startswith(f"cannot {action} zarr://s3://bucket/em: HTTP 503 Service Unav")
        assert "FLOODEM_REMOTE_DEADLINE=SECONDS" in sentence
        assert "\n" not in sentence

    if action == "open":
        require_sentence(lambda: open_volume(uri))
    else:
        with open_volume(uri, writable=True) as volume:
            acts = {"read": volume.read, "write": lambda: volume.write(volume.box, labels())}
            require_sentence(acts[action])
    assert 0.5 < time.monotonic() - began < 4


def test_a_host_that_nobody_reaches_is_given_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("floodem.volumes.servers.patience.UNREACHABLE_DEADLINE_S", 0.5)
    for address in ("zarr://http://127.0.0.1:9/em", "http://127.0.0.1:9/em.h5"):
        began = time.monotonic()
        with pytest.raises(StorageError, match="Could not connect to server"):
            open_volume(address)
        assert time.monotonic() - began < 3


@pytest.mark.parametrize("seconds", ["soon", "0", "-1", "nan", "inf"])
def test_a_deadline_is_a_number_of_seconds(monkeypatch: pytest.MonkeyPatch, seconds: str) -> None:
    monkeypatch.setenv("FLOODEM_REMOTE_DEADLINE", seconds)
    with pytest.raises(OptionError, match="FLOODEM_REMOTE_DEADLINE"):
        open_volume("http://127.0.0.1:9/em.zarr")


# --- what goes wrong for good ------------------------------------------------------


@pytest.mark.parametrize("format_", FORMATS)
def test_what_is_not_there_is_said_at_once(bucket: FakeServer, format_: str) -> None:
    with pytest.raises(VolumeNotFoundError, match="is not there"):
        open_volume(f"{format_}://{bucket.root}/em")


@pytest.mark.parametrize("status", [401, 403])
def test_a_denial_is_told_from_an_absence(s3: S3Server, status: int) -> None:
    fill("zarr://s3://bucket/em")
    s3.faults = [Fault(status, times=1000, inside="em/")]
    with pytest.raises(StorageError, match=f"denies access.*HTTP {status}.*your credentials"):
        open_volume("zarr://s3://bucket/em")
    s3.faults = []
    with open_volume("zarr://s3://bucket/em") as volume:
        s3.asked.clear()
        s3.faults = [Fault(status, times=1000)]
        with pytest.raises(StorageError, match=f"denies access.*HTTP {status}.*your credentials"):
            volume.read(Box((1, 2, 3), (2, 3, 4)))
        assert len(s3.asked) == 1


def test_an_existing_volume_in_a_bucket_stays(bucket: FakeServer) -> None:
    uri = f"zarr://{bucket.root}/em"
    fill(uri)
    before = dict(bucket.objects)
    with pytest.raises(DestinationExistsError, match="was left as it is"):
        create_volume(uri, shape=(1, 2, 3), dtype="uint8")
    assert bucket.objects == before
    with create_volume(uri, shape=(1, 2, 3), dtype="uint8", overwrite=True) as volume:
        assert not volume.read().any()


def test_of_two_that_create_one_volume_one_is_refused(bucket: FakeServer) -> None:
    ended: list[str] = []

    def create(dtype: str) -> None:
        try:
            create_volume(f"zarr3://{bucket.root}/em", shape=SHAPE, dtype=dtype).close()
            ended.append(dtype)
        except DestinationExistsError:
            ended.append("refused")

    threads = [threading.Thread(target=create, args=(d,)) for d in ("uint8", "uint16", "uint32")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = set(ended) - {"refused"}
    assert sorted(ended) == sorted([winner, "refused", "refused"])
    with open_volume(f"zarr3://{bucket.root}/em") as volume:
        assert volume.dtype == winner


# --- small objects -----------------------------------------------------------------


def test_small_objects_are_kept(bucket: FakeServer) -> None:
    store = open_store(f"{bucket.root}/生体 データ/receipts")
    assert store.read("a/1") is None
    assert store.names() == []
    for number in range(120):
        assert store.write(f"a/{number}", b"%d" % number)
    store.write("b", b"other")
    assert store.read("a/7") == b"7"
    assert len(store.names()) == 121
    assert store.names("a/11") == sorted(["a/11", *(f"a/{n}" for n in range(110, 120))])
    store.delete("a/7")
    store.delete("a/7")
    assert store.read("a/7") is None
    assert open_store(f"{bucket.root}/生体 データ").names("receipts/b") == ["receipts/b"]


def test_of_many_conditional_writers_one_writes(bucket: FakeServer) -> None:
    ready = threading.Barrier(8)
    won: list[bytes] = []

    def write(number: int) -> None:
        store = open_store(f"{bucket.root}/em")
        ready.wait()
        if store.write("lock", b"%d" % number, only_new=True):
            won.append(b"%d" % number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert bucket.objects["em/lock"] == won[0]


def test_a_conditional_write_whose_answer_was_lost_counts_as_done(bucket: FakeServer) -> None:
    store = open_store(f"{bucket.root}/em")
    writing = "PUT" if isinstance(bucket, S3Server) else "POST"
    lost = Fault(LOST, method=writing)
    bucket.faults = [lost]
    assert store.write("receipt", b"mine", only_new=True)
    assert lost.done == 1
    assert not store.write("receipt", b"yours", only_new=True)
    assert store.read("receipt") == b"mine"


def test_http_gives_small_objects_and_takes_none(web: FileServer, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"there")
    store = open_store(web.address)
    assert store.read("a") == b"there"
    assert store.read("b") is None
    for act in (lambda: store.write("b", b""), lambda: store.delete("a"), store.names):
        with pytest.raises(StorageError, match="http"):
            act()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]


def test_local_folders_are_stores_too(tmp_path: Path) -> None:
    store = open_store(tmp_path / "new")
    assert store.write("a/1", b"x", only_new=True)
    assert not store.write("a/1", b"y", only_new=True)
    assert (store.names(), store.read("a/1")) == (["a/1"], b"x")


# --- who may ------------------------------------------------------------------------


def test_keys_in_the_environment_sign_what_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with S3Server(key_id="AKIAFLOODEM") as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.address)
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        with pytest.raises(StorageError, match="denies access"):
            fill("zarr://s3://bucket/em")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAFLOODEM")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
        monkeypatch.setenv("AWS_REGION", "eu-central-1")
        fill("zarr://s3://bucket/em")
        require_filled("zarr://s3://bucket/em")
        assert "/eu-central-1/s3/" in server.asked[-1].headers["authorization"]


SIGNED = "X-Amz-Credential=AKIA%2Fs3&X-Amz-Signature=SECRET"


def test_a_signed_query_goes_with_every_request(web: FileServer, tmp_path: Path) -> None:
    fill(tmp_path / "em.zarr")
    fill(tmp_path / "em.h5")
    for name in ("em.zarr", "em.h5"):
        require_filled(f"{web.address}/{name}?{SIGNED}")
    require_filled(f"zarr://{web.address}/em.zarr/?{SIGNED}")
    assert {asked.query.get("X-Amz-Signature") for asked in web.asked} == {"SECRET"}


@pytest.mark.parametrize("name", ["em.zarr", "em.h5", "em.n5", "nothing.zarr", "em"])
@pytest.mark.parametrize("kind", [None, 403, 503, "damaged"])
def test_secrets_stay_out_of_messages(
    web: FileServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    kind: int | str | None,
) -> None:
    monkeypatch.setenv("FLOODEM_REMOTE_DEADLINE", "0.5")
    fill(tmp_path / "em.zarr")
    fill(tmp_path / "em.h5")
    if kind == "damaged":
        (tmp_path / "em.zarr" / ".zarray").write_text("{}", encoding="utf-8")
        (tmp_path / "em.h5").write_bytes(b"damaged")
    elif isinstance(kind, int):
        web.faults = [Fault(kind, times=10**6)]
    address = web.address.replace("//", "//me:SECRET@")
    with pytest.raises(FloodemError) as caught, open_volume(f"{address}/{name}?{SIGNED}") as volume:
        # Those that can be opened are read beyond their end, which is our own mistake.
        volume.read(Box((0, 0, 0), (1, 1, 1)))
    assert "SECRET" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


def test_a_wrong_format_is_named_without_secrets(web: FileServer, tmp_path: Path) -> None:
    fill(tmp_path / "em.zarr")
    with pytest.raises(VolumeFormatError, match="is a zarr volume, not n5: open it as") as caught:
        open_volume(f"n5://{web.address}/em.zarr?{SIGNED}")
    assert "SECRET" not in str(caught.value)


def test_a_password_is_sent(web: FileServer, tmp_path: Path) -> None:
    fill(tmp_path / "em.zarr")
    fill(tmp_path / "em.h5")
    address = web.address.replace("//", "//me:hush@")
    require_filled(f"{address}/em.zarr")
    require_filled(f"{address}/em.h5@segmentation")
    assert {asked.headers.get("authorization") for asked in web.asked} == {"Basic bWU6aHVzaA=="}


# --- which format --------------------------------------------------------------------


@pytest.mark.parametrize("format_", FORMATS)
def test_a_format_is_found_by_a_look_at_the_server(
    bucket: FakeServer, web: FileServer, tmp_path: Path, format_: str
) -> None:
    fill(f"{format_}://{bucket.root}/some/em")
    fill(f"{format_}://{tmp_path / 'em'}")
    require_filled(f"{bucket.root}/some/em")
    require_filled(f"{web.address}/em")


@pytest.mark.parametrize("name", ["em.h5", "em.npz"])
def test_a_file_without_ending_is_known_by_its_first_bytes(
    web: FileServer, tmp_path: Path, name: str
) -> None:
    fill(tmp_path / name)
    (tmp_path / name).rename(tmp_path / "12345")
    require_filled(f"{web.address}/12345")


def test_nothing_to_be_known_is_one_sentence(web: FileServer, tmp_path: Path) -> None:
    (tmp_path / "page").write_text("<html>", encoding="utf-8")
    for name in ("page", "nothing"):
        with pytest.raises(VolumeNotFoundError, match=f"no volume at {web.address}/{name} that"):
            open_volume(f"{web.address}/{name}")


@pytest.mark.parametrize("format_", FORMATS)
def test_an_http_address_with_nothing_behind_it_is_named(web: FileServer, format_: str) -> None:
    address = f"{format_}://{web.address}/nothing"
    with pytest.raises(VolumeNotFoundError) as refusal:
        open_volume(address)
    assert str(refusal.value) == (
        f"{address} is not there: this address has no {format_} volume; check it"
    )


def test_a_format_that_servers_do_not_serve_is_named(web: FileServer) -> None:
    with pytest.raises(VolumeFormatError, match="png volumes are read from local files only"):
        open_volume(f"png://{web.address}/sections")
