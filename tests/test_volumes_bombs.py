"""Files made to harm: small ones that unpack to much, and ones that carry programs."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import tensorstore
import tifffile

from floodem.errors import FloodemError
from floodem.volumes import create_volume, open_volume
from fuzz.driver import faults, open_in_a_process

BOMB_BYTES = 2**30
"""What the bombs declare or unpack to."""

BEARABLE_BYTES = 64 * 2**20


def _zeros_deflated(count: int) -> bytes:
    packer = zlib.compressobj(9)
    block = bytes(2**20)
    return b"".join(packer.compress(block) for _ in range(count // len(block))) + packer.flush()


def npz_bomb(folder: Path) -> str:
    """A member whose directory entry says little and whose data are many."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (4, 4, 4)}
    )
    path = folder / "bomb.npz"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("segmentation.npy", "w", force_zip64=True) as member,
    ):
        member.write(header.getvalue())
        for _ in range(BOMB_BYTES // 2**20):
            member.write(bytes(2**20))
    return str(path)


def png_bomb(folder: Path) -> str:
    """A small declared image before a long stream of pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 16, 16, 8, 0, 0, 0, 0)
    sections = folder / "sections"
    sections.mkdir()
    (sections / "s0.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", _zeros_deflated(BOMB_BYTES))
        + chunk(b"IEND", b"")
    )
    return str(sections)


def png_text_bomb(folder: Path) -> str:
    """A compressed text chunk that unpacks to much, in front of a sound picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    sections = folder / "sections"
    sections.mkdir()
    (sections / "s0.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 16, 8, 0, 0, 0, 0))
        + chunk(b"zTXt", b"floodem\0\0" + _zeros_deflated(BOMB_BYTES))
        + chunk(b"IDAT", zlib.compress(bytes(17 * 16)))
        + chunk(b"IEND", b"")
    )
    return str(sections)


def tiff_bomb(folder: Path) -> str:
    """A strip that unpacks to far more than its page holds."""
    path = folder / "bomb.tif"
    tifffile.imwrite(
        path, np.zeros((2, 16, 16), np.uint8), compression="zlib", photometric="minisblack"
    )
    packed = _zeros_deflated(BOMB_BYTES)
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        tags = file.pages[0].tags
        places = [tags["StripOffsets"].valueoffset, tags["StripByteCounts"].valueoffset]
    for place, value in zip(places, (len(data), len(packed)), strict=True):
        data[place : place + 4] = struct.pack("<I", value)
    path.write_bytes(bytes(data) + packed)
    return str(path)


def hdf5_bomb(folder: Path) -> str:
    """A dataset whose one chunk is a gigabyte of zeros in a few kilobytes."""
    path = folder / "bomb.h5"
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset(
            "raw", shape=(64, 64, 64), chunks=(64, 64, 64), dtype="u1", compression="gzip"
        )
        dataset.id.write_direct_chunk((0, 0, 0), _zeros_deflated(BOMB_BYTES))
    return str(path)


def _chunked_bomb(driver: str, metadata: dict, chunk: str) -> Callable[[Path], str]:
    def make(folder: Path) -> str:
        path = folder / "bomb.zarr"
        tensorstore.open(
            {
                "driver": driver,
                "kvstore": {"driver": "file", "path": f"{path.as_posix()}/"},
                "metadata": metadata,
            },
            create=True,
        ).result()
        (path / chunk).parent.mkdir(parents=True, exist_ok=True)
        (path / chunk).write_bytes(gzip.compress(bytes(BOMB_BYTES // 4), 9))
        return f"{driver}://{path}"

    return make


zarr_bomb = _chunked_bomb(
    "zarr",
    {
        "shape": [64, 64, 64],
        "chunks": [64, 64, 64],
        "dtype": "|u1",
        "compressor": {"id": "gzip", "level": 9},
    },
    "0.0.0",
)
zarr3_bomb = _chunked_bomb(
    "zarr3",
    {
        "shape": [64, 64, 64],
        "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [64, 64, 64]}},
        "codecs": ["bytes", {"name": "gzip", "configuration": {"level": 9}}],
    },
    "c/0/0/0",
)

BOMBS = (
    npz_bomb,
    png_bomb,
    png_text_bomb,
    tiff_bomb,
    hdf5_bomb,
    zarr_bomb,
    zarr3_bomb,
)


@pytest.mark.skipif(sys.platform == "win32", reason="memory is measured by POSIX calls")
@pytest.mark.parametrize("bomb", BOMBS, ids=lambda bomb: bomb.__name__)
def test_a_bomb_is_refused_or_read_in_little_memory(
    tmp_path: Path, bomb: Callable[[Path], str]
) -> None:
    sound = []
    for place in ("a.npz", "png://a", "a.tif", "a.h5", "a.zarr", "a.zarr3"):
        prefix, _, name = place.rpartition("://")
        uri = f"{prefix}://{tmp_path / name}" if prefix else str(tmp_path / name)
        create_volume(uri, shape=(2, 16, 16), dtype=np.uint8).close()
        sound.append(uri)
    case = {"name": bomb.__name__, "uri": bomb(tmp_path)}
    (ended,) = open_in_a_process([case], warm=sound)
    assert not faults([ended])
    assert ended["grown"] < BEARABLE_BYTES


class Program:
    """Unpickling it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


def _npz_with_a_program(folder: Path, marker: Path) -> str:
    path = folder / "seg.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for key in ("segmentation", "offset_zyx", "voxel_size_nm_zyx"):
            member = io.BytesIO()
            np.lib.format.write_array_header_1_0(
                member, {"descr": "|O", "fortran_order": False, "shape": (1,)}
            )
            archive.writestr(f"{key}.npy", member.getvalue() + pickle.dumps(Program(marker)))
    return str(path)


def _npy_with_a_program(folder: Path, marker: Path) -> str:
    path = folder / "seg.npy"
    with open(path, "wb") as handle:
        np.lib.format.write_array_header_1_0(
            handle, {"descr": "|O", "fortran_order": False, "shape": (1, 1, 1)}
        )
        handle.write(pickle.dumps(Program(marker)))
    return str(path)


def _npy_with_code_in_its_header(folder: Path, marker: Path) -> str:
    path = folder / "seg.npy"
    code = f"{{'descr': __import__('os').mkdir({str(marker)!r}), 'fortran_order': False}}"
    header = code.encode().ljust(246) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(64))
    return str(path)


@pytest.mark.parametrize(
    "make", [_npz_with_a_program, _npy_with_a_program, _npy_with_code_in_its_header]
)
def test_a_program_in_a_file_does_not_run(
    tmp_path: Path, make: Callable[[Path, Path], str]
) -> None:
    marker = tmp_path / "executed"
    with pytest.raises(FloodemError), open_volume(make(tmp_path, marker)) as volume:
        volume.read()
    assert not marker.exists()
