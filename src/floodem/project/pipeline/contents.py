"""What results hold, whatever their files are like: a path and its kind in, a digest out.

A digest stays when a result is copied, or made again with the same voxels. It is what later
stages are made from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from floodem.errors import StoppedError, VolumeFormatError
from floodem.files import storage_error
from floodem.geometry import Box, tiles
from floodem.project.pipeline.digests import digest_of, file_digest, walk
from floodem.project.pipeline.graphs import graph_digest
from floodem.volumes import open_volume

_EDGE = 256
"""Of the cubes in which voxels are read: a fixed size, so that chunks do not matter."""

_RECORD = "floodem.json"
"""In which a folder of meshes keeps what it was made from, times of files included."""

_NOT_WEIGHTS = frozenset({"training", "licence", "source"})
"""What a model file says of itself that changes nothing of what it computes."""


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
        return graph_digest(path)
    digest = hashlib.sha256()
    try:
        if path.is_dir():
            for name, _ in walk(path, ""):
                if name == _RECORD:
                    continue
                digest.update(f"{name}\0".encode(errors="replace"))
                digest.update(bytes.fromhex(file_digest(path / name)))
                _ask(should_stop)
            return digest.hexdigest()
    except OSError as error:
        raise storage_error("read", path, error) from error
    return file_digest(path)


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


def _ask(should_stop: Callable[[], bool]) -> None:
    if should_stop():
        raise StoppedError("stopped; run the same command again to go on")
