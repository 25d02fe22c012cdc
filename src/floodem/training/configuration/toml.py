"""Options as a TOML text, each key under the sentence that explains it.

In: a dataclass of options. Out: a text that `tomllib` reads back to the same
values; keys that are left out stand there as comments.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from floodem.training.configuration.tables import (
    annotations_of,
    is_table,
    key_of,
    repeated_table,
    to_plain,
)

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_WIDTH = 98
_DELETE = "\x7f"
"""The one control character that JSON lets through and TOML does not."""


def write_toml(options: Any, *, version: int) -> str:
    """Return the complete configuration as text."""
    lines = [f"version = {version}", ""]
    lines += _table(options, name="")
    return "\n".join(lines).rstrip("\n") + "\n"


def _table(options: Any, *, name: str) -> Iterator[str]:
    """Yield a table's own keys, then its tables: TOML wants them in this order."""
    kinds = annotations_of(type(options))
    tables: list[tuple[str, Any, bool]] = []
    for field in dataclasses.fields(options):
        value, kind = getattr(options, field.name), kinds[field.name]
        path = f"{name}.{key_of(field)}" if name else key_of(field)
        if repeated_table(kind) is not None:
            tables += [(path, entry, True) for entry in value]
        elif is_table(kind):
            tables.append((path, value, False))
        else:
            yield from textwrap.wrap(
                field.metadata.get("help", ""),
                _WIDTH,
                initial_indent="# ",
                subsequent_indent="# ",
            )
            given = "" if value is None else _value(to_plain(value))
            yield (
                f"# {key_of(field)} is left out" if value is None else f"{key_of(field)} = {given}"
            )
    for path, value, is_repeated in tables:
        yield from ("", f"[[{path}]]" if is_repeated else f"[{path}]")
        yield from _table(value, name=path)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace(_DELETE, "\\u007f")
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(name)} = {_value(entry)}" for name, entry in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    return f"[{', '.join(_value(entry) for entry in value)}]"


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _value(name)
