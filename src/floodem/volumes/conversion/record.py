"""The record ``DST.floodem`` beside a converted volume: what made it, and its receipts.

conversion.json   version, status, identity (source and options), blocks, levels
receipts.txt      one line for each block (`floodem.volumes.conversion.receipts`)
relabel.csv       which number each old id got, where labels were numbered anew
running/          the same files of a conversion under way; remote stores, which
                  cannot append, have ``running/blocks/`` with one object a block
lock              held by the process that converts to DST

The upper files tell about what is at the destination, and stay until a finished
conversion replaces it. A conversion has begun when ``running/conversion.json`` is
there, and is over when it is gone.
"""

from __future__ import annotations

import contextlib
import enum
import getpass
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from floodem.errors import DestinationExistsError, GeometryError, RunConflictError, UsageError
from floodem.files import exclusive, making_folders, remove_partial_files
from floodem.geometry import Box
from floodem.volumes.conversion.journal import Journal, open_journal
from floodem.volumes.conversion.receipts import Key, Receipt, journal_text, read_lines
from floodem.volumes.location import Location
from floodem.volumes.servers.transport import LocalStore, open_store

RECORD_VERSION = 1
SUFFIX = ".floodem"
_CONVERSION, _RECEIPTS, _TABLE, _LOCK = "conversion.json", "receipts.txt", "relabel.csv", "lock"
_RUNNING, _BLOCKS = "running/", "running/blocks/"
CONVERSION_FILES = (_CONVERSION, f"{_RUNNING}{_CONVERSION}")
_LOCK_DIGITS = 16
_BEGIN_AGAIN = "begin again with --overwrite, or choose another destination"


class Status(enum.StrEnum):
    """How far a conversion is, as its record says."""

    RUNNING = "running"
    COMMITTING = "committing"
    """All is written, and what was written takes its place."""
    DONE = "done"


def record_address(location: Location) -> str:
    """Return where the record of a conversion to this destination is kept.

    Raises
    ------
    UsageError
        When the destination has no name to which the record's could be added.
    """
    dataset = (location.dataset or "").strip("/").replace("/", "_")
    at = f"@{dataset}" if dataset else ""
    if location.is_remote:
        return f"{location.path.rstrip('/')}{at}{SUFFIX}"
    path = Path(os.path.abspath(location.local))
    if not path.name:
        raise UsageError(
            f"{location.uri!r} names no file or folder that could be made: give a path like "
            "out.zarr"
        )
    return str(path.with_name(path.name + at + SUFFIX))


