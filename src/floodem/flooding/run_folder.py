"""The folder ``DST.floodem`` beside a segmentation: what made it, and how far it is.

run.json        options, versions, digests, counters, status
origins.json    where each segment began (global z, y, x)
overlaps.json   what each flood wanted that earlier segments had
seeds.csv       every rejected seed with its reason
receipts/       one file per finished block, written after its data
checkpoint.npz  while the run is not finished
log.txt         one line per event

A run has begun when run.json is there, which is written after the first
checkpoint. A receipt decides: without one a block is not done, whatever else is
there. All files carry a version and are replaced in one piece.
"""

from __future__ import annotations

import contextlib
import enum
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from floodem.errors import DestinationExistsError, RunConflictError
from floodem.files import (
    exclusive,
    making_folders,
    remove_partial_files,
    storage_error,
    write_text,
)
from floodem.flooding.run_identity import require_same_run
from floodem.geometry import Box

RUN_VERSION = 1
CUT_KEY = "plan"
"""What run.json of a run holds that is cut into blocks, and of an uncut one does not."""

SUFFIX = ".floodem"
ORIGINS, OVERLAPS, SEEDS = "origins.json", "overlaps.json", "seeds.csv"
_LOCK, _RUN, _LOG, _RECEIPTS = "lock", "run.json", "log.txt", "receipts"
_CHECKPOINT, _FIRST_CHECKPOINT = "checkpoint.npz", "begin.npz"
RUN_FILES = (_RUN, _LOG, ORIGINS, OVERLAPS, SEEDS, _CHECKPOINT, _FIRST_CHECKPOINT)
"""All that a run makes beside lock and receipts; whatever else is in the folder is not ours."""

_BEGIN_AGAIN = "begin again with --overwrite, or choose another destination"


class RunStatus(enum.StrEnum):
    """How far a run is, as run.json says it."""

    BEGUN = "begun"
    """Nothing is at the destination, or nothing of this run."""
    REPLACING = "replacing"
    """As before; what is at the destination may be replaced (--overwrite)."""
    WRITING = "writing"
    DONE = "done"


