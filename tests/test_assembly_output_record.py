"""The record of a cut run: begun once, refused to others, and never full of secrets."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assembly_cases import PLAN, SIZE, files
from floodem.assembly.run_record import RunRecord, image_identity, work_address
from floodem.cluster.crew import ALONE, Crew, Shard
from floodem.errors import (
    DestinationExistsError,
    OptionError,
    RunConflictError,
    UsageError,
    VolumeFormatError,
)
from floodem.flooding.addresses import Outputs, require_apart
from floodem.flooding.request import SegmentRequest
from floodem.flooding.run_folder import RunFolder, RunStatus
from floodem.flooding.segment import state_folder
from floodem.volumes import create_volume, open_volume

IDENTITY: dict[str, Any] = {
    "image": {"uri": "em.zarr", "bytes": 5},
    "model": "a" * 64,
    "options": {"move_threshold": 0.9},
}
KEPT = {"block": [12, 10, 20], "levels": []}


def begun(uri: str, *, replaces: bool = False, **values: Any) -> RunRecord:
    record = RunRecord(uri)
    given: dict[str, Any] = {"identity": IDENTITY, "plan": KEPT, "about": {}, **values}
    record.begin(given["identity"], plan=given["plan"], about=given["about"], replaces=replaces)
    return record


@pytest.fixture(params=["local", "s3", "gs"])
def uri(request, tmp_path, no_servers, monkeypatch) -> str:
    if request.param == "local":
        return f"{tmp_path}/脳 の seg.zarr"
    request.getfixturevalue(request.param)
    return f"zarr://{request.param}://bucket/to/seg"


def test_a_run_is_begun_once_and_gone_on_with(uri):
    record = begun(uri)
    again = begun(uri)
    assert again.read() == record.read()
    assert record.read()["status"] == RunStatus.BEGUN
    record.state(RunStatus.WRITING)
    assert begun(uri).read()["status"] == RunStatus.WRITING
    assert record.summary() is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"identity": {**IDENTITY, "options": {"move_threshold": 0.8}}},
            "options.move_threshold = 0.9, now it is 0.8",
        ),
        (
            {"identity": {**IDENTITY, "model": "b" * 64}},
            r"model = aaaaaaaaaaaa\.\.\., now it is bbbbbbbbbbbb\.\.\.",
        ),
        (
            {"plan": {**KEPT, "block": [12, 10, 30]}},
            r"plan.block = \[12, 10, 20\], now it is \[12, 10, 30\]",
        ),
        ({"identity": {**IDENTITY, "seed_mask": "c"}}, "seed_mask = nothing, now it is c"),
    ],
)
def test_a_run_of_something_else_is_refused_by_the_first_value_that_differs(uri, change, says):
    before = begun(uri).read()
    with pytest.raises(RunConflictError, match=f"was begun with {says}.*--overwrite"):
        begun(uri, **change)
    assert RunRecord(uri).read() == before


def test_of_two_starters_with_other_options_one_is_refused(uri):
    identities = [{**IDENTITY, "model": letter * 64} for letter in "abcdefgh"]
    refused = []
    barrier = threading.Barrier(len(identities))

    def start(identity: dict[str, Any]) -> None:
        record = RunRecord(uri)
        barrier.wait()
        try:
            record.begin(identity, plan=KEPT, about={}, replaces=False)
        except RunConflictError:
            refused.append(identity)

    threads = [threading.Thread(target=start, args=(one,)) for one in identities]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == len(identities) - 1
    there = RunRecord(uri).read()
    assert there["identity"] not in refused


def test_what_is_there_and_of_nobody_known_stays(uri):
    shape = (4, 4, 4)
    create_volume(uri, shape=shape, dtype="uint8").close()
    with pytest.raises(DestinationExistsError, match="no run of floodem made it"):
        begun(uri)
    assert RunRecord(uri).read() is None
    record = begun(uri, replaces=True)
    assert record.read()["status"] == RunStatus.REPLACING
    assert begun(uri).read()["replaces"] is True
    with open_volume(uri) as volume:
        assert volume.shape == shape


def test_damaged_volumes_and_other_files_in_the_way_are_refused_too(tmp_path):
    (tmp_path / "seg.zarr").mkdir()
    (tmp_path / "seg.zarr" / ".zarray").write_text("{]")
    (tmp_path / "seg.h5").write_bytes(b"no hdf5")
    (tmp_path / "folder.zarr").mkdir()
    (tmp_path / "folder.zarr" / "mine.txt").write_text("mine")
    (tmp_path / "empty.zarr").mkdir()
    (tmp_path / "store.zarr" / "seg").mkdir(parents=True)
    for name in ("seg.zarr", "seg.h5", "folder.zarr", "empty.zarr", "store.zarr@seg"):
        with pytest.raises(DestinationExistsError, match="exists already"):
            begun(str(tmp_path / name))


def test_a_finished_run_says_so_as_long_as_its_labels_are_there(uri):
    record = begun(uri)
    record.state(RunStatus.DONE, summary={"segments": 5})
    assert record.summary() is None
    create_volume(uri, shape=(4, 4, 4), dtype="uint64").close()
    assert begun(uri).summary() == {"segments": 5}


def test_clearing_leaves_the_destination_and_what_is_not_ours(uri):
    create_volume(uri, shape=(4, 4, 4), dtype="uint64").close()
    record = begun(uri, replaces=True)
    store = record._store
    ours = [
        "receipts/labels/a.json",
        "blocks/a.npz",
        "mapping/a.npz",
        "joins.csv",
        "destination.json",
        "labels.zarr/.zarray",
        "log.txt",
        "seeds.csv",
    ]
    for name in ours:
        store.write(name, b"{}")
    store.write("mine.txt", b"notes")
    store.write("lock", b"")
    record.clear(crew=ALONE)
    assert store.names() == ["lock", "mine.txt"]
    open_volume(uri).close()
    assert record.read() is None


def test_receipts_go_first_and_the_run_last(uri, monkeypatch):
    record = begun(uri)
    removed = []
    real = type(record._store).delete_below
    monkeypatch.setattr(
        type(record._store),
        "delete_below",
        lambda store, prefix: removed.append(prefix) or real(store, prefix),
    )
    record.clear(crew=ALONE)
    assert removed[0] == "receipts/"
    assert removed[-1] == "run.json"


def test_one_of_many_shards_does_not_clear(uri):
    record = begun(uri)
    with pytest.raises(OptionError, match=r"--overwrite would remove .* than 2/8"):
        record.clear(crew=Crew(shard=Shard(number=2, count=8)))
    assert record.read() is not None


def test_a_thousand_objects_are_cleared_on_a_server(s3, no_servers, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.address)
    record = begun("zarr://s3://bucket/seg")
    for number in range(1000):
        s3.put(f"seg.floodem/blocks/{number}.npz", b"")
    s3.put("seg.floodemX/other", b"")
    record.clear(crew=ALONE)
    assert list(s3.objects) == ["seg.floodemX/other"]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (b"", "damaged"),
        (b"[1, 2]", "no JSON object"),
        (b'{"version": 99}', "has version 99; this floodem reads 1"),
        (b'{"version": 1, "plan": {}, "identity": 5}', "something is missing"),
        (b"[" * 100_000, "damaged"),
    ],
)
def test_a_damaged_record_is_refused(uri, damage, says):
    record = begun(uri)
    record._store.write("run.json", damage)
    with pytest.raises(RunConflictError, match=f"{says}.*--overwrite"):
        begun(uri)


def test_cut_and_uncut_runs_do_not_mix(tmp_path):
    """Both keep their record in DST.floodem."""
    uri = f"{tmp_path}/seg.zarr"
    assert work_address(uri) == str(state_folder(uri))
    uncut = RunFolder(state_folder(uri), destination=uri)
    with uncut.hold():
        uncut.begin(
            {"identity": IDENTITY, "about": {}},
            status=RunStatus.BEGUN,
            save=lambda path: path.write_bytes(b"checkpoint"),
        )
    with pytest.raises(RunConflictError, match="as one uncut block.*without --block"):
        begun(uri)
    RunRecord(uri).clear(crew=ALONE)
    assert set(files(tmp_path)) <= {"seg.zarr.floodem/lock"}
    begun(uri, replaces=True)
    with pytest.raises(RunConflictError, match="cut into blocks.*remove that folder"):
        uncut.require_uncut()


def test_no_secret_reaches_the_record(uri):
    secret = "https://user:password@host/em.zarr?X-Amz-Signature=SECRET"
    record = begun(
        uri,
        identity={"image": {"uri": f"zarr://{secret}"}, "masks": [secret, {"uri": secret}]},
        about={"image": secret},
        plan={"source": [[secret]]},
    )
    record.state(RunStatus.DONE, summary={"image": secret, "all": [{"of": [secret]}]})
    text = record._store.read("run.json").decode()
    assert "https://host/em.zarr" in text
    for word in ("SECRET", "password", "user"):
        assert word not in text
    begun(
        uri,
        identity={
            "image": {"uri": "zarr://https://host/em.zarr?X-Amz-Signature=OTHER"},
            "masks": [secret.replace("SECRET", "OTHER"), {"uri": secret}],
        },
        plan={"source": [[secret]]},
    )


def test_images_are_known_by_what_can_be_seen_without_reading_them(tmp_path, monkeypatch):
    path = tmp_path / "em.zarr"
    with create_volume(path, shape=(8, 8, 8), dtype="uint8", chunks=(4, 4, 4)) as volume:
        volume.write(volume.box, np.ones((8, 8, 8), np.uint8))

    def seen() -> dict[str, Any]:
        with open_volume(path) as image:
            return image_identity(image, box=PLAN.box, voxel_size=SIZE)

    first = seen()
    assert first == seen()
    json.dumps(first)
    assert first["files"] == 10
    assert first["segmented"] == str(PLAN.box)
    assert first["voxel_size_nm_zyx"] == [30, 6, 6]
    with open_volume(path, writable=True) as image:
        image.write(image.box, np.full((8, 8, 8), 2, np.uint8))
    assert seen() != first
    monkeypatch.setattr("floodem.assembly.run_record.MOST_FILES", 5)
    few = seen()
    assert "files" not in few
    (path / ".zattrs").write_text("{}")
    assert seen() != few


def test_names_that_make_no_folder_are_refused():
    with pytest.raises(UsageError):
        work_address("zarr:///")


@pytest.mark.parametrize(
    ("output", "image", "is_lost"),
    [
        ("s3://b/em.zarr", "zarr://s3://b/em.zarr/", True),
        ("s3://b/em.zarr/seg.zarr", "s3://b/em.zarr", True),
        ("s3://b/em.zarr", "s3://b/em.zarr@raw/0", True),
        ("s3://b/em.zarr", "s3://b/em2.zarr", False),
        ("s3://b/x.n5@seg", "s3://b/x.n5@raw", False),
        ("s3://b/em.zarr", "gs://b/em.zarr", False),
        ("s3://b/em.zarr", "em.zarr", False),
        ("em.zarr", "s3://b/em.zarr", False),
    ],
)
def test_a_remote_destination_is_not_the_image_nor_around_it(output, image, is_lost):
    outputs = Outputs(labels=output)
    outputs.require_possible(may_be_remote=True)

    def check() -> None:
        require_apart(outputs, image=image, model=Path("m"), request=SegmentRequest())

    if not is_lost:
        check()
        return
    with pytest.raises(DestinationExistsError, match="is the image of this run"):
        check()


@pytest.mark.parametrize("may_be_remote", [True, False])
def test_addresses_that_are_only_read_are_refused(may_be_remote):
    with pytest.raises(VolumeFormatError, match="is remote and, as an http address, for reading"):
        Outputs(labels="zarr://https://host/seg").require_possible(may_be_remote=may_be_remote)


def test_an_uncut_run_to_a_server_is_told_to_be_cut():
    with pytest.raises(VolumeFormatError, match=r"is remote, where .* give --block z,y,x"):
        Outputs(labels="s3://bucket/seg.zarr").require_possible()
    with pytest.raises(VolumeFormatError, match="probabilities are written to local"):
        Outputs(labels="seg.zarr", probabilities="s3://bucket/p.zarr").require_possible(
            may_be_remote=True
        )
