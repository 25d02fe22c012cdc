"""Where a volume is: a URI in, its format, path and dataset out.

A URI is a path, optionally with ``@dataset`` or ``:dataset``, or a format's name
and ``://`` in front of a path or of an http(s), gs or s3 address. Without a
prefix the extension decides, then a look at what is there.
"""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from floodem.errors import FloodemError, UsageError, VolumeFormatError, VolumeNotFoundError
from floodem.files import storage_error
from floodem.volumes.registry import VolumeFormat, formats

REMOTE_SCHEMES = ("http", "https", "gs", "s3")

# At least two letters: C:// is a drive.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://(.*)", re.DOTALL)
_DATASET_SEPARATORS = "@:"
_DRIVE_LENGTH = 2


@dataclass(frozen=True, slots=True)
class Location:
    """A parsed URI.

    Attributes
    ----------
    uri
        As it was given.
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
        scheme = _SCHEME.fullmatch(self.path)
        return scheme is not None and scheme[1].lower() in REMOTE_SCHEMES

    @property
    def local(self) -> Path:
        """The path of a local volume."""
        return Path(self.path)


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
    if Location(text, rest, None).is_remote:
        return Location(text, rest, format_ or _by_extension(urlsplit(rest).path))
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
    path = unquote(match[2])
    # file:///C:/data means C:/data
    return path[1:] if re.match(r"/[A-Za-z]:[/\\]", path) else path


def _split_dataset(text: str, forced: VolumeFormat | None) -> tuple[str, str | None]:
    if Path(text).exists() or (forced and not forced.holds_datasets):
        return text, None
    holders = [forced] if forced else [f for f in formats().values() if f.holds_datasets]
    endings = tuple(ending for holder in holders for ending in holder.extensions)
    positions = [i for i, char in enumerate(text) if char in _DATASET_SEPARATORS]
    splits = [i for i in positions if text[:i].lower().endswith(endings)]
    if not splits:
        # A file with an unusual ending, such as results.bin@raw.
        splits = [i for i in positions if i >= _DRIVE_LENGTH and Path(text[:i]).is_file()]
    if not splits:
        return text, None
    at = next((i for i in splits if Path(text[:i]).exists()), splits[-1])
    if at + 1 == len(text):
        raise UsageError(f"{text!r} ends with {text[at]!r} but names no dataset after it")
    return text[:at], text[at + 1 :]


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
        raise VolumeFormatError(
            f"{path} could be read as {' or '.join(matches)}: put the format in front, "
            f"for example {matches[0]}://{path}"
        )
    return matches[0]


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


def require_existing(location: Location) -> None:
    """Refuse a local address where there is nothing, naming the nearest neighbours.

    Raises
    ------
    VolumeNotFoundError
        When there is no such file or folder.
    """
    path = location.local
    if location.is_remote or path.exists():
        return
    folder = path.parent
    if not folder.is_dir():
        raise VolumeNotFoundError(
            f"there is no {location.path}: the folder {folder} does not exist either"
        )
    near = difflib.get_close_matches(path.name, [entry.name for entry in folder.iterdir()], n=3)
    hint = f"nearest there are {', '.join(near)}" if near else "check the address"
    raise VolumeNotFoundError(f"there is no {location.path}: {hint}")
