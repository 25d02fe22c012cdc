"""Whether a stage is fresh, and why not: what made it compared with what would make it now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from floodem.errors import FloodemError
from floodem.project.pipeline.contents import content_digest
from floodem.project.pipeline.digests import digest_of, seen
from floodem.project.pipeline.records import BEGUN, CLEARING, DONE, StageRecord, plain
from floodem.project.pipeline.stage import Output, Stage

FILE, FROM = "file ", "from "
"""Before the names of parts that are no options."""

_LONGEST = 60
_NOTHING = "nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why a stage is stale.

    Attributes
    ----------
    what
        An option by its dotted key, a file, an earlier stage, or a result.
    said
        The sentence.
    before, now
        Both values of an option; None elsewhere.
    """

    what: str
    said: str
    before: Any = None
    now: Any = None

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {"what": self.what, "said": self.said, "before": self.before, "now": self.now}


def stage_digest(stage: Stage, record: StageRecord) -> str:
    """Return what later stages know a finished stage by: the contents of its results."""
    told = [one.name for one in stage.outputs if one.is_told]
    return digest_of({name: record.outputs[name]["digest"] for name in told})


def parts_of(stage: Stage, made: Mapping[str, str]) -> dict[str, Any]:
    """Return what decides the result of a stage.

    Parameters
    ----------
    made
        `stage_digest` of each earlier stage that it needs.

    Raises
    ------
    FloodemError
        When a file cannot be looked at.
    """
    parts: dict[str, Any] = dict(stage.options)
    parts |= {f"{FILE}{name}": look() for name, look in stage.files.items()}
    parts |= {f"{FROM}{name}": made[name] for name in stage.needs}
    return plain(parts)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Reason]:
    """Return what is not the same, options first."""
    found = []
    for name in sorted({*before, *now}, key=lambda one: (one.startswith((FILE, FROM)), one)):
        old, new = before.get(name), now.get(name)
        if old == new:
            continue
        if name.startswith(FILE):
            file = name.removeprefix(FILE)
            said = f"{file} has changed" if name in before else f"{file} is read, too"
            said = said if name in now else f"{file} is not read any more"
            found.append(Reason(what=name, said=said))
        elif name.startswith(FROM):
            earlier = name.removeprefix(FROM)
            found.append(Reason(what=name, said=f"{earlier} gives another result"))
        else:
            said = f"{name} was {_short(old)}, now {_short(new)}"
            found.append(Reason(what=name, said=said, before=old, now=new))
    return found


def changed_outputs(stage: Stage, record: StageRecord, folder: Path) -> list[Reason]:
    """Return which results are missing, or are not what the stage has left.

    A result whose files have other times is read, and counts as the same where its
    contents are.
    """
    found = []
    for output in stage.outputs:
        path = folder / output.name
        kept, now = record.outputs.get(output.name), seen(path)
        if now is None:
            found.append(Reason(what=output.name, said=f"{output.name} is missing"))
        elif kept is None or (kept["seen"] != now and kept["digest"] != _digest(path, output)):
            found.append(Reason(what=output.name, said=f"{output.name} was changed"))
    return found


def _digest(path: Path, output: Output) -> str:
    try:
        return content_digest(path, output.kind)
    except FloodemError:  # damaged: it is not what it was
        return ""


def reasons_of(
    stage: Stage, record: StageRecord | None, *, parts: Mapping[str, Any], folder: Path
) -> list[Reason]:
    """Return why a stage is stale; nothing where it is fresh."""
    if record is None:
        return [Reason(what=stage.name, said="not made yet")]
    found = differences(record.parts, parts)
    if record.state in (BEGUN, CLEARING) and not found:
        found.append(Reason(what=stage.name, said="begun and not ended"))
    if record.state == DONE:
        found += changed_outputs(stage, record, folder)
    return found


def waits_for(stage: Stage, stale: Sequence[str]) -> list[Reason]:
    """Return the stale stages that a stage is made from."""
    return [
        Reason(what=f"{FROM}{name}", said=f"{name} comes first")
        for name in stage.needs
        if name in stale
    ]


def _short(value: Any) -> str:
    if value is None:
        return _NOTHING
    if isinstance(value, list):
        text = ",".join(_short(one) for one in value)
    elif isinstance(value, bool):
        text = str(value).lower()
    else:
        text = str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
