r"""Addresses of the old programs: ``file:dataset`` and its relatives in, volume addresses out.

Old command lines name an array as ``file:dataset`` or ``file@dataset``, and give it a
name in front where they need one: ``name:file:dataset``. Separators may differ within
one entry, and drive letters and addresses of servers have colons of their own::

    validation1 @ C:\data\em.h5 : raw
    ----------- - ------------- - ---
    name          file            dataset
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from floodem.errors import UsageError
from floodem.volumes.registry import formats
from floodem.volumes.servers.addresses import REMOTE_SCHEMES

_SEPARATOR = re.compile(r"[@:]")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_DRIVE = re.compile(r"[A-Za-z]:")


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedAddress:
    """A volume as a command line of the old programs names it.

    Attributes
    ----------
    name
        What other files call it.
    address
        As `floodem.volumes.open_volume` takes it.
    """

    name: str
    address: str


def file_and_dataset(text: str) -> str:
    r"""Return the address for `open_volume` of ``FILE:DATASET`` or ``FILE@DATASET``.

    The old programs read and wrote HDF5 whatever a file was called, so a name whose
    ending tells nothing gets ``hdf5://`` in front. What names no dataset, or is an
    address of floodem already (``zarr://...``), stays as it is.

    Parameters
    ----------
    text
        For example ``af.h5:af``, ``C:\data\em.h5@raw`` or ``gs://bucket/em.h5:raw``.

    Raises
    ------
    UsageError
        When a part of it is empty.
    """
    bare = text.strip()
    scheme = _SCHEME.match(bare)
    if scheme is not None and scheme[1].lower() not in {*REMOTE_SCHEMES, "file"}:
        return bare
    at = _dataset_separator(bare, first=scheme.end() if scheme else 0)
    if at is None:
        if not bare:
            raise UsageError("the address of a volume is empty: write FILE:DATASET")
        return bare
    file, dataset = bare[:at], bare[at + 1 :]
    if not file or not dataset:
        missing = "dataset after" if file else "file before"
        raise UsageError(f"{text!r} has no {missing} its {bare[at]!r}: write FILE:DATASET")
    prefix = "" if file.lower().endswith(_endings()) else "hdf5://"
    return f"{prefix}{file}@{dataset}"


def named_addresses(entries: Sequence[str]) -> tuple[NamedAddress, ...]:
    """Return the volumes of a list such as that of ``--label_volumes``.

    Parameters
    ----------
    entries
        Each ``NAME:FILE:DATASET``; the separators ``:`` and ``@`` may be mixed.

    Raises
    ------
    UsageError
        When an entry has no name or no file, or two have one name.
    """
    named: dict[str, NamedAddress] = {}
    for entry in entries:
        found = _named(entry)
        if found.name in named:
            raise UsageError(f"two volumes are called {found.name!r}: give them different names")
        named[found.name] = found
    return tuple(named.values())


def _named(entry: str) -> NamedAddress:
    bare = entry.strip()
    separator = _SEPARATOR.search(bare)
    name = bare[: separator.start()].strip() if separator else ""
    rest = bare[separator.end() :] if separator else ""
    is_path = "/" in name or "\\" in name or name.lower().endswith(_endings())
    is_drive = len(name) == 1 and rest.startswith("\\")
    if not name or not rest or is_path or is_drive or _SCHEME.match(bare):
        raise UsageError(
            f"{entry!r} is not a named volume: write NAME:FILE:DATASET, for example "
            "validation1:groundtruth.h5:stack"
        )
    return NamedAddress(name=name, address=file_and_dataset(rest))


def _dataset_separator(text: str, *, first: int) -> int | None:
    """Return where the file ends and the dataset begins; None: it names no dataset.

    That is behind the first ending of a file that holds datasets, else at the last
    separator. A drive letter's colon is none, nor is what belongs to a server.
    """
    if first:
        first = max(first, text.find("/", first))
    elif _DRIVE.match(text) and (text[2:3] in {"\\", "/"} or _is_drive_relative(text)):
        first = 2
    places = [match.start() for match in _SEPARATOR.finditer(text, first)]
    behind_ending = [at for at in places if text[:at].lower().endswith(_endings())]
    if behind_ending:
        return behind_ending[0]
    return None if text.lower().endswith(_endings()) or not places else places[-1]


def _is_drive_relative(text: str) -> bool:
    """Tell whether it is like ``C:em.h5``: a file of the folder in which that drive stands."""
    return any(ending in text.lower() for ending in _endings())


def _endings() -> tuple[str, ...]:
    """Return the endings of files that hold datasets."""
    return tuple(
        ending
        for record in formats().values()
        if record.holds_datasets
        for ending in record.extensions
    )
