"""Where a volume is: a URI in, its format, path and dataset out.

A URI is a path, optionally with ``@dataset`` or ``:dataset``, or a format's name
and ``://`` in front of a path or of an http(s), gs or s3 address. Without a
prefix the extension decides, then a look at what is there; at servers nobody looks
before a volume is opened (`recognised`).
"""

from __future__ import annotations

import difflib
import itertools
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote

from floodem.errors import (
    FloodemError,
    StorageError,
    UsageError,
    VolumeFormatError,
    VolumeNotFoundError,
)
from floodem.files import storage_error
from floodem.volumes.registry import VolumeFormat, formats
from floodem.volumes.servers.addresses import (
    REMOTE_SCHEMES,
    is_remote,
    split_address,
    without_secrets,
)

# At least two letters: C:// is a drive.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://(.*)", re.DOTALL)
_DATASET_SEPARATORS = "@:"
_DRIVE_LENGTH = 2
# Behind em.zarr@labels.floodem/ lie volumes of a run, which is no dataset of em.zarr.
_RECORD = re.compile(r"[^/\\]*\.floodem[/\\]")
# What a message about a folder names, and how many entries are looked at for it.
_MAX_NAMED = 3
_MAX_LOOKED_AT = 200


@dataclass(frozen=True, slots=True)
class Location:
    """A parsed URI.

    Attributes
    ----------
    uri
        As it was given, for messages: signed queries and passwords are left out.
    path
        Path or remote address, as written, without prefix and dataset.
    format
        Name of the format, or None when neither prefix, extension nor a look
        at the path tells it.
    dataset
        Name of the array inside the file or folder, or None.
    """

    uri: str
    path: str
    format: str | None
    dataset: str | None = None

    @property
    def is_remote(self) -> bool:
        """Whether the path is an http(s), gs or s3 address."""
        return is_remote(self.path)

    @property
    def shown(self) -> str:
        """The path for messages: signed queries and passwords are left out."""
        return without_secrets(self.path) if self.is_remote else self.path

    @property
    def local(self) -> Path:
        """The path of a local volume."""
        return Path(self.path)

    @property
    def absolute(self) -> str:
        """An address that means the same in whatever folder a process works."""
        if self.is_remote:
            return f"{self.format}://{self.path}" if self.format else self.path
        prefix = f"{self.format}://" if self.format else ""
        dataset = f"@{self.dataset}" if self.dataset else ""
        return f"{prefix}{os.path.abspath(self.path)}{dataset}"

    def is_same(self, other: Location) -> bool:
        """Tell whether two addresses may mean one volume, however they are written."""
        if self.is_remote or other.is_remote:
            return (self.path.rstrip("/"), self.dataset) == (other.path.rstrip("/"), other.dataset)
        ours, others = _place(self), _place(other)
        # A file with one volume may be named with or without its dataset.
        return ours == others or (
            ours[0] == others[0] and None in (ours[1], others[1]) and not ours[0].is_dir()
        )


def _place(location: Location) -> tuple[Path, str | None]:
    """Return where a local volume is: a dataset of a folder is a folder itself."""
    path = Path(os.path.normcase(os.path.realpath(location.local)))
    dataset = (location.dataset or "").strip("/") or None
    if dataset is not None and path.is_dir():
        return path / dataset, None
    return path, dataset


def parse_location(uri: str | os.PathLike[str]) -> Location:
    r"""Take a URI apart.

    ``em.h5@raw``, ``C:\data\em.h5:raw``, ``zarr3://out/labels``,
    ``precomputed://https://host/path`` and ``file:///data/em.zarr`` are examples.

    Raises
    ------
    UsageError
        When the prefix is unknown, or nothing follows the dataset separator.
    """
    text = os.fspath(uri)
    if not text:
        raise UsageError("the address of a volume is empty: give a path or URI")
    known = formats()
    rest, format_ = _split_prefix(text)
    rest = _without_file_scheme(rest)
    if is_remote(rest):
        path, dataset = _split_remote_dataset(rest, known.get(format_ or ""))
        format_ = format_ or _by_extension(split_address(path)[2])
        return Location(without_secrets(text), path, format_, dataset)
    try:
        path, dataset = _split_dataset(rest, known.get(format_ or ""))
        return Location(text, path, format_ or _recognise(path), dataset)
    except OSError as error:
        if isinstance(error, FloodemError):
            raise
        raise storage_error("look at", rest, error) from error


def _split_prefix(text: str) -> tuple[str, str | None]:
    match = _SCHEME.fullmatch(text)
    if match is None or match[1].lower() in (*REMOTE_SCHEMES, "file"):
        return text, None
    prefix, rest = match[1].lower(), match[2]
    names = list(formats())
    if prefix not in names:
        nearest = difflib.get_close_matches(prefix, names, n=1)
        hint = f"did you mean {nearest[0]}://? " if nearest else ""
        raise UsageError(
            f"{text!r} begins with the unknown prefix {match[1]}://: {hint}known are "
            + ", ".join(f"{name}://" for name in names)
        )
    if not rest:
        raise UsageError(f"{text!r} names a format but no path: write {prefix}://PATH")
    return rest, prefix


def _without_file_scheme(text: str) -> str:
    match = _SCHEME.fullmatch(text)
    if match is None or match[1].lower() != "file":
        return text
    host, slash, inner = match[2].partition("/")
    path = unquote(slash + inner)
    if host and host.lower() != "localhost":
        # file://server/share means \\server\share
        return f"//{host}{path}"
    # file:///C:/data means C:/data
    return path[1:] if re.match(r"/[A-Za-z]:[/\\]", path) else path


def _split_dataset(text: str, forced: VolumeFormat | None) -> tuple[str, str | None]:
    if Path(text).exists() or (forced and not forced.holds_datasets):
        return text, None
    holders = [forced] if forced else [f for f in formats().values() if f.holds_datasets]
    endings = tuple(ending for holder in holders for ending in holder.extensions)
    positions = [
        i
        for i, char in enumerate(text)
        if char in _DATASET_SEPARATORS and not _RECORD.match(text, i + 1)
    ]
    splits = [i for i in positions if text[:i].lower().endswith(endings)]
    if not splits:
        # A file with an unusual ending, such as results.bin@raw.
        splits = [i for i in positions if i >= _DRIVE_LENGTH and Path(text[:i]).is_file()]
    if not splits and forced and forced.remote == "read":
        # A file with an unusual ending that is to be made: hdf5://results.bin@raw.
        splits = [i for i in positions if text[i] == "@" and not {*"\\/"} & {*text[i:]}]
    if not splits:
        return text, None
    at = next((i for i in splits if Path(text[:i]).exists()), splits[-1])
    if at + 1 == len(text):
        raise UsageError(f"{text!r} ends with {text[at]!r} but names no dataset after it")
    return text[:at], text[at + 1 :]


def _split_remote_dataset(address: str, forced: VolumeFormat | None) -> tuple[str, str | None]:
    """Split only behind an ending, or behind the path of a file whose format is given.

    Hosts, ports, users and buckets are no part of it. A name may also follow a
    signed query, where somebody has put it behind a copied address.
    """
    if forced and not forced.holds_datasets:
        return address, None
    scheme, place, path, query = split_address(address)
    holders = [forced] if forced else [f for f in formats().values() if f.holds_datasets]
    endings = tuple(ending for holder in holders for ending in holder.extensions)
    splits = [
        i
        for i, char in enumerate(path)
        if char in _DATASET_SEPARATORS
        and path[:i].lower().endswith(endings)
        and not _RECORD.match(path, i + 1)
    ]
    name = None
    if splits:
        path, name = path[: splits[-1]], path[splits[-1] + 1 :]
    elif path.lower().endswith(endings) and "@" in query:
        query, _, name = query.rpartition("@")
    elif forced and forced.remote == "read" and "@" in path:
        path, _, name = path.rpartition("@")
    if name is None:
        return address, None
    if not name:
        raise UsageError(f"{without_secrets(address)!r} ends like a dataset but names none")
    return f"{scheme}://{place}/{path}" + (f"?{query}" if query else ""), unquote(name)


def _by_extension(path: str) -> str | None:
    lowered = path.lower().rstrip("/\\")
    for record in formats().values():
        if lowered.endswith(record.extensions):
            return record.name
    return None


def _recognise(path: str) -> str | None:
    """Name the format of a path: what is there goes before what the extension says."""
    there = Path(path)
    by_extension = _by_extension(path)
    if not there.exists() or (there.is_file() and by_extension is not None):
        return by_extension
    matches = [record.name for record in formats().values() if record.recognises(there)]
    if by_extension in matches or not matches:
        return by_extension
    if len(matches) > 1:
        raise _ambiguous(Location(path, path, None), matches)
    return matches[0]


