"""Segmentations on servers: whatever the server does, in the end all chunks are there once."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assembly_cases import PLAN, SIZE, SMALL, complete, made, truth, write_all, write_levels
from floodem.assembly.block_store import BlockStore
from floodem.assembly.destination import LabelDestination
from floodem.assembly.place import Place
from floodem.assembly.placing import finish, require_complete
from floodem.errors import DestinationExistsError, StorageError
from floodem.geometry import Box
from floodem.volumes import create_volume, open_volume
from servers.base import LOST, RESET, STALL, FakeServer, Fault

FORMATS = ("zarr", "zarr3", "n5", "precomputed")


@pytest.fixture(autouse=True)
def environment(no_servers: None) -> None:
    """No servers but the fake ones."""


def uri_of(bucket: Any, format_: str = "zarr", place: str = "to/seg") -> str:
    return f"{format_}://{bucket.root}/{place}"


def volume_in(bucket: Any, place: str = "to/seg") -> dict[str, bytes]:
    """The objects of a volume, without those of its run."""
    return {
        name.removeprefix(place): data
        for name, data in bucket.objects.items()
        if name.startswith(f"{place}/")
    }


@pytest.mark.parametrize("format_", FORMATS)
def test_all_chunks_of_all_levels_are_stored_on_servers(bucket: Any, format_: str) -> None:
    destination = complete(uri_of(bucket, format_), levels=1)
    with open_volume(destination.uri, writable=True) as labels:
        np.testing.assert_array_equal(labels.read(), truth())
        corner = Box.from_shape(labels.chunks, start=labels.offset)
        assert not labels.read(corner).any()
        assert [one.missing() for one in labels.levels] == [[], []]
        labels.write(corner, np.zeros(corner.shape, np.uint64))
        assert labels.missing() == [corner]
    with pytest.raises(StorageError, match=f"lacks the chunk {corner} .* of level 0"):
        require_complete(destination)


@pytest.mark.parametrize(
    ("server", "format_", "kind"),
    [
        ("s3", "zarr", 503),
        ("s3", "zarr3", 429),
        ("s3", "n5", RESET),
        ("s3", "precomputed", LOST),
        ("gs", "zarr", LOST),
        ("gs", "precomputed", 500),
    ],
)
def test_writing_goes_on_after_faults(
    request: pytest.FixtureRequest, server: str, format_: str, kind: int | str
) -> None:
    bucket = request.getfixturevalue(server)
    bucket.root = f"{server}://bucket"
    complete(uri_of(bucket, format_, "expected/seg"), plan=SMALL, levels=1)
    expected = volume_in(bucket, "expected/seg")
    destination, store = made(uri_of(bucket, format_), plan=SMALL, levels=1)
    # gs names what is written in its query.
    write = Fault(kind, inside="to/seg/") if server == "s3" else Fault(kind, inside="/upload/")
    write.method, write.times, write.skip = ("PUT" if server == "s3" else "POST"), 2, 1
    faults = [write, Fault(kind, inside="mapping/"), Fault(kind, inside=".zarr", skip=3)]
    bucket.faults = faults
    write_all(destination, store)
    write_levels(destination)
    finish(destination)
    assert all(fault.done for fault in faults)
    bucket.faults = []
    assert volume_in(bucket) == expected


@pytest.mark.slow
def test_a_stalled_write_is_cut_and_sent_again(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own, as the time after which a stall is cut is read once.

    That is a sixth of the deadline; the library underneath takes six seconds more to notice.
    """
    uri = "zarr://s3://bucket/to/seg"
    destination, store = made(uri, plan=SMALL, levels=0)
    write_all(destination, store)
    expected = dict(s3.objects)
    for name in expected:
        if name.startswith("to/seg/") and "/." not in name:
            del s3.objects[name]
    stall = Fault(STALL, inside="to/seg/", method="PUT", skip=1)
    s3.faults = [stall]
    monkeypatch.setenv("FLOODEM_REMOTE_DEADLINE", "20")
    began = time.monotonic()
    done = run_writer(uri)
    assert done.wait(60) == 0
    assert stall.done == 1
    assert time.monotonic() - began < 40
    assert {n: d for n, d in s3.objects.items() if n.startswith("to/seg/")} == {
        n: d for n, d in expected.items() if n.startswith("to/seg/")
    }


