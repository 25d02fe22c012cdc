"""What differs between a conversion that was begun and the one that is asked for now.

Two identities (see `floodem.volumes.conversion.plan`) come in; a refusal that names
the first difference as it was typed goes out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from floodem.errors import RunConflictError

_WAYS_OUT = (
    "repeat the earlier command to go on, choose another destination, or begin again with "
    "--overwrite"
)
_HOW_OPENED = frozenset({"axes", "channel", "level"})
"""What the user says about the source; all else about it is looked up there."""

_OF_FILES = frozenset({"bytes", "changed_ns", "digest", "files", "metadata"})
"""By what files are known (`fingerprint`): numbers that tell the user nothing."""

_LAST = ("options.pyramid",)
"""The levels also follow from the box and the voxel size, which tell more."""


def require_same(before: Mapping[str, Any], now: Mapping[str, Any], *, destination: str) -> None:
    """Refuse to go on with a conversion that was begun with something else.

    Raises
    ------
    RunConflictError
        Naming the first value that differs.
    """
    there, here = _flatten(before), _flatten(json.loads(json.dumps(now)))
    different = [name for name in sorted({*there, *here}) if there.get(name) != here.get(name)]
    if not different:
        return
    first = min(different, key=lambda name: name in _LAST)
    said = _difference(first, there.get(first), here.get(first), source=here.get("source.uri"))
    raise RunConflictError(f"{destination} was begun {said}: {_WAYS_OUT}")


def _difference(name: str, there: Any, here: Any, *, source: Any) -> str:
    kind, _, inner = name.partition(".")
    if name == "source.uri":
        return f"from {there}, now from {here}"
    if kind == "source" and inner.startswith("recipe."):
        inner = inner.removeprefix("recipe.")
    elif kind == "source" and inner in _OF_FILES:
        return f"from {source}, whose files have changed since"
    elif kind == "source" and inner not in _HOW_OPENED:
        return f"from {source}, which has changed since ({inner}: {there}, now {here})"
    option = f"--{inner.replace('_', '-')}"
    if inner == "pyramid" and there and here and len(there) == len(here):
        return f"with the levels {_text(there)}, now {_text(here)}"
    if isinstance(there or here, bool):
        return f"with {option}, now without" if there else f"without {option}, now with it"
    before, after = (
        str(len(value)) if inner == "pyramid" and value else _text(value) for value in (there, here)
    )
    if not before:
        return f"without {option}, now with {option} {after}"
    return f"with {option} {before}, now {after or 'without'}"


def _text(value: Any) -> str:
    """Write a value as it is typed; nothing for none."""
    if value is None or value == []:
        return ""
    if not isinstance(value, list):
        return str(value)
    if isinstance(value[0], list):
        return " ".join(map(_text, value))
    return ",".join(f"{number:.15g}" for number in value)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat
