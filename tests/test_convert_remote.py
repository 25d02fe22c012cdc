"""Conversions to and from servers: receipts as objects, resumed and verified like local ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conversions import After
from floodem.errors import DestinationExistsError, LabelError, RunConflictError, StoppedError
from floodem.geometry import VoxelSize, Zyx
from floodem.volumes import convert, create_volume, open_volume, verify
from floodem.volumes.conversion import block_plan

SHAPE: Zyx = (8, 9, 10)
ARRAY = np.random.default_rng(2).integers(0, 2**15, SHAPE).astype(np.uint16)
FORMATS = ("zarr", "zarr3", "n5", "precomputed")
OPTIONS: dict[str, Any] = {"chunks": (2, 3, 4), "voxel_size": VoxelSize(30, 6, 4), "threads": 1}


@pytest.fixture(autouse=True)
def environment(no_servers: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_plan, "BLOCK_BYTES", 600)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    with create_volume(tmp_path / "em.h5", shape=SHAPE, dtype="uint16", chunks=(2, 3, 4)) as new:
        new.write(new.box, ARRAY)
    return tmp_path / "em.h5"


def record_in(bucket: Any) -> list[str]:
    return sorted(name.split(".floodem/")[1] for name in bucket.objects if ".floodem/" in name)


@pytest.mark.parametrize("format_", FORMATS)
def test_a_conversion_to_a_bucket_leaves_a_compact_record_and_is_whole(
    bucket: Any, source: Path, format_: str
) -> None:
    to = f"{format_}://{bucket.root}/em"
    made = convert(source, to, pyramid=1, **OPTIONS)
    assert made.levels == 2
    assert record_in(bucket) == ["conversion.json", "receipts.txt"]
    assert verify(to).is_whole
    with open_volume(to) as copy:
        np.testing.assert_array_equal(copy.read(), ARRAY)
    assert convert(source, to, pyramid=1, **OPTIONS).was_finished
    convert(to, source.with_name("back.npy"))
    np.testing.assert_array_equal(np.load(source.with_name("back.npy")), ARRAY)


@pytest.mark.parametrize("format_", FORMATS)
def test_a_stopped_conversion_to_a_bucket_goes_on(bucket: Any, source: Path, format_: str) -> None:
    to, whole = f"{format_}://{bucket.root}/to/em", f"{format_}://{bucket.root}/whole/em"
    convert(source, whole, pyramid=1, **OPTIONS)
    with pytest.raises(StoppedError):
        convert(source, to, pyramid=1, should_stop=After(5), **OPTIONS)
    blocks = [name for name in record_in(bucket) if name.startswith("running/blocks/")]
    assert len(blocks) == 5
    found = verify(to)
    assert found.is_whole
    assert not found.is_finished
    assert found.levels[0].receipts == 5
    assert convert(source, to, pyramid=1, **OPTIONS).resumed_blocks == 5
    objects = {
        kind: {
            name.split("/", 1)[1]: data
            for name, data in bucket.objects.items()
            if name.startswith(f"{kind}/")
        }
        for kind in ("to", "whole")
    }
    assert objects["to"] == objects["whole"] != {}


def test_other_options_are_refused_until_overwrite_begins_again(bucket: Any, source: Path) -> None:
    to = f"zarr://{bucket.root}/em"
    with pytest.raises(StoppedError):
        convert(source, to, should_stop=After(5), **OPTIONS)
    with pytest.raises(RunConflictError, match="begun without --dtype, now with --dtype uint32"):
        convert(source, to, dtype="uint32", **OPTIONS)
    convert(source, to, dtype="uint32", overwrite=True, **OPTIONS)
    with open_volume(to) as copy:
        assert copy.dtype == np.uint32
        np.testing.assert_array_equal(copy.read(), ARRAY)
    with pytest.raises(DestinationExistsError):
        convert(source, to, dtype="uint64", **OPTIONS)


def test_lost_objects_are_found(bucket: Any, source: Path) -> None:
    to = f"zarr://{bucket.root}/em"
    convert(source, to, **OPTIONS)
    del bucket.objects["em/1/2/0"]
    (damage,) = verify(to).damages
    assert str(damage.box) == "2:4,6:9,0:4"
    assert "missing" in damage.reason


def test_a_refused_value_says_so_and_begins_again_with_overwrite(s3: Any, source: Path) -> None:
    to = "zarr://s3://bucket/em"
    with pytest.raises(LabelError, match="do not fit uint8"):
        convert(source, to, dtype="uint8", **OPTIONS)
    convert(source, to, overwrite=True, **OPTIONS)
    assert verify(to).is_whole


def test_signatures_in_addresses_are_not_recorded(s3: Any, source: Path, tmp_path: Path) -> None:
    convert(source, "zarr://s3://bucket/em", **OPTIONS)
    uri = f"zarr://{s3.address}/bucket/em?X-Amz-Signature=SECRET"
    convert(uri, tmp_path / "copy.npy")
    record = tmp_path / "copy.npy.floodem" / "conversion.json"
    assert "SECRET" not in record.read_text()
    assert "/bucket/em" in record.read_text()