def test_a_server_that_stays_away_is_given_up_at_the_deadline(
    s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    destination, store = made("zarr://s3://bucket/to/seg", plan=SMALL, levels=0)
    s3.faults = [Fault(503, times=10**6, inside="to/seg/", method="PUT")]
    monkeypatch.setenv("FLOODEM_REMOTE_DEADLINE", "1")
    began = time.monotonic()
    with pytest.raises(
        StorageError, match=r"cannot write .*to/seg: HTTP 503 .*FLOODEM_REMOTE_DEAD"
    ):
        write_all(destination, store)
    assert time.monotonic() - began < 10
    asked = [one for one in s3.asked if one.method == "PUT" and "to/seg/" in one.path]
    assert len(asked) < 50, "requests do not back off"
    s3.faults = []
    write_all(destination, store)
    finish(destination)
    with open_volume(destination.uri) as labels:
        np.testing.assert_array_equal(labels.read(), truth(SMALL.box))


WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
from assembly_cases import write_small
write_small(sys.argv[2])
"""


def run_writer(uri: str) -> subprocess.Popen[bytes]:
    """Write all cores of the small plan in another process."""
    return subprocess.Popen([sys.executable, "-c", WRITER, str(Path(__file__).parent), uri])


@pytest.mark.parametrize("format_", ["zarr", pytest.param("zarr3", marks=pytest.mark.slow)])
def test_a_writer_killed_anywhere_leaves_what_the_next_one_completes(s3: Any, format_: str) -> None:
    uri = f"{format_}://s3://bucket/to/seg"
    complete(f"{format_}://s3://bucket/expected/seg", plan=SMALL, levels=0)
    expected = volume_in(s3, "expected/seg")
    destination, store = made(uri, plan=SMALL, levels=0)
    s3.delay_s = 0.05
    for left in (1, 3):
        before = len(volume_in(s3))
        process = run_writer(uri)
        while len(volume_in(s3)) < min(before + left, len(expected)) and process.poll() is None:
            time.sleep(0.005)
        process.kill()
        process.wait()
        for name, data in volume_in(s3).items():
            assert data == expected[name], "half a chunk"
    s3.delay_s = 0.0
    destination.create()
    write_all(destination, store)
    finish(destination)
    assert volume_in(s3) == expected


def test_several_starters_create_one_volume(bucket: Any) -> None:
    destination = LabelDestination.choose(uri_of(bucket), plan=PLAN, voxel_size=SIZE, levels=1)
    refused: list[Exception] = []
    barrier = threading.Barrier(6)

    def start() -> None:
        barrier.wait()
        try:
            destination.create()
        except Exception as error:  # noqa: BLE001 - shown below
            refused.append(error)

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refused == []
    assert destination.place() is Place.GROWING


def test_what_is_replaced_on_a_server_is_removed_once(bucket: Any) -> None:
    other = uri_of(bucket, "n5")
    with create_volume(other, shape=(8, 8, 8), dtype="uint8", chunks=(4, 4, 4)) as volume:
        volume.write(volume.box, np.ones((8, 8, 8), np.uint8))
    uri = uri_of(bucket, "zarr")
    destination = LabelDestination.choose(uri, plan=PLAN, voxel_size=SIZE, overwrite=True)
    barrier = threading.Barrier(4)
    failed: list[Exception] = []

    def start() -> None:
        barrier.wait()
        try:
            destination.create()
        except Exception as error:  # noqa: BLE001 - shown below
            failed.append(error)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert not [name for name in volume_in(bucket) if "attributes" in name or name == "/0/0/0"]
    _, store = made(uri, overwrite=True)
    write_all(destination, store)
    before = volume_in(bucket)
    destination.create()
    assert volume_in(bucket) == before


def test_what_somebody_else_wrote_to_a_server_stays(bucket: Any) -> None:
    uri = uri_of(bucket)
    create_volume(uri, shape=(4, 4, 4), dtype="uint64").close()
    before = volume_in(bucket)
    destination = LabelDestination.choose(uri, plan=PLAN, voxel_size=SIZE)
    with pytest.raises(DestinationExistsError, match="no run of floodem made it"):
        destination.create()
    assert volume_in(bucket) == before


def test_a_claim_of_a_killed_process_is_not_waited_for_for_ever(
    s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    destination = LabelDestination.choose(
        "zarr://s3://bucket/to/seg", plan=PLAN, voxel_size=SIZE, overwrite=True
    )
    s3.put("to/seg.floodem/destination.claim", b"somebody")
    monkeypatch.setenv("FLOODEM_REMOTE_DEADLINE", "1")
    destination.create()
    with open_volume(destination.uri) as volume:
        assert volume.box == PLAN.box


def test_blocks_and_labels_of_a_dataset_on_a_server(bucket: Any) -> None:
    uri = f"{bucket.root}/store.zarr3@inside/seg"
    destination = LabelDestination.choose(uri, plan=SMALL, voxel_size=SIZE, levels=0)
    made(uri, plan=SMALL, levels=0)
    store = BlockStore(address=destination.work, plan=SMALL)
    write_all(destination, store)
    finish(destination)
    with open_volume(uri) as labels:
        np.testing.assert_array_equal(labels.read(), truth(SMALL.box))


def test_nothing_is_asked_of_a_server_to_see_whether_labels_could_go_there(s3: FakeServer) -> None:
    destination = LabelDestination.choose("zarr://s3://bucket/seg", plan=PLAN, voxel_size=SIZE)
    destination.require_possible()
    assert s3.asked == []
