"""The folder ``DST.floodem`` beside a segmentation: what made it, and how far it is.

run.json        options, versions, digests, counters, status
origins.json    where each segment began (global z, y, x)
overlaps.json   what each flood wanted that earlier segments had
seeds.csv       every rejected seed with its reason
receipts/       one file per finished block, written after its data
checkpoint.npz  while the run is not finished
log.txt         one line per event

A receipt decides: without one a block is not done, whatever else is there. All
files carry a version and are replaced in one piece.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from floodem.errors import RunConflictError
from floodem.files import exclusive, storage_error, write_text
from floodem.geometry import Box

RUN_VERSION = 1
SUFFIX = ".floodem"
_LOCK, _RUN, _LOG = "lock", "run.json", "log.txt"
_MISSING = "nothing"


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
        self.checkpoint = path / "checkpoint.npz"

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Keep every other process off this destination while the body runs.

        A folder that the body leaves without a run is removed again.

        Raises
        ------
        RunConflictError
            When another process works on it.
        StorageError
            When the folder cannot be made.
        """
        try:
            (self.path / "receipts").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error("write", self.path, error) from error
        try:
            with exclusive(self.path / _LOCK, what=self.destination):
                yield
        finally:
            if not self.has_run():
                self._remove_empty()

    def has_run(self) -> bool:
        """Tell whether a run was begun here."""
        return (self.path / _RUN).exists()

    def read_run(self) -> dict[str, Any]:
        """Return run.json.

        Raises
        ------
        RunConflictError
            When it is damaged or of another version.
        """
        values = self._read_json(_RUN)
        if values.get("version") != RUN_VERSION:
            raise RunConflictError(
                f"{self.path / _RUN} has version {values.get('version')}; this floodem reads "
                f"{RUN_VERSION}: choose another destination or --overwrite"
            )
        return values

    def require_same(self, identity: Mapping[str, Any]) -> None:
        """Refuse to go on with a run that was begun with something else.

        Raises
        ------
        RunConflictError
            Naming the first value that differs.
        """
        before = _flatten(self.read_run()["identity"])
        now = _flatten(json.loads(json.dumps(identity)))
        for name in sorted({*before, *now}):
            there, here = before.get(name, _MISSING), now.get(name, _MISSING)
            if there != here:
                raise RunConflictError(
                    f"{self.destination} was begun with {name} = {there}, now it is {here}: "
                    "repeat the earlier command to go on, choose another destination, or begin "
                    "again with --overwrite"
                )

    def write_run(self, values: Mapping[str, Any]) -> None:
        """Replace run.json."""
        self.write_json(_RUN, {"version": RUN_VERSION, **values})

    def write_json(self, name: str, values: Mapping[str, Any]) -> None:
        """Replace one JSON file of the folder."""
        write_text(self.path / name, json.dumps(values, indent=1) + "\n")

    def write_receipt(self, box: Box, values: Mapping[str, Any]) -> None:
        """State that a block's data are complete; to be called after they are."""
        self.write_json(_receipt_name(box), {"version": RUN_VERSION, "box": str(box), **values})

    def read_receipt(self, box: Box) -> dict[str, Any] | None:
        """Return the receipt of a block, or None when it is not finished."""
        if not (self.path / _receipt_name(box)).exists():
            return None
        return self._read_json(_receipt_name(box))

    def clear(self) -> None:
        """Forget an earlier run; receipts go first, so that half a removal is no finished run."""
        try:
            for path in (self.path / "receipts").iterdir():
                path.unlink()
            for path in self.path.iterdir():
                if path.is_file() and path.name != _LOCK:
                    path.unlink()
        except OSError as error:
            raise storage_error("clear", self.path, error) from error

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
        except ValueError as error:
            raise RunConflictError(
                f"{path} is damaged ({error}): begin again with --overwrite"
            ) from error
        if not isinstance(values, dict):
            raise RunConflictError(f"{path} is damaged: begin again with --overwrite")
        return values

    def _remove_empty(self) -> None:
        # Best effort: on Windows a lock that is still held cannot be removed.
        with contextlib.suppress(OSError):
            (self.path / _LOCK).unlink(missing_ok=True)
            (self.path / "receipts").rmdir()
            self.path.rmdir()


def _receipt_name(box: Box) -> str:
    return "receipts/" + str(box).replace(":", "-").replace(",", "_") + ".json"


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat
