"""Starts the process that opens hostile files, and judges how each was treated."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

WORKER = Path(__file__).parent / "worker.py"

GROWTH_BYTES = 700 * 2**20
"""What reading damaged files may add: the 256 MB that readers are told of, twice, and slack."""

LONGEST_SENTENCE = 700
HANGS_AFTER_S = 600


def open_in_a_process(cases: list[dict[str, str]], *, warm: list[str]) -> list[dict[str, Any]]:
    """Open volumes (name, uri) in a process of their own; tell what came of each.

    `warm` is opened first, so that loading libraries does not count as growth.
    """
    lines = [json.dumps(warm), *map(json.dumps, cases)]
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", str(WORKER)],
        input="\n".join(lines) + "\n",
        capture_output=True,
        encoding="utf-8",
        timeout=HANGS_AFTER_S,
        check=False,
        cwd=WORKER.parent.parent,
    )
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"died at {told[-1:]}:\n{done.stderr[-3000:]}"
    ended = [one for one in told if "outcome" in one]
    assert len(ended) == len(cases)
    return ended


def faults(ended: list[dict[str, Any]]) -> list[str]:
    """List what is wrong with how the copies were treated."""
    found = []
    for one in ended:
        message = one["message"]
        if one["outcome"] == "crashed":
            found.append(f"{one['name']}: {message}")
        elif one["outcome"] == "refused" and not is_a_sentence(message):
            found.append(f"{one['name']}: no sentence: {message!r}")
        if one["grown"] > GROWTH_BYTES:
            found.append(f"{one['name']}: memory grew by {one['grown'] / 2**20:.0f} MB")
    return found


def is_a_sentence(message: str) -> bool:
    """One printable line of bearable length that is no traceback and no status code."""
    return (
        0 < len(message) <= LONGEST_SENTENCE
        and message.isprintable()
        and "Traceback" not in message
        and "tensorstore" not in message.lower()
    )
