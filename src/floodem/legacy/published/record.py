"""What came from where: ``NAME.fetched.json`` beside the files, read and kept up to date.

Of files whose digest nobody publishes it is what tells, the next time, that they are
still what came first.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import floodem
from floodem.files import storage_error, write_text
from floodem.legacy.published.catalogue import PublishedFile

_LONGEST_RECORD = 2**22


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedFile:
    """A file that is here.

    Attributes
    ----------
    is_pinned
        Whether its digest was known before.
    was_here
        Whether an earlier call had brought it.
    """

    path: Path
    address: str
    size: int
    sha256: str
    is_pinned: bool
    was_here: bool

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "path": str(self.path),
            "address": self.address,
            "bytes": self.size,
            "sha256": self.sha256,
            "is_pinned": self.is_pinned,
            "was_here": self.was_here,
        }


class Record:
    """Where each file came from, its size and digest; several threads may add at once.

    Attributes
    ----------
    changes
        Sentences about files that are not what they were when they were fetched before.
    """

    def __init__(self, path: Path, *, name: str) -> None:
        self.path = path
        self.changes: list[str] = []
        self._name = name
        self._files: dict[str, dict[str, Any]] = _read_record(path)
        self._lock = threading.Lock()

    def sha256(self, path: str) -> str | None:
        """Return the digest that a file had when it came first."""
        found = self._files.get(path, {}).get("sha256")
        return found if isinstance(found, str) else None

    def add(self, file: PublishedFile, *, sha256: str, size: int) -> None:
        """Take down what came."""
        with self._lock:
            before = self.sha256(file.path)
            if before not in (None, sha256):
                self.changes.append(
                    f"{file.path} is not what it was when it was fetched before: SHA-256 {sha256}, "
                    f"earlier {before}"
                )
            self._files[file.path] = {
                "address": file.address,
                "bytes": size,
                "sha256": sha256,
                "digest_was_known": file.sha256 is not None,
            }
            whole = {"name": self._name, "floodem": floodem.__version__, "files": self._files}
            write_text(self.path, json.dumps(whole, indent=1, sort_keys=True) + "\n")


def _read_record(path: Path) -> dict[str, dict[str, Any]]:
    """Return the files of a record; a damaged one knows none, and files without one are refused."""
    try:
        with open(path, "rb") as content:
            files = json.loads(content.read(_LONGEST_RECORD)).get("files")
    except FileNotFoundError:
        return {}
    except (AttributeError, RecursionError, ValueError):
        return {}
    except OSError as error:
        raise storage_error("read", path, error) from error
    found = files if isinstance(files, dict) else {}
    return {key: value for key, value in found.items() if isinstance(value, dict)}