class RunFolder:
    """Reads and writes the folder of one run.

    Parameters
    ----------
    path
        The folder; made by `begin`.
    destination
        The address of the segmentation, for messages.
    """

    def __init__(self, path: Path, *, destination: str) -> None:
        self.path = path
        self.destination = destination
        self.checkpoint = path / _CHECKPOINT

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Keep every other process off this destination while the body runs.

        What killed processes left half written is removed, and a folder that the
        body leaves without a run.

        Raises
        ------
        RunConflictError
            When another process works on it.
        DestinationExistsError
            When a file is where the folder goes.
        StorageError
            When the folder cannot be made.
        """
        for folder in (self.path, self.path / _RECEIPTS):
            if folder.exists() and not folder.is_dir():
                raise DestinationExistsError(
                    f"{folder} is a file, and the record of {self.destination} needs a folder of "
                    "that name: move the file away or choose another destination"
                )
        with making_folders(self.path):
            try:
                with exclusive(self.path / _LOCK, what=self.destination):
                    self._remove_leftovers()
                    try:
                        with making_folders(self.path / _RECEIPTS):
                            yield
                    finally:
                        self._drop_lock()
            finally:
                if sys.platform == "win32":  # where an open file cannot be removed
                    self._drop_lock()

    def has_run(self) -> bool:
        """Tell whether a run was begun here."""
        return (self.path / _RUN).exists()

    def require_uncut(self) -> None:
        """Refuse a folder in which a run that is cut into blocks keeps its own.

        Raises
        ------
        RunConflictError
            When there is one; whoever wants it replaced removes it, as it may be days of work.
        """
        if self.has_run() and CUT_KEY in self._read_json(_RUN):
            raise RunConflictError(
                f"{self.path} holds a run to {self.destination} that is cut into blocks: repeat "
                "its command to go on, choose another destination, or remove that folder"
            )

    def read_run(self) -> dict[str, Any]:
        """Return run.json.

        Raises
        ------
        RunConflictError
            When it is damaged or of another version.
        """
        values = self._read_json(_RUN)
        if not isinstance(values.get("identity"), dict):
            raise self._damaged(_RUN, "it names no identity")
        return values

    def require_same(self, identity: Mapping[str, Any]) -> None:
        """Refuse to go on with a run that was begun with something else.

        Raises
        ------
        RunConflictError
            Naming the first value that differs.
        """
        require_same_run(self.read_run()["identity"], identity, destination=self.destination)

    def begin(
        self, values: Mapping[str, Any], *, status: RunStatus, save: Callable[[Path], None]
    ) -> None:
        """Put a new run in the place of whatever was here.

        Parameters
        ----------
        values
            Of run.json.
        save
            Writes the first checkpoint. While it fails, an earlier run stays.

        Raises
        ------
        StorageError
            When the file system refuses.
        """
        first = self.path / _FIRST_CHECKPOINT
        try:
            save(first)
            self.clear(but=first)
            try:
                os.replace(first, self.checkpoint)
            except OSError as error:
                raise storage_error("write", self.checkpoint, error) from error
            self.write_run(values, status=status)
        finally:
            if not self.has_run():
                with contextlib.suppress(OSError):
                    self.checkpoint.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                first.unlink(missing_ok=True)

    def write_run(self, values: Mapping[str, Any], *, status: RunStatus) -> None:
        """Replace run.json."""
        self.write_json(_RUN, {"version": RUN_VERSION, "status": status, **values})

    def write_json(self, name: str, values: Mapping[str, Any]) -> None:
        """Replace one JSON file of the folder."""
        write_text(self.path / name, json.dumps(values, indent=1) + "\n")

    def write_receipt(self, box: Box, values: Mapping[str, Any]) -> None:
        """State that a block's data are complete; to be called after they are."""
        self.write_json(_receipt_name(box), {"version": RUN_VERSION, "box": str(box), **values})

    def read_receipt(self, box: Box) -> dict[str, Any] | None:
        """Return the receipt of a block, or None when it is not finished.

        Raises
        ------
        RunConflictError
            When it is damaged or of another version.
        """
        name = _receipt_name(box)
        if not (self.path / name).exists():
            return None
        values = self._read_json(name)
        match values.get("summary"):
            case {
                "segments": int(),
                "covered": float(),
                "cut_short": list(),
                "counters": {"network_calls": int()},
            }:
                return values
        raise self._damaged(name, "it has no summary")

    def clear(self, *, but: Path | None = None) -> None:
        """Forget an earlier run; receipts go first, so that half a removal is no finished run."""
        try:
            for path in (self.path / _RECEIPTS).glob("*.json"):
                path.unlink()
            for name in RUN_FILES:
                if self.path / name != but:
                    (self.path / name).unlink(missing_ok=True)
        except OSError as error:
            raise storage_error("clear", self.path, error) from error

    def forget_checkpoint(self) -> None:
        """Remove the checkpoint of a finished run."""
        with contextlib.suppress(OSError):  # it only takes space
            self.checkpoint.unlink(missing_ok=True)

    def log(self, text: str) -> None:
        """Append one line with the time (UTC) to the log."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        try:
            with open(self.path / _LOG, "a", encoding="utf-8", newline="\n") as file:
                file.write(f"{stamp} {text}\n")
        except OSError as error:
            raise storage_error("write", self.path / _LOG, error) from error

    def _read_json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise storage_error("read", path, error) from error
        except (ValueError, RecursionError) as error:
            raise self._damaged(name, str(error)) from error
        if not isinstance(values, dict):
            raise self._damaged(name, "it is no JSON object")
        if values.get("version") != RUN_VERSION:
            raise RunConflictError(
                f"{path} has version {values.get('version')!r}; this floodem reads {RUN_VERSION}: "
                f"{_BEGIN_AGAIN}"
            )
        return values

    def _damaged(self, name: str, reason: str) -> RunConflictError:
        return RunConflictError(f"{self.path / name} is damaged ({reason}): {_BEGIN_AGAIN}")

    def _remove_leftovers(self) -> None:
        """Remove what a killed process was about to write."""
        remove_partial_files(self.path)
        remove_partial_files(self.path / _RECEIPTS)
        with contextlib.suppress(OSError):
            (self.path / _FIRST_CHECKPOINT).unlink(missing_ok=True)

    def _drop_lock(self) -> None:
        if not self.has_run():
            with contextlib.suppress(OSError):
                (self.path / _LOCK).unlink(missing_ok=True)


def _receipt_name(box: Box) -> str:
    return f"{_RECEIPTS}/" + str(box).replace(":", "-").replace(",", "_") + ".json"
