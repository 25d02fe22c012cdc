"""Volumes in chunks through tensorstore: zarr 2, zarr 3, n5 and Neuroglancer's precomputed.

A location comes in, a volume that reads and writes boxes (z, y, x) goes out.
Chunks are written whole or not at all, so that several processes may fill one
store at once, each its own chunks. What each format keeps is in chunked_layout.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from floodem.errors import (
    DestinationExistsError,
    FloodemError,
    StorageError,
    UnsafeFileError,
    VolumeFormatError,
    VolumeNotFoundError,
)
from floodem.geometry import Box, Zyx, tiles
from floodem.memory import available_memory
from floodem.volumes.chunked_layout import LAYOUTS, Layout, Meaning, arrays_inside
from floodem.volumes.declared import native_dtype, size_in_bytes
from floodem.volumes.location import Location
from floodem.volumes.packages import require_package
from floodem.volumes.registry import CreateRequest, OpenRequest, VolumeFormat
from floodem.volumes.staging import Staged
from floodem.volumes.stored import StoredVolume
from floodem.volumes.volume import Array, Volume

if TYPE_CHECKING:
    import tensorstore

_STATUS = re.compile(r"^([A-Z_]+): (.*?)(?: \[[a-z_]+=.*)?$", re.DOTALL)
_DAMAGE = ("FAILED_PRECONDITION", "DATA_LOSS", "INVALID_ARGUMENT", "OUT_OF_RANGE")
# A host that does not answer is given up after about eight seconds; tensorstore's own
# default is a quarter of an hour.
REMOTE_RETRIES = {"max_retries": 6, "initial_delay": "0.25s", "max_delay": "4s"}
# Reasons come last in a status: `Permission denied`, or `Invalid file path: "/a/../b"`.
_QUOTED_REASON = re.compile(r'[^:"]+: "[^"]*"$')
_ESCAPED_BYTES = re.compile(r"(?:\\x[0-9a-f]{2})+")


class ChunkedVolume(StoredVolume):
    """A view (z, y, x) of an open tensorstore."""

    def __init__(self, view: tensorstore.TensorStore, **facts: Any) -> None:
        super().__init__(**facts)
        self._view = view

    def _index(self, box: Box) -> tuple[slice, slice, slice]:
        # A view counts as the volume does: its domain begins at the offset.
        return box.slices()

    def _read(self, box: Box) -> Array:
        try:
            found = self._view[self._index(box)].read(order="C").result()
        except (ValueError, OSError) as error:
            raise _sentence("read", self.uri, error) from error
        return np.ascontiguousarray(found, dtype=self.dtype)

    def _write(self, box: Box, array: Array) -> None:
        self._require_writable()
        futures = [
            self._view[piece.slices()].write(array[piece.slices(origin=box.start)])
            for piece in self._pieces(box)
        ]
        try:
            for future in futures:
                future.result()
        except (ValueError, OSError) as error:
            raise _sentence("write", self.uri, error) from error
        finally:
            # A failed or interrupted write must not go on behind the back of `discard`.
            for future in futures:
                future.exception()

    def _pieces(self, box: Box) -> Iterator[Box]:
        """Cut a box at the chunks' faces: one write each, so that all can be waited for."""
        z, y, x = (
            start - (start - origin) % chunk
            for start, origin, chunk in zip(box.start, self.offset, self.chunks, strict=True)
        )
        for tile in tiles(Box((z, y, x), box.stop), core=self.chunks):
            piece = tile.core.intersection(box)
            if piece is not None:
                yield piece


def _sentence(action: str, uri: str, error: Exception) -> FloodemError:
    """Turn tensorstore's status into one of our errors."""
    match = _STATUS.match(str(error))
    status, text = (match[1], match[2]) if match else ("", str(error))
    text = _ESCAPED_BYTES.sub(_unescape, text)
    if status == "NOT_FOUND":
        return VolumeNotFoundError(f"{uri} is not there: {text}; check the address")
    is_refusal = text.startswith("Error writing")
    if not is_refusal and status in _DAMAGE:
        return VolumeFormatError(
            f"cannot {action} {uri}: {text}; the volume is damaged or of another format"
        )
    if status == "ALREADY_EXISTS":
        return DestinationExistsError(
            f"{uri} exists already and was left as it is: "
            "choose another destination or --overwrite (overwrite=True)"
        )
    quoted = _QUOTED_REASON.search(text)
    reason = quoted[0].strip() if quoted else text.rsplit(": ", 1)[-1]
    return StorageError(
        f"cannot {action} {uri}: {reason}; check the address, the rights and the free space"
    )


def _unescape(match: re.Match[str]) -> str:
    return bytes.fromhex(match[0].replace("\\x", "")).decode("utf-8", errors="replace")


def _tensorstore() -> Any:
    return require_package(
        "tensorstore", purpose="a zarr, n5 or precomputed volume", install="tensorstore"
    )


def _kvstore(path: str, *, is_remote: bool) -> str | dict[str, str]:
    address = path if is_remote else _local_address(path)
    # tensorstore takes UTF-8, and Python may have decoded the path otherwise (LC_ALL=C).
    try:
        folder = os.fsencode(address).decode("utf-8").rstrip("/") + "/"
    except UnicodeError:
        raise VolumeFormatError(
            f"{path!r} is not written in UTF-8, which zarr, n5 and precomputed stores need: "
            "rename the folder"
        ) from None
    return folder if is_remote else {"driver": "file", "path": folder}


def _local_address(path: str) -> str:
    """Return a path as tensorstore takes it: absolute and without ``..``.

    Only what goes up is resolved, and as the system does it: behind a link ``..`` leads
    elsewhere than the text says, and a network drive of Windows is to keep its letter.
    """
    goes_up = ".." in Path(path).parts
    return (Path(os.path.realpath(path)) if goes_up else Path(path).absolute()).as_posix()


