"""One small file per finished task: what a task returned goes in, and comes out after a restart.

A receipt is written after the task's data, in one piece. It says by a digest what
the work was made from, so that work of other options is never taken for this one's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from floodem.errors import OptionError, RunConflictError, VolumeFormatError
from floodem.files import storage_error, write_text

RECEIPT_VERSION = 1
_SUFFIX = ".json"
_MOST_BYTES = 64 * 2**20
"""Larger receipts are damaged or not ours: a result is a few numbers for each object."""


def identity_digest(identity: Mapping[str, Any]) -> str:
    """Return the SHA-256 of what work is made from, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Receipts:
    """The receipts of one kind of work.

    Attributes
    ----------
    folder
        Where they lie; made by whoever writes them.
    digest
        Of what the work is made from (see `identity_digest`).
    """

    folder: Path
    digest: str

    def write(self, key: str, result: Mapping[str, Any]) -> None:
        """Say that a task is done, after its data.

        Raises
        ------
        StorageError
            When the file system refuses.
        """
        receipt = {"version": RECEIPT_VERSION, "digest": self.digest, "result": dict(result)}
        write_text(self._path(key), json.dumps(receipt))

    def read(self, key: str) -> dict[str, Any] | None:
        """Return what a task returned, or None when it is not done.

        Raises
        ------
        RunConflictError
            When it was done from something else.
        VolumeFormatError
            When the file is damaged.
        StorageError
            When the file system refuses.
        """
        path = self._path(key)
        try:
            if path.stat().st_size > _MOST_BYTES:
                raise VolumeFormatError(f"receipt {path} is too large to be one: remove it")
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise storage_error("read", path, error) from error
        try:
            receipt = json.loads(text)
            version, digest, result = receipt["version"], receipt["digest"], receipt["result"]
            is_one = version == RECEIPT_VERSION and isinstance(result, dict)
        except (ValueError, KeyError, TypeError, RecursionError):
            is_one = False
        if not is_one:
            raise VolumeFormatError(
                f"{path} is no receipt of version {RECEIPT_VERSION}: remove it, and its task is "
                "done again"
            )
        if digest != self.digest:
            raise RunConflictError(
                f"{self.folder} holds work that was made from other data or with other options: "
                "repeat the earlier command to go on with it, or choose another destination"
            )
        found: dict[str, Any] = result
        return found

    def _path(self, key: str) -> Path:
        if not key or not all(sign.isalnum() or sign in "-_" for sign in key):
            raise OptionError(f"task key {key!r} is no file name: use letters, digits, - and _")
        return self.folder / f"{key}{_SUFFIX}"
