"""What ``floodem fetch`` can bring: ``catalogue.toml`` comes in, plain values go out.

The catalogue is data of this package; nothing in it is executed. What it says is held
to rules nevertheless, because paths and sizes of a download follow from it.
"""

from __future__ import annotations

import difflib
import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Any

from floodem.errors import UsageError
from floodem.geometry import VoxelSize, Zyx

VERSION = 1

CONTENTS: Mapping[str, bytes] = {
    "bundle": b"",
    "gzip": b"\x1f\x8b",
    "hdf5": b"\x89HDF\r\n\x1a\n",
    "npz": b"PK\x03\x04",
    "png": b"\x89PNG\r\n\x1a\n",
}
"""First bytes of each kind of file; a bundle's have no mark."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedFile:
    """One file.

    Attributes
    ----------
    path
        Where it belongs in the folder of a fetch, with forward slashes.
    address
        Where it is published, https.
    content
        Key of `CONTENTS`.
    size
        Exact, or None where it is not published.
    at_most_bytes
        More is refused before it is stored.
    sha256
        Of the published bytes, or None where it is not known.
    bodies
        Where the neurons go that supervoxels in this HDF5 file add up to, or None.
    """

    path: str
    address: str
    content: str
    size: int | None
    at_most_bytes: int
    sha256: str | None
    bodies: str | None = None

    def __post_init__(self) -> None:
        for path in (self.path, self.bodies or self.path):
            parts = PurePosixPath(path).parts
            assert parts, self
            assert not {"..", "/"} & set(parts), self
            assert "\\" not in path, self
        assert self.address.startswith("https://"), self
        assert self.content in CONTENTS, self
        assert self.at_most_bytes > 0, self


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Files that make sense together, with what must be said when they are used.

    Attributes
    ----------
    is_extra
        Whether it comes only when it is asked for.
    """

    name: str
    summary: str
    licence: str
    citation: str
    is_extra: bool
    files: tuple[PublishedFile, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedNetwork:
    """What turns the fetched checkpoint into a model file; see `ModelDescription`.

    Attributes
    ----------
    checkpoint
        Prefix of the bundle in the folder of a fetch.
    """

    checkpoint: str
    fov: Zyx
    deltas: Zyx
    image_mean: float
    image_stddev: float
    voxel_size: VoxelSize
    pad_value: float
    move_threshold: float
    licence: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A network with its sample volumes."""

    name: str
    summary: str
    network: PublishedNetwork
    parts: tuple[Part, ...]

    def chosen(self, names: tuple[str, ...]) -> tuple[Part, ...]:
        """Return the parts of these names, or without names all that are not extra.

        Raises
        ------
        UsageError
            When there is no such part.
        """
        known = {part.name: part for part in self.parts}
        for name in names:
            if name not in known:
                raise UsageError(
                    f"{self.name} has no part {name!r}{_nearest(name, known)}: give "
                    f"{', '.join(known)}, or none for the usual ones"
                )
        if not names:
            return tuple(part for part in self.parts if not part.is_extra)
        return tuple(part for part in self.parts if part.name in names)


@functools.cache
def catalogue() -> Mapping[str, Published]:
    """Return everything that can be fetched, by name."""
    text = files("floodem.legacy.published").joinpath("catalogue.toml").read_text("utf-8")
    tables = tomllib.loads(text)
    assert tables.pop("version") == VERSION
    return {name: _published(name, table) for name, table in tables.items()}


def find_published(name: str) -> Published:
    """Return what is published under a name.

    Raises
    ------
    UsageError
        When nothing is.
    """
    known = catalogue()
    if name not in known:
        raise UsageError(
            f"nothing is published as {name!r}{_nearest(name, known)}: give {' or '.join(known)}"
        )
    return known[name]


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f" (nearest: {near[0]})" if near else ""


def _published(name: str, table: Mapping[str, Any]) -> Published:
    network = dict(table["network"])
    for key in ("fov", "deltas"):
        network[key] = tuple(network[key])
    network["voxel_size"] = VoxelSize(*network["voxel_size"])
    return Published(
        name=name,
        summary=table["summary"],
        network=PublishedNetwork(**network),
        parts=tuple(_part(dict(part)) for part in table["parts"]),
    )


def _part(table: dict[str, Any]) -> Part:
    found = [one for entry in table.pop("files") for one in _files(dict(entry))]
    return Part(files=tuple(found), is_extra=table.pop("is_extra", False), **table)


def _files(entry: dict[str, Any]) -> list[PublishedFile]:
    """Return the file of an entry, or all those of a series."""
    size = entry.pop("bytes", None)
    most = entry.pop("at_most_bytes", size)
    sha256 = entry.pop("sha256", None)
    if "count" not in entry:
        return [PublishedFile(size=size, at_most_bytes=most, sha256=sha256, **entry)]
    count, width = entry.pop("count"), entry.pop("width")
    digests = [None] * count if sha256 is None else sha256
    path, address = entry.pop("path"), entry.pop("address")
    return [
        PublishedFile(
            path=path.replace("{number}", f"{number:0{width}}"),
            address=address.replace("{number}", f"{number:0{width}}"),
            size=size,
            at_most_bytes=most,
            sha256=digest,
            **entry,
        )
        for number, digest in zip(range(count), digests, strict=True)
    ]
