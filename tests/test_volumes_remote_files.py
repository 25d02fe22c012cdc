"""Single files on servers are read by ranges: HDF5, numpy, and any other reader's."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from floodem.errors import StorageError, UnsafeFileError, VolumeFormatError, VolumeNotFoundError
from floodem.geometry import Box, VoxelSize
from floodem.volumes import create_volume, open_volume
from floodem.volumes.arrays.rawfile import RangedArray
from floodem.volumes.servers.file import BLOCK_BYTES
from floodem.volumes.servers.transport import open_file
from servers.base import RESET, TRUNCATE, Answer, Asked, FakeServer, Fault
from servers.files import FileServer
from servers.gcs import GcsServer
from servers.s3 import S3Server

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def environment(no_servers: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("floodem.volumes.servers.patience._FIRST_DELAY_S", 0.01)


@pytest.fixture(params=["http", "s3", "gs"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A server, and how to put a file there: returns its address."""
    kinds = {"http": lambda: FileServer(tmp_path), "s3": S3Server, "gs": GcsServer}
    with kinds[request.param]() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.address)
        monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", server.address)

        def put(name: str, data: bytes) -> str:
            if request.param == "http":
                (tmp_path / name).write_bytes(data)
                return f"{server.address}/{name}"
            server.put(name, data)
            return f"{request.param}://bucket/{name}"

        server.put_file = put
        yield server


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


# --- files ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size", [0, 1, 2, 1000, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3_000_001]
)
def test_a_file_on_a_server_has_its_length_and_bytes(place: FakeServer, size: int) -> None:
    with open_file(place.put_file("a b ä", noise(size))) as file:
        assert file.seek(0, os.SEEK_END) == size
        assert file.read() == b""
        file.seek(0)
        assert file.read() == noise(size)


SIZE = 2_500_000


@pytest.fixture(scope="module")
def whole() -> bytes:
    return noise(SIZE)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, whole: bytes) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("served")
    (folder / "noise").write_bytes(whole)
    with FileServer(folder) as server:
        yield f"{server.address}/noise"


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(
            st.integers(0, SIZE + 10), st.sampled_from([0, 1, 100, 70_000, 600_000, SIZE, -1])
        ),
        min_size=1,
        max_size=12,
    )
)
def test_reads_in_any_order_give_the_bytes_of_the_file(
    served: str, whole: bytes, reads: list[tuple[int, int]]
) -> None:
    with open_file(served) as file:
        for start, length in reads:
            file.seek(start)
            assert file.read(length) == whole[start:][: length if length >= 0 else None]


