"""A quick look at what the client will read by itself: an address in, what it seems to be out.

The client needs no such look; but who shows a volume wants to know where it lies and
whether it holds labels. A server that does not answer soon is left to the client.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from floodem.errors import FloodemError, VolumeNotFoundError
from floodem.geometry import Box, VoxelSize
from floodem.viewer.layers import Kind, grey_range, guess_kind
from floodem.volumes import open_volume
from floodem.volumes.location import parse_location, recognised

PROBED_WITHIN_S = 6.0
"""Several requests to a server on another continent; nobody waits longer for a first look."""

_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What was found out, None where it was not."""

    kind: Kind | None = None
    box: Box | None = None
    voxel_size: VoxelSize | None = None
    shown_range: tuple[float, float] | None = None


def probe(uri: str, *, kind: Kind | None = None, within_s: float = PROBED_WITHIN_S) -> Probe:
    """Look at a remote volume, as far as floodem can read it and its server answers soon.

    Parameters
    ----------
    kind
        What the user says it is.

    Raises
    ------
    VolumeNotFoundError
        When the server says that nothing is there.
    """
    return _within(lambda: _look(uri, kind), within_s) or Probe(kind=kind)


def probe_format(uri: str, *, within_s: float = PROBED_WITHIN_S) -> str | None:
    """Tell the format of what lies at a remote address, or None where it cannot be told soon.

    Raises
    ------
    VolumeNotFoundError
        When the server says that nothing is there that floodem knows.
    """
    return _within(lambda: recognised(parse_location(uri)).format, within_s)


def _look(uri: str, kind: Kind | None) -> Probe:
    with open_volume(uri) as volume:
        kind = kind or guess_kind(volume)
        shown = grey_range(volume) if kind is Kind.IMAGE else None
        return Probe(kind=kind, box=volume.box, voxel_size=volume.voxel_size, shown_range=shown)


def _within(look: Callable[[], _Found], seconds: float) -> _Found | None:
    """Run in a thread that is left alone when it takes too long; it ends with the process."""
    found: list[_Found] = []
    missing: list[VolumeNotFoundError] = []

    def run() -> None:
        try:
            found.append(look())
        except VolumeNotFoundError as error:
            missing.append(error)
        except FloodemError:
            pass  # the client may know more formats, and says itself what is wrong

    thread = threading.Thread(target=run, daemon=True, name="floodem-probe")
    thread.start()
    thread.join(seconds)
    if missing:
        raise missing[0]
    return found[0] if found else None
