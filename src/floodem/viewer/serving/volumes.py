"""A volume of any format as the precomputed volume that Neuroglancer reads: made when asked for.

An open `Volume` comes in. What goes out are the files of a precomputed volume
(https://github.com/google/neuroglancer/tree/master/src/datasource/precomputed): ``info``,
chunks ``SCALE/x0-x1_y0-y1_z0-z1`` as raw little-endian voxels, x fastest, and meshes on demand.
Nothing is converted and nothing is read that is not asked for.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any

import numpy as np

from floodem.errors import FloodemError, LabelError
from floodem.geometry import Box, VoxelSize, Zyx
from floodem.labels import label_dtype
from floodem.viewer.layers import Kind
from floodem.viewer.serving.answers import (
    Answer,
    Request,
    is_known,
    not_found,
    shrunk,
    text_answer,
)
from floodem.viewer.serving.blocks import Cache, is_safe_for_threads
from floodem.viewer.serving.levels import Level, make_levels
from floodem.volumes.volume import Array, Volume, as_dtype
from floodem.volumes.volume import Kind as ValueKind

MeshOf = Callable[[int], bytes | None]

MESH_FOLDER = "mesh"

_THREADS = 4
"""Chunks of one volume that are made at once where its format allows: a page asks for six."""

_CHUNK = re.compile(
    r"(-?\d{1,19})-(-?\d{1,19})_(-?\d{1,19})-(-?\d{1,19})_(-?\d{1,19})-(-?\d{1,19})", re.ASCII
)
_MESH = re.compile(r"mesh/(\d{1,20})(:0|\.fragment)", re.ASCII)
_LARGEST_ID = 2**64 - 1

_FOR_EVER = "private, max-age=31536000, immutable"
"""What lies below a token never changes; the next run has another one."""

_MOST_WARNINGS = 20
"""Different sentences about one volume; the browser's console has them all."""

_LOG = logging.getLogger(__name__)


def drawn_dtype(volume: Volume, *, kind: Kind) -> np.dtype[np.generic]:
    """Return the type in which the client draws a volume as it is meant.

    Labels become uint32 or uint64, since smaller integers open as grey images. Images
    of other types than integers up to 32 bit become float32.

    Raises
    ------
    LabelError
        When a segmentation holds no integers.
    """
    dtype = volume.dtype
    if kind is Kind.SEGMENTATION:
        if dtype.kind not in "ui":
            raise LabelError(
                f"{volume.uri} holds {dtype} values, which are no labels: open it as an image"
            )
        return label_dtype(int(np.iinfo(dtype).max))
    is_drawn = dtype.kind in "ui" and dtype.itemsize <= np.dtype(np.uint32).itemsize
    return dtype if is_drawn else np.dtype(np.float32)