def test_a_file_larger_than_what_is_kept_is_read(
    web: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("floodem.volumes.servers.file.CACHED_BLOCKS", 4)
    (tmp_path / "noise").write_bytes(noise(20 * BLOCK_BYTES + 7))
    with open_file(f"{web.address}/noise") as file:
        assert file.read() == noise(20 * BLOCK_BYTES + 7)
        assert len(file.raw._blocks) <= 4


def test_a_local_file_is_just_opened(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    with open_file(str(tmp_path / "a")) as file:
        file.seek(3)
        assert file.read() == b"45"
    with pytest.raises(StorageError, match="cannot read"):
        open_file(str(tmp_path / "b"))


def test_a_file_that_is_not_there_is_asked_for_once(place: FakeServer) -> None:
    address = place.put_file("there", b"1").replace("there", "missing")
    with pytest.raises(VolumeNotFoundError, match="missing is not there: check the address"):
        open_file(address)
    assert [asked.method for asked in place.asked if asked.path.endswith("missing")] == ["GET"]


@pytest.mark.parametrize("kind", [500, 503, 429, TRUNCATE, RESET])
def test_reading_a_file_goes_on_after_a_fault(place: FakeServer, kind: int | str) -> None:
    address = place.put_file("file", noise(2 * BLOCK_BYTES))
    opening, reading = Fault(kind, inside="file"), Fault(kind, times=3, inside="file")
    place.faults = [opening]
    with open_file(address) as file:
        place.faults = [reading]
        assert file.read() == noise(2 * BLOCK_BYTES)
    assert (opening.done, reading.done) == (1, 3)


def test_a_file_that_changes_meanwhile_is_not_mixed(place: FakeServer) -> None:
    address = place.put_file("file", noise(4 * BLOCK_BYTES))
    with open_file(address) as file:
        file.read(10)
        place.put_file("file", bytes(4 * BLOCK_BYTES))
        file.seek(3 * BLOCK_BYTES)
        with pytest.raises(StorageError, match="was changed on the server"):
            file.read(10)


def test_a_server_without_ranges_is_refused(tmp_path: Path) -> None:
    (tmp_path / "em.h5").write_bytes(noise(BLOCK_BYTES))
    with FileServer(tmp_path, ranges=False) as server:
        with pytest.raises(StorageError, match="sends only whole files: download it"):
            open_volume(f"{server.address}/em.h5")
        assert server.sent_bytes <= BLOCK_BYTES


class Elsewhere(FakeServer):
    """Sends everybody to another server."""

    target = ""

    def answer(self, asked: Asked) -> Answer:
        return Answer(302, headers={"Location": f"{self.target}{asked.path}?Signature=SECRET"})


def test_a_file_that_is_elsewhere_is_read_there(web: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(noise(3000))
    create_volume(tmp_path / "em.zarr", shape=(2, 3, 4), dtype="uint8").close()
    with Elsewhere() as first:
        first.target = web.address
        address = first.address.replace("//", "//me:hush@")
        with open_file(f"{address}/file") as file:
            assert file.read() == noise(3000)
        assert len(first.asked) == 1
        assert "authorization" in first.asked[0].headers
        # A password is for the server that it was given for.
        assert not any("authorization" in asked.headers for asked in web.asked)
        with pytest.raises(StorageError, match=r"sends us to another address \(HTTP 302") as caught:
            open_volume(f"{first.address}/em.zarr")
        assert "SECRET" not in str(caught.value)
        first.target = "ftp://127.0.0.1"
        with pytest.raises(StorageError):
            open_file(f"{first.address}/file")


# --- HDF5 -------------------------------------------------------------------------


def test_hdf5_on_a_server_is_read_in_parts(place: FakeServer, tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 255, (100, 200, 300), np.uint8)
    with create_volume(
        tmp_path / "local.h5@a/raw",
        shape=array.shape,
        dtype="uint8",
        voxel_size=VoxelSize(30, 6, 6),
        offset=(1, 2, 3),
    ) as volume:
        volume.write(volume.box, array)
    with h5py.File(tmp_path / "local.h5", "a") as file:
        file["mask"] = array[:2] > 7
    data = (tmp_path / "local.h5").read_bytes()
    address = place.put_file("em.h5", data)
    box = Box((11, 12, 13), (44, 45, 46))
    for uri in (f"{address}@a/raw", f"{address}:/a/raw", f"hdf5://{address}@a/raw"):
        place.sent_bytes = 0
        with open_volume(uri) as volume:
            np.testing.assert_array_equal(
                volume.read(box), array[box.translate((-1, -2, -3)).slices()]
            )
            assert (volume.offset, volume.voxel_size) == ((1, 2, 3), VoxelSize(30, 6, 6))
        assert place.sent_bytes < len(data) / 3
    with pytest.raises(VolumeFormatError, match=f"holds a/raw, mask: name one, as in {address}@"):
        open_volume(address)
    with pytest.raises(VolumeNotFoundError, match="'b' is not there; it holds mask, a/raw"):
        open_volume(f"{address}@b")


def test_chunks_of_one_box_are_asked_for_at_once(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 255, (64, 512, 512), np.uint8)
    with h5py.File(tmp_path / "em.h5", "w") as file:
        file.create_dataset("raw", data=array, chunks=(64, 64, 64), compression="gzip")
    with FileServer(tmp_path) as server, open_volume(f"{server.address}/em.h5") as volume:
        volume.read(Box((0, 0, 0), (1, 1, 1)))
        server.delay_s = 0.2
        server.asked.clear()
        began = time.monotonic()
        volume.read(Box((0, 0, 0), (1, 512, 1)))
        took = time.monotonic() - began
        assert len(server.asked) > 4
        assert took < 0.2 * len(server.asked) / 2


def test_a_remote_file_leads_to_no_file_of_this_machine(web: FileServer, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["raw"] = np.full((3, 4, 5), 7, np.uint8)
    (tmp_path / "voxels.bin").write_bytes(b"\7" * 60)
    with h5py.File(tmp_path / "em.h5", "w") as file:
        file["link"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/raw")
        file.create_dataset(
            "stored", (3, 4, 5), "u1", external=[(str(tmp_path / "voxels.bin"), 0, 60)]
        )
    for name in ("link", "stored"):
        for allow in (False, True):
            with pytest.raises(UnsafeFileError, match="another file"):
                open_volume(f"{web.address}/em.h5@{name}", allow_external=allow)


def test_a_remote_hdf5_file_that_is_damaged_is_one_sentence(
    web: FileServer, tmp_path: Path
) -> None:
    with create_volume(tmp_path / "em.h5", shape=(30, 40, 50), dtype="uint8") as volume:
        volume.write(volume.box, np.ones((30, 40, 50), np.uint8))
    data = (tmp_path / "em.h5").read_bytes()
    for kept in (0, 8, 100, len(data) // 2):
        (tmp_path / "em.h5").write_bytes(data[:kept])
        with pytest.raises(VolumeFormatError, match="cannot be read as HDF5") as caught:
            open_volume(f"{web.address}/em.h5")
        assert "\n" not in str(caught.value)


def test_a_fault_that_lasts_is_named_by_the_reader_of_a_file(
    web: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_volume(tmp_path / "em.h5", shape=(300, 40, 50), dtype="uint8").close()
    np.save(tmp_path / "em.npy", np.zeros((300, 400, 50), np.uint8))
    for name in ("em.h5", "em.npy"):
        monkeypatch.delenv("FLOODEM_REMOTE_DEADLINE", raising=False)
        web.faults = []
        with open_volume(f"{web.address}/{name}") as volume:
            monkeypatch.setenv("FLOODEM_REMOTE_DEADLINE", "0.5")
            web.faults = [Fault(503, times=10**6)]
            if name == "em.npy":
                with pytest.raises(StorageError, match=f"cannot read {web.address}/em.npy: HTTP 5"):
                    volume.read()
            web.faults = [Fault(403, times=10**6)]
        with pytest.raises(StorageError, match=f"{name}: the server denies access"):
            open_volume(f"{web.address}/{name}")


# --- numpy --------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(
    ("axes", "channel"), [("zyx", None), ("xyz", None), ("czyx", 1), ("yxcz", 2), ("xtyz", None)]
)
def test_npy_on_a_server_is_read_in_parts(
    place: FakeServer, tmp_path: Path, axes: str, channel: int | None, order: str
) -> None:
    lengths = {"z": 5, "y": 6, "x": 7, "c": 3, "t": 1}
    shape = [lengths[letter] for letter in axes]
    array = np.arange(np.prod(shape)).reshape(shape).astype(">u2")
    np.save(tmp_path / "local.npy", np.asarray(array, order=order))
    address = place.put_file("em.npy", (tmp_path / "local.npy").read_bytes())
    with (
        open_volume(tmp_path / "local.npy", axes=axes, channel=channel) as local,
        open_volume(address, axes=axes, channel=channel) as volume,
    ):
        assert volume.shape == local.shape == (5, 6, 7)
        for box in (volume.box, Box((1, 2, 3), (2, 6, 5)), Box((0, 0, 6), (5, 6, 7))):
            np.testing.assert_array_equal(volume.read(box), local.read(box))
            assert volume.read(box).dtype == np.uint16


@given(data=st.data())
def test_any_index_into_a_file_gives_what_it_gives_in_memory(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    array = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    path = tmp_path_factory.getbasetemp() / "indexed"
    path.write_bytes(b"head" + array.tobytes())
    index = []
    for length in shape:
        start = data.draw(st.integers(0, length - 1))
        index.append(data.draw(st.sampled_from([start, slice(start, length), slice(0, start + 1)])))
    with open(path, "rb") as handle:
        stored = RangedArray(handle, start=4, shape=tuple(shape), dtype=array.dtype, uri="file")
        np.testing.assert_array_equal(stored[tuple(index)], array[tuple(index)])


def test_an_npy_file_cut_short_on_a_server_is_refused(web: FileServer, tmp_path: Path) -> None:
    np.save(tmp_path / "em.npy", np.zeros((3, 4, 5)))
    (tmp_path / "em.npy").write_bytes((tmp_path / "em.npy").read_bytes()[:-1])
    with pytest.raises(VolumeFormatError, match="cut short"):
        open_volume(f"{web.address}/em.npy")


def test_an_archive_on_a_server_is_read(place: FakeServer, tmp_path: Path) -> None:
    array = np.arange(60, dtype=np.uint64).reshape(3, 4, 5)
    np.savez_compressed(tmp_path / "local.npz", raw=array, other=np.zeros(2_000_000))
    address = place.put_file("em.npz", (tmp_path / "local.npz").read_bytes())
    for uri in (address, f"{address}@raw"):
        with open_volume(uri) as volume:
            np.testing.assert_array_equal(volume.read(), array)


# --- stalls --------------------------------------------------------------------------

_STALLING = textwrap.dedent(
    """
    import os
    import sys
    import time
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path

    import numpy as np

    from floodem.errors import StorageError
    from floodem.volumes import create_volume, open_volume
    from floodem.volumes.servers.transport import open_file
    from servers.base import STALL, STALL_INSIDE, Fault
    from servers.files import FileServer
    from servers.s3 import S3Server

    folder = Path(sys.argv[1])
    array = np.random.default_rng(0).integers(0, 2**60, (20, 30, 40), np.uint64)

    def fill(uri):
        with create_volume(uri, shape=array.shape, dtype="uint64", chunks=(10, 30, 40)) as volume:
            volume.write(volume.box, array)

    def require_filled(uri):
        with open_volume(uri) as volume:
            assert (volume.read() == array).all()

    def read_chunks():
        with FileServer(folder) as server:
            server.faults = [Fault(STALL, inside="/0/"), Fault(STALL_INSIDE, inside="/1/")]
            require_filled(f"{server.address}/em.zarr")
            assert all(fault.done == 1 for fault in server.faults), server.faults

    def read_file():
        with FileServer(folder) as server:
            # The first request asks for the size, and has a share of the deadline.
            server.faults = [Fault(STALL, inside="/file", skip=1)]
            with open_file(f"{server.address}/file") as file:
                assert file.read() == bytes(1000)
            assert server.faults[0].done == 1, server.faults

    def write_chunks():
        with S3Server() as server:
            os.environ["AWS_ENDPOINT_URL"] = server.address
            server.faults = [Fault(STALL, method="PUT", inside="/em/1")]
            fill("zarr://s3://bucket/em")
            assert server.faults[0].done == 1, server.faults
            require_filled("zarr://s3://bucket/em")

    fill(folder / "em.zarr")
    (folder / "file").write_bytes(bytes(1000))
    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(act) for act in (read_chunks, read_file, write_chunks)]:
            done.result()
    os.environ["FLOODEM_REMOTE_DEADLINE"] = "2"
    with FileServer(folder) as server:
        server.faults = [Fault(STALL, times=1000)]
        began = time.monotonic()
        try:
            open_volume(f"{server.address}/em.zarr")
        except StorageError as error:
            print(error)
        assert 1 < time.monotonic() - began < 4, time.monotonic() - began
    """
)


def test_a_stalled_server_is_asked_again_until_the_deadline(tmp_path: Path) -> None:
    # A process of its own: how long a stall may last is read when the first server is asked.
    # What stops in the middle is noticed some seven seconds later, as speed is an average.
    script = tmp_path / "stalling.py"
    script.write_text(_STALLING, encoding="utf-8")
    path = os.pathsep.join([str(REPOSITORY / "src"), str(REPOSITORY / "tests")])
    done = subprocess.run(
        [sys.executable, script, tmp_path],
        env=os.environ
        | {
            "FLOODEM_REMOTE_DEADLINE": "20",
            "TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS": "1",
            "PYTHONPATH": path,
        },
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "cannot open http://127.0.0.1" in done.stdout
    assert "FLOODEM_REMOTE_DEADLINE=SECONDS" in done.stdout
