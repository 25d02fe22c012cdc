"""Chunks that floodem unpacks itself are what HDF5 gives."""

from __future__ import annotations

import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from floodem.volumes.hdf5.chunks import DeflatedChunks

SHAPE = (11, 20, 23)


@pytest.fixture(scope="module", params=["uint8", ">u2", "uint64", "float32", "bool"])
def dtype(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "shuffled"])
def file(
    request: pytest.FixtureRequest, dtype: str, tmp_path_factory: pytest.TempPathFactory
) -> h5py.File:
    path = tmp_path_factory.mktemp("chunks") / "em.h5"
    values = np.random.default_rng(0).integers(0, 200, SHAPE).astype(dtype)
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset(
            "raw",
            shape=SHAPE,
            chunks=(4, 8, 7),
            dtype=dtype,
            compression="gzip",
            shuffle=request.param,
            fillvalue=1,
        )
        # The last sections are never written.
        dataset[:7] = values[:7]
    with h5py.File(path) as file:
        yield file


@given(data=st.data())
def test_every_box_is_what_hdf5_reads(file: h5py.File, data: st.DataObject) -> None:
    dataset = file["raw"]
    box = []
    for length in SHAPE:
        start = data.draw(st.integers(0, length - 1))
        box.append(slice(start, data.draw(st.integers(start + 1, length))))
    chunks = DeflatedChunks.of(dataset)
    assert chunks is not None
    found = chunks.read(tuple(box))
    assert found.dtype == dataset.dtype
    np.testing.assert_array_equal(found, dataset[tuple(box)])


@pytest.mark.parametrize("dtype", ["u1", "u8"])
@pytest.mark.parametrize("shuffle", [False, True])
def test_noise_that_cannot_be_deflated_is_read(tmp_path: Path, dtype: str, shuffle: bool) -> None:
    shape = (64, 64, 64)
    noise = np.frombuffer(np.random.default_rng(0).bytes(64**3 * int(dtype[1])), dtype)
    values = noise.reshape(shape)
    with h5py.File(tmp_path / "em.h5", "w") as file:
        file.create_dataset("raw", data=values, chunks=shape, compression="gzip", shuffle=shuffle)
    with h5py.File(tmp_path / "em.h5") as file:
        chunks = DeflatedChunks.of(file["raw"])
        assert chunks is not None
        np.testing.assert_array_equal(chunks.read((slice(0, 64),) * 3), values)


def test_a_chunk_of_another_size_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "em.h5", "w") as file:
        dataset = file.create_dataset(
            "raw", shape=(4, 4, 4), chunks=(4, 4, 4), dtype="u1", compression="gzip"
        )
        chunks = DeflatedChunks.of(dataset)
        assert chunks is not None
        for size in (10, 65, 10**7):
            dataset.id.write_direct_chunk((0, 0, 0), zlib.compress(bytes(size)))
            with pytest.raises(ValueError, match="64 bytes"):
                chunks.read((slice(0, 4),) * 3)


@pytest.mark.parametrize(
    "options", [{"compression": "lzf"}, {"compression": "gzip", "fletcher32": True}, {}]
)
def test_other_pipelines_are_left_to_hdf5(tmp_path: Path, options: dict) -> None:
    with h5py.File(tmp_path / "em.h5", "w") as file:
        dataset = file.create_dataset(
            "raw", shape=(4, 4, 4), chunks=(4, 4, 4), dtype="u1", **options
        )
        assert DeflatedChunks.of(dataset) is None
