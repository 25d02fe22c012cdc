"""What is kept of each stage: ``stages/NAME.json``, read and written whole.

A record says ``begun`` before a stage's first byte is written, so that what is there
afterwards is known to be ours, and ``done``, with the marks of all outputs, after the
last. A record that cannot be read makes the stage stale, as none does.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from floodem.errors import VolumeFormatError
from floodem.files import storage_error, write_text
from floodem.volumes.servers.addresses import without_secrets

FORMAT, VERSION = "floodem stage", 1
BEGUN, CLEARING, DONE = "begun", "clearing", "done"
_MOST_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRecord:
    """What is known of a stage that was begun.

    Attributes
    ----------
    stage
        Its name.
    state
        `BEGUN`, `CLEARING` (its own earlier results are being removed) or `DONE`.
    parts
        What decides the result: options, files and earlier stages, each with its value.
    outputs
        For each, by its name in the project's folder, ``seen`` and ``digest``.
    numbers
        What the table of stages shows.
    seconds
        Of the last run that worked on it.
    previous
        The finished record that this one follows, as plain values: its results stay until
        the new ones are complete, and count again where the user goes back.
    """

    stage: str
    state: str
    parts: Mapping[str, Any]
    outputs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    numbers: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    previous: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "stage": self.stage,
            "state": self.state,
            "parts": dict(self.parts),
            "outputs": {name: dict(one) for name, one in self.outputs.items()},
            "numbers": dict(self.numbers),
            "seconds": self.seconds,
            "previous": None if self.previous is None else dict(self.previous),
        }


class StageRecords:
    """Reads and writes the records of all stages of one project.

    Parameters
    ----------
    folder
        Where they lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, stage: str) -> Path:
        """Return where the record of a stage is."""
        return self.folder / f"{stage}.json"

    def read(self, stage: str) -> StageRecord | None:
        """Return a stage's record; None where there is none.

        Raises
        ------
        VolumeFormatError
            When it is damaged or of another version.
        StorageError
            When the file system refuses.
        """
        path = self.path(stage)
        try:
            if path.stat().st_size > _MOST_BYTES:
                raise _damaged(path, "it is too large for one")
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise storage_error("read", path, error) from error
        except (ValueError, RecursionError) as error:
            raise _damaged(path, str(error)) from error
        record = record_of(values, stage=stage)
        if record is None:
            raise _damaged(path, "it is of another version, or something is missing")
        return record

    def write(self, record: StageRecord) -> None:
        """Replace a stage's record in one piece."""
        text = json.dumps(record.to_json(), indent=1)
        write_text(self.path(record.stage), without_secrets(text) + "\n")

    def forget(self, stage: str) -> None:
        """Remove a stage's record, where nothing of it was made."""
        with contextlib.suppress(OSError):
            self.path(stage).unlink(missing_ok=True)


def record_of(values: Any, *, stage: str) -> StageRecord | None:
    """Return the record that plain values tell of, or None where they tell of none."""
    match values:
        case {
            "format": "floodem stage",
            "version": 1,
            "stage": str(name),
            "state": str(state),
            "parts": dict(parts),
            "outputs": dict(outputs),
            "numbers": dict(numbers),
            "seconds": float() | int() as seconds,
            "previous": dict() | None as previous,
        } if name == stage and all(_is_output(one) for one in outputs.values()):
            return StageRecord(
                stage=name,
                state=state,
                parts=parts,
                outputs=outputs,
                numbers=numbers,
                seconds=float(seconds),
                previous=previous,
            )
    return None


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as a record gives them back: through JSON, without secrets."""
    found: dict[str, Any] = json.loads(without_secrets(json.dumps(values, sort_keys=True)))
    return found


def _is_output(one: Any) -> bool:
    return isinstance(one, dict) and isinstance(one.get("digest"), str) and "seen" in one


def _damaged(path: Path, reason: str) -> VolumeFormatError:
    return VolumeFormatError(
        f"{path} is no record of a stage that this floodem reads ({reason}): remove it, and the "
        "results of that stage, to make them again"
    )