def recognised(location: Location) -> Location:
    """Tell the format of a remote address that does not say it, by a look at what is there.

    Raises
    ------
    VolumeNotFoundError
        When there is nothing at the address that floodem knows.
    VolumeFormatError
        When it could be several formats.
    StorageError
        When the server denies access or does not answer.
    """
    if not location.is_remote or location.format is not None:
        return location
    matches = _folder_formats(location) or _file_formats(location)
    if not matches:
        raise VolumeNotFoundError(
            f"there is no volume at {location.uri} that floodem knows: check the address, or put "
            f"the format in front, as in zarr://{location.shown}"
        )
    if len(matches) > 1:
        raise _ambiguous(location, matches)
    return replace(location, format=matches[0])


def _folder_formats(location: Location) -> list[str]:
    return [
        record.name
        for record in formats().values()
        if record.recognises_remote is not None and record.recognises_remote(location)
    ]


def _file_formats(location: Location) -> list[str]:
    from floodem.volumes.servers.patience import AccessDeniedError
    from floodem.volumes.servers.transport import open_file

    known = [(record.name, record.signatures) for record in formats().values()]
    longest = max(len(signature) for _, signatures in known for signature in signatures)
    try:
        with open_file(location.path) as file:
            first = file.read(longest)
    except AccessDeniedError:
        raise
    except (StorageError, VolumeNotFoundError):
        # A folder, of which some servers send a page.
        return []
    return [name for name, signatures in known if signatures and first.startswith(signatures)]


def _ambiguous(location: Location, matches: list[str]) -> VolumeFormatError:
    return VolumeFormatError(
        f"{location.shown} could be read as {' or '.join(matches)}: put the format in front, "
        f"for example {matches[0]}://{location.shown}"
    )


def require_format(location: Location) -> VolumeFormat:
    """Return the record of a location's format.

    Raises
    ------
    VolumeFormatError
        When the format cannot be told.
    """
    if location.format is None:
        endings = sorted({e for record in formats().values() for e in record.extensions})
        raise VolumeFormatError(
            f"cannot tell the format of {location.uri}: use a known ending ({' '.join(endings)}) "
            "or put the format in front, as in " + " ".join(f"{name}://" for name in formats())
        )
    return formats()[location.format]


def _no_volume_itself(location: Location) -> VolumeFormatError:
    """Say of a folder of no known format what volumes lie in it."""
    shown = os.path.join(location.path, "")
    try:
        names = sorted(entry.name for entry in location.local.iterdir())
    except OSError as error:
        raise storage_error("look at", location.path, error) from error
    if not names:
        return VolumeFormatError(f"{shown} is an empty folder, no volume: check the address")
    known = (name for name in names[:_MAX_LOOKED_AT] if _may_be_volume(location.local / name))
    found = list(itertools.islice(known, _MAX_NAMED + 1))
    if found:
        more = " and more" if len(found) > _MAX_NAMED else ""
        return VolumeFormatError(
            f"{shown} is a folder and no volume itself, but holds "
            f"{', '.join(found[:_MAX_NAMED])}{more}: give one of them, as in "
            f"{location.local / found[0]}"
        )
    return VolumeFormatError(
        f"{shown} is a folder in which there is no volume that floodem knows ({len(names)} other "
        "things): check the address, or put the format in front, as in zarr://"
        f"{location.path}"
    )


def _may_be_volume(path: Path) -> bool:
    if path.name.startswith("."):
        return False
    try:
        return _recognise(str(path)) is not None
    except FloodemError:
        return True  # of one format or another
    except OSError:
        return False


def require_existing(location: Location) -> None:
    """Refuse a local address where there is nothing to read, naming what is near.

    Raises
    ------
    VolumeNotFoundError
        When there is no such file or folder.
    VolumeFormatError
        When there is a folder that is no volume.
    """
    path = location.local
    if location.is_remote:
        return
    if path.exists():
        if location.format is None and path.is_dir():
            raise _no_volume_itself(location)
        return
    folder = path.parent
    if not folder.is_dir():
        raise VolumeNotFoundError(
            f"there is no {location.path}: the folder {folder} does not exist either"
        )
    near = difflib.get_close_matches(path.name, [entry.name for entry in folder.iterdir()], n=3)
    hint = f"nearest there are {', '.join(near)}" if near else "check the address"
    raise VolumeNotFoundError(f"there is no {location.path}: {hint}")
