"""The folder of a training run: what made it, how far it is, and who may go on with it.

run.json       versions, configuration, digests of the data, seed, processes, status
config.toml    the complete configuration
checkpoints/   moments to go on from (floodem.training.runs.checkpoints)
latest.safetensors, best.safetensors   model files: newest weights, and best by validation
metrics.jsonl, validation.jsonl, pictures/, report.html, events*   the record
log.txt        one line per event

A run has begun when run.json is there. All whole files are replaced in one piece.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from floodem.errors import DestinationExistsError, OptionError, RunConflictError
from floodem.files import (
    exclusive,
    making_folders,
    remove_partial_files,
    storage_error,
    write_text,
)
from floodem.training.configuration.making import (
    CHANGEABLE,
    HEADER,
    differences,
    make_options,
    read_configuration,
    to_toml,
)
from floodem.training.configuration.options import TrainOptions

RUN_VERSION = 1
LATEST_MODEL = "latest.safetensors"
_LOCK, _RUN, _LOG, _CONFIG = "lock", "run.json", "log.txt", "config.toml"
_OURS = (
    *(_RUN, _LOG, LATEST_MODEL, "best.safetensors", "metrics.jsonl", "validation.jsonl"),
    *("report.html", "events*", "pictures", "validation", "checkpoints", _CONFIG),
)
"""All that a run makes beside its lock; whatever else is in the folder stays."""

_BEGIN_AGAIN = "begin again with --overwrite, or choose another folder with --run"


class TrainingFolder:
    """Reads and writes the folder of one run.

    Attributes
    ----------
    path
        The folder.
    checkpoints, latest
        Folder of the checkpoints, and the model file of the newest weights.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.latest = path / LATEST_MODEL

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Keep every other process off this run while the body runs.

        Raises
        ------
        RunConflictError
            When another process trains here.
        StorageError
            When the folder cannot be made.
        """
        with making_folders(self.path):
            try:
                with exclusive(self.path / _LOCK, what=f"training run {self.path}"):
                    for folder in (self.path, self.checkpoints):
                        remove_partial_files(folder)
                    yield
            finally:
                if not self.has_run():
                    with contextlib.suppress(OSError):
                        (self.path / _LOCK).unlink(missing_ok=True)

    def has_run(self) -> bool:
        """Tell whether a run was begun here."""
        return (self.path / _RUN).exists()

    def configuration(self) -> dict[str, Any]:
        """Return the configuration of the run that is here, as plain values."""
        return read_configuration(self.path / _CONFIG)

    def read_run(self) -> dict[str, Any]:
        """Return run.json.

        Raises
        ------
        RunConflictError
            When it is damaged or of another version.
        """
        path = self.path / _RUN
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise storage_error("read", path, error) from error
        except (ValueError, RecursionError) as error:
            raise RunConflictError(f"{path} is damaged ({error}): {_BEGIN_AGAIN}") from error
        if not isinstance(values, dict) or values.get("version") != RUN_VERSION:
            raise RunConflictError(
                f"{path} is no record that this floodem reads (version {RUN_VERSION}): "
                f"{_BEGIN_AGAIN}"
            )
        return values

    def require_same_options(self, options: TrainOptions) -> None:
        """Refuse to go on with a run that learns something else.

        Raises
        ------
        RunConflictError
            Naming what differs, and how to go on.
        """
        try:
            before = make_options(self.configuration(), source=str(self.path / _CONFIG))
        except OptionError as error:
            raise RunConflictError(f"{error}; repair the file, or {_BEGIN_AGAIN}") from error
        found = differences(before, options)
        if found:
            named = "; ".join(f"{name} was {_short(a)}, now {_short(b)}" for name, a, b in found)
            raise RunConflictError(
                f"run {self.path} was begun with other options ({named}): take these back to go "
                f"on, begin again with --overwrite, or choose another folder with --run; only "
                f"{', '.join(sorted(CHANGEABLE - {'run'}))} may change"
            )

    def require_same_identity(self, identity: Mapping[str, Any]) -> None:
        """Refuse to go on with other data, or another number of processes.

        Raises
        ------
        RunConflictError
            Naming the first value that differs.
        """
        before = self.read_run().get("identity")
        if not isinstance(before, dict):
            raise RunConflictError(f"{self.path / _RUN} names no identity: {_BEGIN_AGAIN}")
        for name in sorted({*before, *identity}):
            there, here = before.get(name), identity.get(name)
            if there != here:
                raise RunConflictError(
                    f"run {self.path} was begun with {name} = {_short(there)}, now it is "
                    f"{_short(here)}: bring that back to go on, or {_BEGIN_AGAIN}"
                )

    def begin(self, options: TrainOptions, values: Mapping[str, Any]) -> None:
        """Put a new run in the place of whatever was here.

        Raises
        ------
        StorageError
            When the file system refuses.
        """
        self.clear()
        write_text(self.path / _CONFIG, to_toml(options))
        self.write_run(values)

    def go_on(self, options: TrainOptions) -> None:
        """Note the options that a run goes on with."""
        write_text(self.path / _CONFIG, to_toml(options))

    def write_run(self, values: Mapping[str, Any]) -> None:
        """Replace run.json."""
        text = json.dumps({"version": RUN_VERSION, **values}, indent=1, default=str)
        write_text(self.path / _RUN, text + "\n")

    def clear(self) -> None:
        """Forget an earlier run.

        run.json goes first, so that half a removal is no run; the configuration goes
        last, because it tells that the rest is ours.

        Raises
        ------
        DestinationExistsError
            When something in the folder has the name of one of our files and is not ours.
        StorageError
            When the file system refuses.
        """
        if not self.has_run() and not self._is_half_removed():
            for name in (_CONFIG, LATEST_MODEL, "checkpoints"):
                if (self.path / name).exists():
                    raise DestinationExistsError(
                        f"{self.path / name} is there, and no run of floodem: choose another "
                        "folder with --run, or move it away"
                    )
        try:
            for pattern in _OURS:
                for path in self.path.glob(pattern):
                    if path.is_dir() and not path.is_symlink():
                        shutil.rmtree(path)
                    else:
                        path.unlink()
        except OSError as error:
            raise storage_error("clear", self.path, error) from error

    def _is_half_removed(self) -> bool:
        """Tell whether a process was killed while it cleared the folder, or began here."""
        try:
            text = (self.path / _CONFIG).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return False
        return text.startswith(HEADER)

    def log(self, text: str) -> None:
        """Append one line with the time (UTC) to the log."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        try:
            with open(self.path / _LOG, "a", encoding="utf-8", newline="\n") as file:
                file.write(f"{stamp} {text}\n")
        except OSError as error:
            raise storage_error("write", self.path / _LOG, error) from error


_SHOWN_LETTERS = 60


def _short(value: object) -> str:
    text = "left out" if value is None else json.dumps(value, default=str)
    return text if len(text) <= _SHOWN_LETTERS else f"{text[:_SHOWN_LETTERS]}..."
