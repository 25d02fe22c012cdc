"""A quick look at what the client will read by itself: an address in, what it seems to be out.

The client needs no such look; but who shows a volume wants to know where it lies and
whether it holds labels. A server that does not answer soon is left to the client.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from floodem.errors import FloodemError, VolumeFormatError, VolumeNotFoundError
from floodem.geometry import Box, VoxelSize
from floodem.viewer.layers import Kind, grey_range, guess_kind
from floodem.volumes import open_volume
from floodem.volumes.chunked.access import folder_of
from floodem.volumes.location import parse_location, recognised
from floodem.volumes.volume import Volume

PROBED_WITHIN_S = 6.0
"""Several requests to a server on another continent; nobody waits longer for a first look."""

_EITHER_ZARR = "zarr://"
_ZARRS = frozenset({"zarr", "zarr3"})

_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What was found out, None where it was not.

    Attributes
    ----------
    kind, box, voxel_size, shown_range
        As of `floodem.viewer.layers.RemoteLayer`.
    better
        What `floodem.open_volume` takes, where the files do not tell the client which axis
        is which and how long: then floodem is to serve them.
    """

    kind: Kind | None = None
    box: Box | None = None
    voxel_size: VoxelSize | None = None
    shown_range: tuple[float, float] | None = None
    better: str | None = None


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
    uri, volume = _opened(uri)
    with volume:
        kind = kind or guess_kind(volume)
        shown = grey_range(volume) if kind is Kind.IMAGE else None
        return Probe(
            kind=kind,
            box=volume.box,
            voxel_size=volume.voxel_size,
            shown_range=shown,
            better=None if _tells_axes(uri) else uri,
        )


def _opened(uri: str) -> tuple[str, Volume]:
    """Open a remote volume; to the client ``zarr`` means both of its versions."""
    try:
        return uri, open_volume(uri)
    except VolumeFormatError:
        if not uri.startswith(_EITHER_ZARR):
            raise
        newer = uri.replace(_EITHER_ZARR, "zarr3://", 1)
        return newer, open_volume(newer)


def _tells_axes(uri: str) -> bool:
    """Tell whether the client learns names and units of the axes: of zarr from OME-Zarr alone."""
    location = parse_location(uri)
    if location.format not in _ZARRS:
        return True
    folder = folder_of(location)
    attributes = folder.json(".zattrs") or (folder.json("zarr.json") or {}).get("attributes")
    return isinstance(attributes, dict) and bool({"multiscales", "ome"} & attributes.keys())


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
