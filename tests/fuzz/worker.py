"""Opens files that may be hostile, one after the other, and tells how each ended.

In: one JSON object per line on standard input, {"uri": ..., "name": ...}. Out:
one JSON line per input, written before the next one is touched, so that the last
line before a crash names the culprit's predecessor. Memory is bounded: the reader
is told of little memory, and the system gives not much more.
"""

from __future__ import annotations

import json
import sys
import traceback
import warnings

import numpy as np

import floodem.memory
from floodem.errors import FloodemError
from floodem.geometry import Box
from floodem.volumes import open_volume

TOLD_BYTES = 256 * 2**20
"""The free memory that readers are told of: what declares more has to be refused."""

SPARE_BYTES = 2 * 2**30
"""Address space beyond what the libraries take when they are loaded."""

_READ = (40, 40, 40)


def little_memory() -> int:
    return TOLD_BYTES


def bound_memory() -> None:
    """Let the system refuse what goes far beyond the readers' own bound."""
    for module in list(sys.modules.values()):
        if getattr(module, "available_memory", None) is floodem.memory.available_memory:
            module.available_memory = little_memory
    if sys.platform != "linux":
        return
    import resource

    with open("/proc/self/statm", encoding="ascii") as handle:
        used = int(handle.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + SPARE_BYTES, used + SPARE_BYTES))


def peak_bytes() -> int:
    """Return the largest resident size so far (Linux)."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def attempt(uri: str) -> dict[str, str]:
    """Open a volume, read a corner and the end of it, and say how it went."""
    try:
        with open_volume(uri) as volume:
            for start in (volume.box.start, np.subtract(volume.box.stop, 1)):
                corner = Box.from_shape(_READ, start=tuple(int(at) for at in start))
                box = corner.intersection(volume.box)
                assert box is not None
                volume.read(box)
    except FloodemError as error:
        return {"outcome": "refused", "error": type(error).__name__, "message": str(error)}
    except BaseException:  # noqa: BLE001 - whatever comes is what the test is about
        return {"outcome": "crashed", "message": traceback.format_exc()}
    return {"outcome": "read", "message": ""}


def warm_up(uris: list[str]) -> None:
    """Load the libraries behind the formats, so that memory can be held against what follows."""
    for uri in uris:
        attempt(uri)


def main() -> None:
    warnings.simplefilter("ignore")
    warm_up(json.loads(sys.stdin.readline()))
    bound_memory()
    before = peak_bytes()
    for line in sys.stdin:
        case = json.loads(line)
        print(json.dumps({"name": case["name"], "begun": True}), flush=True)
        ended = attempt(case["uri"])
        grown = peak_bytes() - before
        print(json.dumps({"name": case["name"], "grown": grown, **ended}), flush=True)


if __name__ == "__main__":
    main()
