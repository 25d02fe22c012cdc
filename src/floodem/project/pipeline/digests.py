"""Whether files are still what they were: paths in, cheap marks and digests of bytes out.

`seen` compares names, sizes and times: cheap, and enough to know that nobody touched a
result. What results hold is looked at by `floodem.project.pipeline.contents`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from floodem.files import storage_error

_PIECE_BYTES = 2**22

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
            for name, stat in walk(path, ""):
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


def walk(folder: Path, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield name and state of every file below a folder, in order; names begin with `prefix`."""
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        name = f"{prefix}{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            yield from walk(Path(entry.path), f"{name}/")
        else:
            yield name, entry.stat()