def _context(*, is_remote: bool) -> dict[str, Any]:
    if not is_remote:
        return {}
    return {f"{scheme}_request_retries": REMOTE_RETRIES for scheme in ("http", "gcs", "s3")}


def _inner_path(location: Location) -> str:
    """Join a store and the array inside it."""
    if location.dataset is None:
        return location.path
    return location.path.rstrip("/\\") + "/" + location.dataset.strip("/")


def _find_array(location: Location, layout: Layout) -> str:
    """Return the path of the array itself, which may lie in a group."""
    path = _inner_path(location)
    if location.is_remote or layout.is_array(Path(path)):
        return path
    _refuse_other_layout(location, path, layout)
    inside = arrays_inside(Path(location.path), layout)
    if location.dataset is None and len(inside) == 1:
        return str(Path(path) / inside[0])
    if location.dataset is not None or not inside:
        listed = ", ".join(inside) or "no arrays"
        raise VolumeNotFoundError(
            f"{location.uri} is no {layout.name} array; {location.path} holds {listed}"
        )
    raise VolumeFormatError(
        f"{location.uri} holds {', '.join(inside)}: name one, as in {location.uri}@{inside[0]}"
    )


def _refuse_other_layout(location: Location, path: str, layout: Layout) -> None:
    for other in LAYOUTS.values():
        if other is not layout and other.is_array(Path(path)):
            raise VolumeFormatError(
                f"{location.uri} is a {other.name} volume, not {layout.name}: "
                f"open it as {other.name}://{path}"
            )


def _open(request: OpenRequest, layout: Layout) -> Volume:
    location = request.location
    path = _find_array(location, layout)
    spec = {
        "driver": layout.driver,
        "kvstore": _kvstore(path, is_remote=location.is_remote),
        "context": _context(is_remote=location.is_remote),
        "open": True,
    }
    try:
        store = _tensorstore().open(spec, read=True, write=request.writable).result()
        meaning = layout.interpret(store, request)
    except FloodemError:
        raise
    except (ValueError, OSError) as error:
        raise _sentence("open", location.uri, error) from error
    return _volume(meaning, uri=location.uri, writable=request.writable)


def _volume(
    meaning: Meaning, *, uri: str, writable: bool, staged: Staged | None = None
) -> ChunkedVolume:
    z, y, x = meaning.view.shape
    dtype = native_dtype(np.dtype(meaning.view.dtype.numpy_dtype), uri=uri)
    # In sharded stores a shard is what may be written alone.
    declared = meaning.view.chunk_layout.write_chunk.shape or (z, y, x)
    chunks = (declared[0] or z, declared[1] or y, declared[2] or x)
    _require_reasonable_chunks(chunks, dtype, uri=uri)
    return ChunkedVolume(
        meaning.view.translate_to[meaning.description.offset],
        uri=uri,
        shape=(z, y, x),
        dtype=dtype,
        chunks=chunks,
        description=meaning.description,
        writable=writable,
        staged=staged,
    )


def _require_reasonable_chunks(chunks: Zyx, dtype: np.dtype[Any], *, uri: str) -> None:
    available = available_memory()
    declared = size_in_bytes(chunks, dtype)
    if available is not None and declared > available:
        raise UnsafeFileError(
            f"{uri} declares chunks of {chunks} voxels (z,y,x), {declared / 1e9:.3g} GB each, "
            f"where {available / 1e9:.3g} GB of memory are free: the file is damaged, made to "
            "exhaust memory, or for a larger machine"
        )


def _create(request: CreateRequest, layout: Layout) -> Volume:
    location = request.location
    spec = layout.new_spec(request)
    path = _inner_path(location)
    staged = None
    if not location.is_remote:
        staged = Staged(
            Path(path),
            uri=location.uri,
            overwrite=request.overwrite,
            folder=True,
            objection=lambda folder: _objection(folder, layout),
        )
    try:
        spec["driver"] = layout.driver
        spec["kvstore"] = _kvstore(
            str(staged.path) if staged else path, is_remote=location.is_remote
        )
        spec["context"] = _context(is_remote=location.is_remote)
        store = (
            _tensorstore()
            .open(spec, create=True, delete_existing=staged is None and request.overwrite)
            .result()
        )
        layout.finish(store, request)
        meaning = layout.interpret(store, OpenRequest(location=location))
        return _volume(meaning, uri=location.uri, writable=True, staged=staged)
    except BaseException as error:
        if staged:
            staged.discard()
        if isinstance(error, FloodemError) or not isinstance(error, (ValueError, OSError)):
            raise
        raise _sentence("write", location.uri, error) from error


def _objection(folder: Path, layout: Layout) -> str | None:
    """Say why a folder may not be replaced by a volume."""
    if any(known.is_array(folder) for known in LAYOUTS.values()):
        return None
    return f"is not a {layout.name} volume but a folder with other contents"


def _format(name: str, summary: str, extensions: tuple[str, ...]) -> VolumeFormat:
    layout = LAYOUTS[name]
    return VolumeFormat(
        name=name,
        summary=summary,
        extensions=extensions,
        holds_datasets=bool(extensions),
        remote="write",
        recognises=lambda path: layout.is_array(path) or layout.is_group(path),
        open=lambda request: _open(request, layout),
        create=lambda request: _create(request, layout),
    )


ZARR = _format("zarr", "zarr 2 array", (".zarr",))
ZARR3 = _format("zarr3", "zarr 3 array", (".zarr3",))
N5 = _format("n5", "n5 dataset", (".n5",))
PRECOMPUTED = _format("precomputed", "Neuroglancer precomputed, first scale", ())
