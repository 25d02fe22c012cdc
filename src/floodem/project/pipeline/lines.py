"""Where each key of a TOML text stands: a text in, line numbers by dotted key out.

`tomllib` gives values without places. This looks at lines alone, for messages: what it
does not find has no number.
"""

from __future__ import annotations

import re

_TABLE = re.compile(r"\s*\[\[?\s*([^\]]+?)\s*\]\]?\s*(?:#.*)?")
_KEY = re.compile(r"\s*([A-Za-z0-9_.\"'\s-]+?)\s*=(.*)", re.DOTALL)
_TEXT = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'[^']*'")
_LONG_TEXTS = ('"""', "'''")


def lines_of_keys(text: str) -> dict[str, int]:
    """Return the line (from 1) of each table and key; of repeated tables that of the first."""
    found: dict[str, int] = {}
    table, depth, inside = "", 0, ""
    for number, line in enumerate(text.splitlines(), start=1):
        if inside:
            inside = "" if inside in line else inside
            continue
        opened = next((one for one in _LONG_TEXTS if line.count(one) % 2), "")
        rest = line
        if depth == 0:
            head = _TABLE.fullmatch(line)
            pair = _KEY.fullmatch(line)
            if head is not None:
                table = _bare(head[1])
                found.setdefault(table, number)
                continue
            if pair is not None and not line.lstrip().startswith("#"):
                name = _bare(pair[1])
                found.setdefault(f"{table}.{name}" if table else name, number)
                rest = pair[2]
        inside = opened
        depth = max(0, depth + _opened_brackets(rest))
    return found


def line_of(lines: dict[str, int], key: str) -> int | None:
    """Return the line of a key, or of the table around it; None where neither stands there."""
    while key:
        if key in lines:
            return lines[key]
        key = key.rpartition(".")[0]
    return None


def _bare(name: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in name.split("."))


def _opened_brackets(line: str) -> int:
    bare = _TEXT.sub("", line).partition("#")[0]
    return sum(bare.count(one) for one in "[{") - sum(bare.count(one) for one in "]}")