class ServedVolume:
    """A source (see `floodem.viewer.serving.answers.Source`) that is a precomputed volume.

    Parameters
    ----------
    volume
        It stays open as long as this is served; several threads may read it meanwhile
        through `floodem.viewer.serving.blocks.read_safely`.
    voxel_size
        In nanometres, instead of what the volume states; 1, 1, 1 where neither says.
    cache
        Keeps what was read.
    mesh_of
        Gives the mesh of an object as a fragment of the legacy format, None where there
        is none; called in one thread at a time.

    Raises
    ------
    LabelError
        When a segmentation holds no integers.
    """

    is_public = False

    def __init__(
        self,
        volume: Volume,
        *,
        kind: Kind,
        voxel_size: VoxelSize | None,
        cache: Cache,
        mesh_of: MeshOf | None = None,
    ) -> None:
        self._uri = volume.uri
        self._dtype = drawn_dtype(volume, kind=kind)
        self._owner = secrets.token_hex(8)
        self._cache = cache
        self._mesh_of = mesh_of
        self._mesh_lock = threading.Lock()
        self._told: set[str] = set()
        values = ValueKind.LABELS if kind is Kind.SEGMENTATION else ValueKind.IMAGE
        self._levels = {
            level.key: level
            for level in make_levels(
                volume, kind=values, voxel_size=voxel_size, cache=cache, owner=self._owner
            )
        }
        self._info = json.dumps(self._describe(kind)).encode()
        is_safe = is_safe_for_threads(volume)
        self.executor = ThreadPoolExecutor(
            _THREADS if is_safe else 1, thread_name_prefix="floodem-volume"
        )

    @property
    def levels(self) -> tuple[Level, ...]:
        """The levels that are served, the finest first."""
        return tuple(self._levels.values())

    def at_once(self, request: Request) -> Answer | None:
        """Answer what needs no voxels: the description, what is known, what is not there."""
        path = request.path
        if path == "info":
            return self._said(request, self._info, content_type="application/json")
        if self._mesh_of is not None and path == f"{MESH_FOLDER}/info":
            body = json.dumps({"@type": "neuroglancer_legacy_mesh"}).encode()
            return self._said(request, body, content_type="application/json")
        if self._chunk_at(path) is None and self._mesh_at(path) is None:
            return not_found()
        if is_known(request, self._etag(path)):
            return Answer(status=HTTPStatus.NOT_MODIFIED, headers=self._headers(path))
        return None

    def answer(self, request: Request) -> Answer:
        """Answer with a chunk or a mesh, or say in a sentence why there is none."""
        try:
            place = self._chunk_at(request.path)
            if place is not None:
                level, box = place
                return self._said(request, self._chunk(level, box))
            return self._mesh(request)
        except FloodemError as error:
            self._warn_once(str(error))
            return text_answer(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))

    def close(self) -> None:
        """Wait for what is being read, and forget what was kept; the volume stays open."""
        self.executor.shutdown(wait=True, cancel_futures=True)
        self._cache.forget(self._owner)

    def _describe(self, kind: Kind) -> dict[str, Any]:
        info: dict[str, Any] = {
            "@type": "neuroglancer_multiscale_volume",
            "type": kind.value,
            "data_type": self._dtype.name,
            "num_channels": 1,
            "scales": [
                {
                    "key": level.key,
                    "size": level.volume.shape[::-1],
                    "voxel_offset": level.volume.offset[::-1],
                    "resolution": level.size.zyx_nm[::-1],
                    "chunk_sizes": [level.chunk[::-1]],
                    "encoding": "raw",
                }
                for level in self._levels.values()
            ],
        }
        if self._mesh_of is not None:
            info["mesh"] = MESH_FOLDER
        return info

    def _chunk_at(self, path: str) -> tuple[Level, Box] | None:
        """Return which chunk of which level a path names, or None where it names none."""
        key, _, name = path.partition("/")
        level, match = self._levels.get(key), _CHUNK.fullmatch(name)
        if level is None or match is None:
            return None
        x0, x1, y0, y1, z0, z1 = (int(digits) for digits in match.groups())
        asked = ((z0, y0, x0), (z1, y1, x1))
        expected = _chunk_from(asked[0], level)
        return (level, expected) if expected and expected.stop == asked[1] else None

    def _chunk(self, level: Level, box: Box) -> bytes:
        voxels = self._converted(level.volume.read(box))
        # Precomputed counts x fastest, which is how C order keeps z, y, x.
        return voxels.astype(self._dtype.newbyteorder("<"), copy=False).tobytes()

    def _converted(self, voxels: Array) -> Array:
        if voxels.dtype.kind in "ui" and self._dtype.kind == "u":
            return as_dtype(voxels, self._dtype)
        return voxels.astype(self._dtype, copy=False)

    def _mesh_at(self, path: str) -> tuple[int, str] | None:
        match = None if self._mesh_of is None else _MESH.fullmatch(path)
        if match is None or int(match[1]) > _LARGEST_ID:
            return None
        return int(match[1]), match[2]

    def _mesh(self, request: Request) -> Answer:
        place = self._mesh_at(request.path)
        assert place is not None
        label, what = place
        made = self._fragment(label)
        if what == ":0":
            names = [] if made is None else [f"{label}.fragment"]
            body = json.dumps({"fragments": names}).encode()
            return self._said(request, body, content_type="application/json")
        return not_found() if made is None else self._said(request, made)

    def _fragment(self, label: int) -> bytes | None:
        mesh_of = self._mesh_of
        assert mesh_of is not None

        def make() -> bytes | None:
            with self._mesh_lock:
                return mesh_of(label)

        made: bytes | None = self._cache.get(
            (self._owner, MESH_FOLDER, label), make, size=lambda found: len(found or b"")
        )
        return made

    def _said(
        self, request: Request, body: bytes, *, content_type: str = "application/octet-stream"
    ) -> Answer:
        headers = self._headers(request.path) | {"Content-Type": content_type}
        packed = shrunk(body) if request.takes_gzip else None
        if packed is not None:
            return Answer(headers=headers | {"Content-Encoding": "gzip"}, body=packed)
        return Answer(headers=headers, body=body)

    def _headers(self, path: str) -> dict[str, str]:
        return {
            "Cache-Control": _FOR_EVER,
            "ETag": self._etag(path),
            "Vary": "Accept-Encoding",
        }

    def _etag(self, path: str) -> str:
        # Weak: the same voxels, packed or not.
        digest = hashlib.sha256(f"{self._owner}/{path}".encode()).hexdigest()
        return f'W/"{digest[:16]}"'

    def _warn_once(self, sentence: str) -> None:
        if sentence not in self._told and len(self._told) < _MOST_WARNINGS:
            self._told.add(sentence)
            _LOG.warning("cannot show %s: %s", self._uri, sentence)


def _chunk_from(start: Zyx, level: Level) -> Box | None:
    """Return the chunk of the level's grid that begins at a voxel, cut at the level's end."""
    box = level.volume.box
    on_grid = box.contains_point(start) and all(
        (at - first) % edge == 0
        for at, first, edge in zip(start, box.start, level.chunk, strict=True)
    )
    return Box.from_shape(level.chunk, start=start).intersection(box) if on_grid else None
