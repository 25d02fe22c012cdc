"""What a run is made from, compared with what it was begun with: two sets of plain values in.

Out: nothing, or a refusal that names the first value that differs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from floodem.errors import RunConflictError

_MISSING = "nothing"
_DIGEST_LETTERS, _SHOWN_LETTERS = 64, 12


def require_same_run(
    before: Mapping[str, Any], now: Mapping[str, Any], *, destination: str
) -> None:
    """Refuse to go on with a run that was begun with something else.

    Parameters
    ----------
    before
        Identity as a record keeps it.
    now
        Identity of the present call; any values that JSON can hold.

    Raises
    ------
    RunConflictError
        Naming the first value that differs, with both values.
    """
    earlier, present = _flatten(before), _flatten(json.loads(json.dumps(now)))
    for name in sorted({*earlier, *present}):
        there, here = earlier.get(name, _MISSING), present.get(name, _MISSING)
        if there != here:
            raise RunConflictError(
                f"{destination} was begun with {name} = {_short(there)}, now it is "
                f"{_short(here)}: "
                "repeat the earlier command to go on, choose another destination, or begin "
                "again with --overwrite"
            )


def _short(value: object) -> object:
    """Cut a digest to what eyes compare."""
    if isinstance(value, str) and len(value) == _DIGEST_LETTERS:
        return f"{value[:_SHOWN_LETTERS]}..."
    return value


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat
