"""Npz archives of the older programs: members read under bounds, and written in one piece.

In: a file that may be anything. Out: arrays of numbers, short strings and the bytes of
pickles, each no larger than what the file declares and what it can unpack to. Pickles
are handed on unread (floodem.legacy.results.unpickling).
"""

from __future__ import annotations

import contextlib
import difflib
import io
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format

from floodem.errors import UnsafeFileError, VolumeFormatError, VolumeNotFoundError
from floodem.files import making_folders, replacing, storage_error
from floodem.legacy.results.admitted import Array
from floodem.legacy.results.pickling import dump, dump_object
from floodem.legacy.results.unpickling import LARGEST_PICKLE, load_restricted
from floodem.memory import require_memory
from floodem.volumes.arrays.npy import NpyHeader
from floodem.volumes.damage import reading
from floodem.volumes.declared import native_dtype, require_plausible_deflate

_MEMBER = ".npy"
_KIND = "a result of the older program"
_LARGEST_TEXT = 2**24
"""Bytes of counters, requests and the like; honest ones have a few thousand."""

_PIECE_BYTES = 2**24
_LARGEST_DIRECTORY = 2**20
_DIRECTORY_END = struct.Struct("<4s4H2LH")
"""End of central directory: signature, disks, entries, its size and place, comment length."""
_DIRECTORY_END_SIGNATURE = b"PK\x05\x06"
_LONGEST_COMMENT = 2**16 - 1
_WIDE_END = struct.Struct("<4sQ2H2L4Q")
_WIDE_END_SIGNATURE, _WIDE_LOCATOR_BYTES = b"PK\x06\x06", 20
_ALLOWED_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_ENCRYPTED = 0x1


class Archive:
    """An open npz file. Made by `open_archive`."""

    def __init__(self, archive: zipfile.ZipFile, *, path: Path) -> None:
        self.path = path
        self._archive = archive
        self.keys = tuple(
            name.removesuffix(_MEMBER) for name in archive.namelist() if name.endswith(_MEMBER)
        )

    def require(self, *keys: str) -> None:
        """Refuse an archive that lacks one of these members.

        Raises
        ------
        VolumeFormatError
            Naming what it holds instead.
        """
        for key in keys:
            if key not in self.keys:
                near = difflib.get_close_matches(key, self.keys, n=1, cutoff=0)
                held = f"nearest: {near[0]}" if near else "it holds no array"
                raise VolumeFormatError(
                    f"{self.path} has no member {key!r} ({held}): give a file that the older "
                    "program wrote"
                )

    def header(self, key: str) -> NpyHeader:
        """Return what a member declares, held against what the archive says of it.

        Raises
        ------
        VolumeFormatError, UnsafeFileError
            When the two differ, or the member cannot unpack to that.
        """
        self.require(key)
        member = self._archive.getinfo(key + _MEMBER)
        if member.compress_type not in _ALLOWED_METHODS or member.flag_bits & _ENCRYPTED:
            raise VolumeFormatError(
                f"{self.path} packs its member {key!r} in a way that numpy does not write: save "
                "it again with numpy"
            )
        require_plausible_deflate(
            member.file_size, stored_bytes=member.compress_size, uri=str(self.path)
        )
        with reading(self.path, kind=_KIND), self._archive.open(member) as handle:
            header = NpyHeader(handle, uri=str(self.path))
        if not header.dtype.hasobject and header.data_start + header.data_bytes != member.file_size:
            raise VolumeFormatError(
                f"{self.path} declares {header.data_start + header.data_bytes} bytes in its member "
                f"{key!r} and holds {member.file_size}: it is damaged"
            )
        return header

    def numbers(self, key: str) -> Array:
        """Return a member that is an array of numbers, in native byte order and C order.

        Raises
        ------
        VolumeFormatError
            When it is damaged or something else.
        ResourceError
            When it does not fit in memory.
        """
        header = self.header(key)
        if header.dtype.kind not in "biuf":
            raise VolumeFormatError(
                f"{self.path} holds {header.dtype} in its member {key!r}, not numbers: it is no "
                "result of the older program"
            )
        require_memory(
            needed_bytes=header.data_bytes,
            purpose=f"unpacking {self.path}",
            remedy="give a result with smaller subvolumes",
        )
        with reading(self.path, kind=_KIND), self._member(key) as handle:
            array = npy_format.read_array(handle, allow_pickle=False)
        return np.ascontiguousarray(array, dtype=header.dtype.newbyteorder("=")).reshape(
            header.shape
        )

    def pieces(self, key: str) -> Iterator[Array]:
        """Give the numbers of a member one piece after the other, as they are stored.

        Raises
        ------
        VolumeFormatError
            When it is damaged or something else.
        """
        header = self.header(key)
        native_dtype(header.dtype, uri=str(self.path))
        size = _PIECE_BYTES - _PIECE_BYTES % header.dtype.itemsize
        with reading(self.path, kind=_KIND), self._member(key) as handle:
            handle.read(header.data_start)
            while data := handle.read(size):
                yield np.frombuffer(data, header.dtype)

    def text(self, key: str) -> bytes:
        """Return a member that is one string: its bytes, those of text as UTF-8.

        Raises
        ------
        VolumeFormatError
            When it is damaged, something else, or longer than any of this kind.
        """
        header = self.header(key)
        if header.shape != () or header.dtype.kind not in "SU":
            raise VolumeFormatError(
                f"{self.path} holds {header.dtype} of shape {header.shape} in its member {key!r}, "
                "not one string: it is no result of the older program"
            )
        if header.data_bytes > _LARGEST_TEXT:
            raise UnsafeFileError(
                f"{self.path} declares {header.data_bytes} bytes of text in its member {key!r}, "
                f"and no more than {_LARGEST_TEXT} are read"
            )
        with reading(self.path, kind=_KIND), self._member(key) as handle:
            array = npy_format.read_array(handle, allow_pickle=False)
            if header.dtype.kind == "U":
                return str(array.item()).encode()
        # One zero byte is how numpy keeps an empty string; others at the end are part of it.
        data = array.tobytes()
        return b"" if data == b"\0" else data

    def value(self, key: str) -> Any:
        """Return a member whatever it is: numbers, a string, or what a pickle holds.

        Raises
        ------
        VolumeFormatError, UnsafeFileError
            When it is damaged or holds what no result holds.
        """
        header = self.header(key)
        if header.dtype.kind in "biuf":
            return self.numbers(key)
        if header.dtype.kind in "SU" and header.shape == ():
            return self.text(key)
        if not header.dtype.hasobject:
            with reading(self.path, kind=_KIND), self._member(key) as handle:
                if header.data_bytes > _LARGEST_TEXT:
                    raise ValueError(f"{key!r} declares {header.data_bytes} bytes of text")
                return npy_format.read_array(handle, allow_pickle=False)
        size = self._archive.getinfo(key + _MEMBER).file_size - header.data_start
        if size > LARGEST_PICKLE:
            raise UnsafeFileError(
                f"{self.path} holds {size} bytes of pickle in its member {key!r}, and no more than "
                f"{LARGEST_PICKLE} are read: give a result with smaller subvolumes"
            )
        with reading(self.path, kind=_KIND), self._member(key) as handle:
            data = handle.read()[header.data_start :]
        array = load_restricted(data, source=f"{self.path}, member {key!r},")
        if not isinstance(array, np.ndarray) or array.size != int(np.prod(header.shape)):
            raise VolumeFormatError(
                f"{self.path} holds something else in its member {key!r} than it declares: it is "
                "damaged"
            )
        return array.item() if array.shape == () and header.shape == () else array

    def _member(self, key: str) -> IO[bytes]:
        return self._archive.open(key + _MEMBER)


@contextlib.contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Open an npz file for the body.

    Raises
    ------
    VolumeNotFoundError
        When there is no such file.
    VolumeFormatError, UnsafeFileError
        When it is no archive, or its directory is beyond all measure.
    StorageError
        When it cannot be read.
    """
    try:
        handle = open(path, "rb")  # noqa: SIM115 - closed below
    except FileNotFoundError:
        raise VolumeNotFoundError(f"there is no {path}: check the address") from None
    except OSError as error:
        raise storage_error("read", path, error) from error
    with handle:
        _require_small_directory(handle, path=path)
        with reading(path, kind=_KIND):
            archive = zipfile.ZipFile(handle)
        with archive:
            yield Archive(archive, path=path)


def _require_small_directory(handle: IO[bytes], *, path: Path) -> None:
    """Look at the size of a zip file's directory before all of it is read.

    References
    ----------
    PKWARE, APPNOTE.TXT 6.3.10, 4.3.14 and 4.3.16.
    """
    with reading(path, kind=_KIND):
        length = handle.seek(0, io.SEEK_END)
        tail_bytes = min(length, _DIRECTORY_END.size + _LONGEST_COMMENT)
        handle.seek(length - tail_bytes)
        tail = handle.read(tail_bytes)
        at = tail.rfind(_DIRECTORY_END_SIGNATURE)
        if at < 0 or len(tail) - at < _DIRECTORY_END.size:
            raise ValueError("it is no zip archive")
        size = _DIRECTORY_END.unpack_from(tail, at)[5]
        wide_at = length - tail_bytes + at - _WIDE_LOCATOR_BYTES - _WIDE_END.size
        if wide_at >= 0:
            handle.seek(wide_at)
            wide = handle.read(_WIDE_END.size)
            if wide.startswith(_WIDE_END_SIGNATURE):
                size = max(size, _WIDE_END.unpack(wide)[8])
        handle.seek(0)
    if size > _LARGEST_DIRECTORY:
        raise UnsafeFileError(
            f"{path} declares a directory of {size} bytes for a handful of members: it is damaged "
            "or made to exhaust memory"
        )


def write_archive(path: Path, members: Mapping[str, Any]) -> None:
    """Write an npz file in one piece, and the folders above it.

    Parameters
    ----------
    members
        Arrays, strings, bytes; anything else is pickled for the older programs.

    Raises
    ------
    VolumeFormatError
        When a value cannot be pickled for them.
    StorageError
        When the file system refuses; what was there before is still there.
    """
    packed = {key: _packed(value) for key, value in members.items()}
    with (
        making_folders(path.parent),
        replacing(path) as partial,
        zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for key, (array, pickled) in packed.items():
            with archive.open(key + _MEMBER, "w", force_zip64=True) as member:
                if pickled is None:
                    npy_format.write_array(member, array, allow_pickle=False)
                else:
                    _write_pickled(member, pickled, shape=array.shape)


def text_array(data: bytes) -> Array:
    """Return bytes as the array of one string that numpy keeps them in, zeros at the end too."""
    return np.frombuffer(data or b"\0", f"S{max(1, len(data))}").reshape(())


def _packed(value: Any) -> tuple[Array, bytes | None]:
    """Return a member's array, and its pickle where numpy would need one."""
    if isinstance(value, np.ndarray | np.generic | str | bytes | int | float):
        array = np.asarray(value)
        return array, dump(array) if array.dtype.hasobject else None
    return np.empty((), object), dump_object(value)


def _write_pickled(member: IO[bytes], pickled: bytes, *, shape: tuple[int, ...]) -> None:
    fields = {"descr": "|O", "fortran_order": False, "shape": shape}
    npy_format.write_array_header_1_0(member, fields)
    member.write(pickled)
