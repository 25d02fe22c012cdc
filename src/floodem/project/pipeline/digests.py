"""Whether files are still what they were: paths in, cheap marks and digests of contents out.

Two ways of looking. `seen` compares names, sizes and times: cheap, and enough to know
that nobody touched a result. `content_digest` reads everything, and stays when a file is
copied, or made again with the same voxels; it is what later stages are made from.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from floodem.errors import StoppedError, VolumeFormatError
from floodem.files import storage_error
from floodem.geometry import Box, tiles
from floodem.volumes import open_volume

_EDGE = 256
"""Of the cubes in which voxels are read: a fixed size, so that chunks do not matter."""

_PIECE_BYTES = 2**22
_RECORD = "floodem.json"
"""In which a folder of meshes keeps what it was made from, times of files included."""

_NOT_WEIGHTS = frozenset({"training", "licence", "source"})
"""What a model file says of itself that changes nothing of what it computes."""

MOST_FILES = 100_000
"""Of larger folders only the first so many are looked at; listing them takes minutes."""


def seen(path: Path) -> dict[str, Any] | None:
    """Return a cheap mark of a file or folder, or None where there is none.

    Raises
    ------
    StorageError
        When the file system refuses.
    """
    try:
        if path.is_dir():
            digest, count = hashlib.sha256(), 0
            for name, stat in _walk(path, ""):
                count += 1
                line = f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n"
                digest.update(line.encode(errors="replace"))
                if count == MOST_FILES:
                    break
            return {"files": count, "digest": digest.hexdigest()}
        if path.exists():
            stat = path.stat()
            return {"bytes": stat.st_size, "changed_ns": stat.st_mtime_ns}
    except OSError as error:
        raise storage_error("look at", path, error) from error
    return None


def content_digest(
    path: Path, kind: str, *, should_stop: Callable[[], bool] = lambda: False
) -> str:
    """Return a SHA-256 of what a result holds.

    Parameters
    ----------
    path
        A file or folder.
    kind
        ``volume``: voxels, frame and voxel size, however they are stored; ``model``: weights
        and what they are run with; ``graph``: edges and scores; ``scores``: the numbers;
        ``file``, ``folder``: bytes.
    should_stop
        Asked between parts.

    Raises
    ------
    FloodemError
        When it cannot be read.
    StoppedError
        When `should_stop` said so.
    """
    if kind == "volume":
        return _volume_digest(path, should_stop)
    if kind == "model":
        return _model_digest(path)
    if kind == "scores":
        return _scores_digest(path)
    if kind == "graph":
        from floodem.project.pipeline.graphs import graph_digest

        return graph_digest(path)
    digest = hashlib.sha256()
    try:
        if path.is_dir():
            for name, _ in _walk(path, ""):
                if name == _RECORD:
                    continue
                digest.update(f"{name}\0".encode(errors="replace"))
                digest.update(bytes.fromhex(file_digest(path / name)))
                _ask(should_stop)
            return digest.hexdigest()
    except OSError as error:
        raise storage_error("read", path, error) from error
    return file_digest(path)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes.

    Raises
    ------
    StorageError
        When the file system refuses.
    """
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while piece := file.read(_PIECE_BYTES):
                digest.update(piece)
    except OSError as error:
        raise storage_error("read", path, error) from error
    return digest.hexdigest()


def digest_of(values: Any) -> str:
    """Return the SHA-256 of plain values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _volume_digest(path: Path, should_stop: Callable[[], bool]) -> str:
    digest = hashlib.sha256()
    with open_volume(str(path)) as volume:
        size = volume.voxel_size
        frame = [str(volume.box), volume.dtype.name, None if size is None else list(size.zyx_nm)]
        digest.update(json.dumps(frame).encode())
        for tile in tiles(volume.box, core=(_EDGE, _EDGE, _EDGE)):
            core: Box = tile.core
            digest.update(np.ascontiguousarray(volume.read(core)).tobytes())
            _ask(should_stop)
    return digest.hexdigest()


def _model_digest(path: Path) -> str:
    from floodem.network.model_file import load_model

    model = load_model(path)
    said = {
        name: value
        for name, value in model.description.to_json().items()
        if name not in _NOT_WEIGHTS
    }
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for name, weights in sorted(model.network.state_dict().items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(weights.cpu().numpy()).tobytes())
    return digest.hexdigest()


def _scores_digest(path: Path) -> str:
    """Return a digest of an evaluation without the addresses, which a moved project changes."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise storage_error("read", path, error) from error
    except (ValueError, RecursionError) as error:
        raise VolumeFormatError(f"{path} holds no scores ({error}): remove it") from error
    if isinstance(values, dict):
        for side in ("segmentation", "truth"):
            values.pop(side, None)
    return digest_of(values)


def _walk(folder: Path, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        name = f"{prefix}{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path), f"{name}/")
        else:
            yield name, entry.stat()


def _ask(should_stop: Callable[[], bool]) -> None:
    if should_stop():
        raise StoppedError("stopped; run the same command again to go on")