class ConversionRecord:
    """Reads and writes the record of the conversions to one destination."""

    def __init__(self, location: Location) -> None:
        self.destination = location.uri
        self.address = record_address(location)
        self._store = open_store(self.address)
        self.journal: Journal = open_journal(
            self._store, file=f"{_RUNNING}{_RECEIPTS}", folder=_BLOCKS
        )

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Keep every other process off this destination while the body runs.

        Processes on other machines that write to one remote store are not seen.

        Raises
        ------
        RunConflictError
            When another process works on it.
        DestinationExistsError
            When a file is where the folder goes.
        StorageError
            When the folder cannot be made.
        """
        if not isinstance(self._store, LocalStore):
            with exclusive(_remote_lock(self.address), what=self.destination):
                yield
            return
        folder = self._store.folder
        for one in (folder, folder / _RUNNING):
            if one.exists() and not one.is_dir():
                raise DestinationExistsError(
                    f"{one} is a file, and the record of {self.destination} needs a folder of that "
                    "name: move the file away or choose another destination"
                )
        with making_folders(folder):
            try:
                with exclusive(folder / _LOCK, what=self.destination):
                    remove_partial_files(folder)
                    remove_partial_files(folder / _RUNNING)
                    try:
                        yield
                    finally:
                        self.journal.close()
                        self._tidy(folder)
            finally:
                if sys.platform == "win32":  # where an open file cannot be removed
                    self._tidy(folder)

    def _tidy(self, folder: Path) -> None:
        """Remove what is empty: a folder without a record has no use for its lock."""
        with contextlib.suppress(OSError):
            (folder / _RUNNING).rmdir()
        if {entry.name for entry in folder.iterdir()} <= {_LOCK}:
            with contextlib.suppress(OSError):
                (folder / _LOCK).unlink(missing_ok=True)

    def finished(self) -> dict[str, Any] | None:
        """Return conversion.json of the finished conversion, or None where there is none.

        Raises
        ------
        RunConflictError
            When it is damaged or of another version.
        """
        return self._read_json(_CONVERSION)

    def running(self) -> dict[str, Any] | None:
        """Return conversion.json of the conversion under way, or None where there is none."""
        return self._read_json(f"{_RUNNING}{_CONVERSION}")

    def receipts(self) -> dict[Key, Receipt]:
        """Return the finished conversion's receipts; damaged lines are none."""
        return read_lines(self._store.read(_RECEIPTS) or b"")

    def begin(self, values: Mapping[str, Any]) -> None:
        """State what is being made, before the first block is written."""
        self.forget_running()
        self.state(values, status=Status.RUNNING)

    def state(self, values: Mapping[str, Any], *, status: Status) -> None:
        """Replace conversion.json of the conversion under way."""
        self._write_json(f"{_RUNNING}{_CONVERSION}", values, status=status)

    def write_table(self, data: bytes) -> None:
        """Keep the table of new labels."""
        self._store.write(f"{_RUNNING}{_TABLE}", data)

    def read_table(self) -> bytes | None:
        """Return the table of new labels of the conversion under way."""
        return self._store.read(f"{_RUNNING}{_TABLE}")

    def finish(self, values: Mapping[str, Any], receipts: Mapping[Key, Receipt]) -> None:
        """Let the record of the conversion under way become that of the destination.

        It may be repeated after a process died in it.
        """
        # Without its first file a record is none, so that halves of two are never read as one.
        self._store.delete(_CONVERSION)
        self._store.write(_RECEIPTS, journal_text(receipts.values()))
        table = self.read_table()
        if table is None:
            self._store.delete(_TABLE)
        else:
            self._store.write(_TABLE, table)
        self._write_json(_CONVERSION, values, status=Status.DONE)
        self.forget_running()

    def forget_running(self) -> None:
        """Remove all of a conversion under way; conversion.json goes first."""
        self._store.delete(f"{_RUNNING}{_CONVERSION}")
        self.journal.clear()
        self._store.delete(f"{_RUNNING}{_TABLE}")
        if isinstance(self._store, LocalStore):
            with contextlib.suppress(OSError):
                (self._store.folder / _RUNNING).rmdir()

    def forget_finished(self) -> None:
        """Remove all of the finished conversion; conversion.json goes first."""
        for name in (_CONVERSION, _RECEIPTS, _TABLE):
            self._store.delete(name)

    def _write_json(self, name: str, values: Mapping[str, Any], *, status: Status) -> None:
        # The values may come from an earlier file, with the status of then.
        whole = {**values, "version": RECORD_VERSION, "status": status.value}
        self._store.write(name, (json.dumps(whole, indent=1, sort_keys=True) + "\n").encode())

    def _read_json(self, name: str) -> dict[str, Any] | None:
        data = self._store.read(name)
        if data is None:
            return None
        where = f"{self.address.rstrip('/')}/{name}"
        try:
            values = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise RunConflictError(f"{where} is damaged ({error}): {_BEGIN_AGAIN}") from error
        if not isinstance(values, dict) or values.get("version") != RECORD_VERSION:
            version = values.get("version") if isinstance(values, dict) else None
            raise RunConflictError(
                f"{where} has version {version!r}; this floodem reads {RECORD_VERSION}: "
                f"{_BEGIN_AGAIN}"
            )
        if not _is_complete(values):
            raise RunConflictError(f"{where} is damaged (something is missing): {_BEGIN_AGAIN}")
        return values


def remove_record(location: Location) -> None:
    """Remove the record of the finished conversion to a destination, which stays.

    Its folder goes too, where nothing else is in it.

    Raises
    ------
    RunConflictError
        When another process works on the destination.
    StorageError
        When the file system refuses.
    """
    record = ConversionRecord(location)
    with record.hold():
        record.forget_finished()
    if not location.is_remote:
        with contextlib.suppress(OSError):  # when something is in it
            Path(record.address).rmdir()


def _is_complete(values: dict[str, Any]) -> bool:
    """Tell whether a conversion.json says all that is read from it."""
    match values:
        case {
            "status": str(),
            "identity": dict(),
            "made": {
                "format": str(),
                "dtype": str(),
                "is_lossy": bool(),
                "replaces": bool(),
                "labels": None | int(),
                "levels": [_, *_] as levels,
            },
        }:
            return all(_is_level(level) for level in levels)
    return False


def _is_level(level: Any) -> bool:
    match level:
        case {
            "box": str() as box,
            "block": [int(), int(), int()] as block,
            "chunks": [int(), int(), int()] as chunks,
        }:
            with contextlib.suppress(GeometryError):
                return Box.parse(box).size > 0 and min(*block, *chunks) > 0
    return False


def level_boxes(values: Mapping[str, Any]) -> list[Box]:
    """Return where the levels lie, each in its own frame, by a conversion.json."""
    return [Box.parse(level["box"]) for level in values["made"]["levels"]]


def _remote_lock(address: str) -> Path:
    """Return this user's lock for a remote destination, on this machine."""
    digest = hashlib.sha256(f"{getpass.getuser()} {address}".encode()).hexdigest()
    return Path(tempfile.gettempdir()) / f"floodem-{digest[:_LOCK_DIGITS]}.lock"
