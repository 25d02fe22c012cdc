"""Files of JSON lines that survive being killed: plain values in, the same values out.

A line counts once its newline is there. What a killed process left after the last
newline is ignored by `read_lines` and cut off before the next line is added.
"""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from floodem.errors import VolumeFormatError
from floodem.files import replacing, storage_error

_PIECE = 2**16


def append_line(path: Path, values: Mapping[str, Any]) -> None:
    """Add one object; numbers that are not finite become null.

    Raises
    ------
    StorageError
        When the file system refuses; the lines before are as they were.
    """
    line = json.dumps({name: _finite(value) for name, value in values.items()}, allow_nan=False)
    data = line.encode() + b"\n"
    try:
        with open(path, "ab", buffering=0) as file:
            start = file.tell()
            if file.write(data) < len(data):
                file.truncate(start)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise storage_error("write", path, error) from error


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return all whole lines; none when there is no file.

    Raises
    ------
    StorageError
        When the file system refuses.
    VolumeFormatError
        When a line in the middle is no JSON object.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise storage_error("read", path, error) from error
    rows = []
    for number, line in enumerate(data.split(b"\n")[:-1], start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise VolumeFormatError(
                f"line {number} of {path} is no JSON ({error}): the file is damaged, move it away"
            ) from error
        if not isinstance(row, dict):
            raise VolumeFormatError(
                f"line {number} of {path} is no JSON object: the file is damaged, move it away"
            )
        rows.append(row)
    return rows


def cut_torn_end(path: Path) -> None:
    """Remove what follows the last newline.

    Raises
    ------
    StorageError
        When the file system refuses.
    """
    try:
        with open(path, "rb+") as file:
            end = file.seek(0, os.SEEK_END)
            while end > 0:
                start = max(0, end - _PIECE)
                file.seek(start)
                newline = file.read(end - start).rfind(b"\n")
                if newline >= 0:
                    file.truncate(start + newline + 1)
                    return
                end = start
            file.truncate(0)
    except FileNotFoundError:
        return
    except OSError as error:
        raise storage_error("write", path, error) from error


def keep_lines(path: Path, *, where: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """Remove the lines for which `where` is False, in one piece; return the others.

    Raises
    ------
    StorageError, VolumeFormatError
        As `read_lines`; the file is as it was then.
    """
    cut_torn_end(path)
    rows = read_lines(path)
    kept = [row for row in rows if where(row)]
    if len(kept) < len(rows):
        with replacing(path) as partial:
            partial.write_text(
                "".join(json.dumps(row, allow_nan=False) + "\n" for row in kept),
                encoding="utf-8",
                newline="\n",
            )
    return kept


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
