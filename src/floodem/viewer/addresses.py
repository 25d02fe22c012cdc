"""What the viewer can be given by name: an address in, who reads it and how it is written out.

Local files, gs and s3 (whose credentials stay here) and formats that browsers do not
know are read by floodem and served chunk by chunk. What a browser can fetch itself,
http(s) and the servers of other projects, goes to the client as it is, in the spelling
that it takes: ``precomputed://https://...`` as well as ``https://...|zarr3:``.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, replace

from floodem.errors import UsageError
from floodem.volumes.location import parse_location
from floodem.volumes.registry import formats
from floodem.volumes.servers.addresses import (
    REMOTE_SCHEMES,
    child_address,
    without_secrets,
)

CLIENT_ONLY = ("dvid", "boss", "render", "brainmaps", "graphene", "nggraph", "deepzoom")
"""Servers and formats that the client reads and floodem does not."""

MESH_FILES = ("obj", "vtk")
"""Formats of one mesh that the client reads over http."""

CLIENT_FORMATS = ("precomputed", "zarr", "zarr2", "zarr3", "n5", "nifti")
"""Formats that the client reads over http; all but nifti are read there by floodem as well."""

_ALIASES = {"bossdb": "boss"}
_BOSSDB_HOST = "https://api.bossdb.io"  # what bossdb:// means in intern and CloudVolume
_PRECOMPUTED_PART = "neuroglancer-precomputed"  # the client's name for it behind a bar
_FLOODEM_FORMATS = {"zarr2": "zarr", _PRECOMPUTED_PART: "precomputed"}
_PRIVATE = ("python", "local")  # what only a page's own program can name
_DRAWING_PARAMETERS = frozenset(
    ["window", "encoding", "channel", "numlevels", "tilesize"]
    + [f"{end}{axis}" for end in ("min", "max") for axis in "XYZ"]
    + ["minIntensity", "maxIntensity", "filter", "convertToGray", "binaryMask"]
)
"""Of BossDB's and Render's addresses (the client's datasource/boss and datasource/render)."""

_USER = re.compile(r"(?<=://)[^/\s@\"']+@")
_BUCKET = re.compile(r"(?:^|://|\+)(?:gs|s3)://", re.IGNORECASE)
_STORES = re.compile(r"(?:https?|gs|s3|(?:middleauth|gs\+ngauth|s3)\+https?)://", re.IGNORECASE)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a layer's data are.

    Attributes
    ----------
    text
        As the user gave it, for messages: signed queries and passwords are left out.
    volume
        What `floodem.open_volume` takes, or None where only the client knows the format.
    client
        What the client reads by itself, or None where floodem serves the volume.
    public
        What other people's viewers may be given, without secrets, or None for local data.
    is_open
        Whether only a look at the server can tell the format, and so who reads it.
    """

    text: str
    volume: str | None
    client: str | None
    public: str | None
    is_open: bool = False

    @property
    def name(self) -> str:
        """The last part of the address: what a layer is called by."""
        text = re.split(r"[?#|]", self.text.replace("\\", "/"))[0].rstrip("/")
        return text.rsplit("/", 1)[-1] or self.text


def parse_address(text: str) -> Address:
    """Decide who reads an address; nothing is looked at on disk beyond its format.

    Raises
    ------
    UsageError
        When its scheme is unknown or means nothing here.
    """
    if _STORES.match(text) and "|" in text:
        return _pipeline(text)
    match = _SCHEME.fullmatch(text)
    scheme = match[1].lower() if match else ""
    scheme = _ALIASES.get(scheme, scheme)
    if match is None or scheme == "file":
        return _local(text, text)
    if scheme in _PRIVATE:
        raise UsageError(
            f"{text!r} means something only to the program that made it: give a path or an "
            "address on a server"
        )
    if scheme in (*CLIENT_ONLY, *MESH_FILES):
        return _for_client(text, scheme, match[2])
    if scheme in CLIENT_FORMATS:
        return _with_format(text, scheme, match[2])
    if scheme in REMOTE_SCHEMES:
        return _plain(text)
    if scheme in formats():
        return _served(text, match[2])
    raise _unknown(text, scheme)


def is_mesh_file(address: Address) -> bool:
    """Tell whether this is a file with one mesh, which is shown as it is."""
    scheme = (address.client or "").partition("://")[0]
    return scheme in MESH_FILES


def _pipeline(text: str) -> Address:
    """Take the present spelling, ``https://host/em.zarr|zarr3:``."""
    base, *parts = text.split("|")
    parts = [re.sub(r"^precomputed(?=:|$)", _PRECOMPUTED_PART, part) for part in parts]
    volume = None
    if len(parts) == 1 and _is_on_server(base):
        name, _, inner = parts[0].partition(":")
        name = _FLOODEM_FORMATS.get(name, name)
        if _is_read_here(name) and not re.search(r"[?#]", inner):
            inside = child_address(base, inner.strip("/")) if inner.strip("/") else base
            volume = f"{name}://{inside}"
    return _either(text, volume=volume, client="|".join([base, *parts]))


def _with_format(text: str, scheme: str, rest: str) -> Address:
    """Take ``FORMAT://`` in front of a path or of an address on a server."""
    name = _FLOODEM_FORMATS.get(scheme, scheme)
    volume = f"{name}://{rest}"
    if not _is_on_server(rest):
        return _local(text, volume)
    location = parse_location(volume)
    inside = child_address(location.path, location.dataset) if location.dataset else location.path
    return _either(
        text, volume=volume if _is_read_here(name) else None, client=f"{scheme}://{inside}"
    )


def _plain(text: str) -> Address:
    """Take an address on a server that names no format: its ending may tell."""
    location = parse_location(text)
    if location.format in CLIENT_FORMATS:
        client = _with_format(text, location.format, text)
        return replace(client, text=location.uri)
    # A folder without an ending may be one of the client's formats, a file of ours is none.
    is_open = location.format is None
    return Address(
        text=location.uri,
        volume=text,
        client=None,
        public=public_url(text) if is_open else None,
        is_open=is_open,
    )


def with_format(address: Address, format_: str) -> Address:
    """Return who reads an address whose format a look at the server has told."""
    if format_ in CLIENT_FORMATS and address.volume is not None:
        return replace(_with_format(address.volume, format_, address.volume), text=address.text)
    return replace(address, public=None, is_open=False)


def _is_on_server(path: str) -> bool:
    return path.lower().startswith(tuple(f"{scheme}://" for scheme in REMOTE_SCHEMES))


def _is_read_here(format_: str) -> bool:
    """Tell whether floodem reads a format from servers."""
    return format_ in formats() and formats()[format_].remote is not None


def _either(text: str, *, volume: str | None, client: str) -> Address:
    """Let the client read what it may, and floodem what has secrets or needs credentials."""
    shown = _shown(text)
    is_ours = volume is not None and (shown != text or _BUCKET.search(text) is not None)
    return Address(
        text=shown,
        volume=volume,
        client=None if is_ours else client,
        public=public_url(client),
    )


def _served(text: str, rest: str) -> Address:
    """Take a format that only floodem reads, on a server or on this machine."""
    shown = without_secrets(text) if _is_on_server(rest) else text
    return _local(shown, text)


def _local(text: str, volume: str) -> Address:
    return Address(text=text, volume=volume, client=None, public=None)


def _for_client(text: str, scheme: str, rest: str) -> Address:
    if scheme == "boss" and "://" not in rest:
        rest = f"{_BOSSDB_HOST}/{rest}"
    client = f"{scheme}://{rest}"
    return Address(text=_shown(text), volume=None, client=client, public=public_url(client))


def _shown(text: str) -> str:
    """Write the address of something on a server for messages, without what may be a secret."""
    return without_secrets(text).partition("#")[0]


def public_url(url: str) -> str:
    """Cut out of a source's address whatever may be a secret: users, passwords, signed queries.

    Only parameters that say how something is drawn remain.
    """
    return "|".join(_public_part(part) for part in url.split("|"))


def _public_part(part: str) -> str:
    part = _USER.sub("", part).partition("#")[0]
    before, mark, query = part.partition("?")
    kept = [pair for pair in query.split("&") if pair.partition("=")[0] in _DRAWING_PARAMETERS]
    return before + (mark + "&".join(kept) if kept else "")


def _unknown(text: str, scheme: str) -> UsageError:
    known = [*dict.fromkeys([*REMOTE_SCHEMES, *formats(), *CLIENT_FORMATS, *CLIENT_ONLY])]
    nearest = difflib.get_close_matches(scheme, known, n=1)
    hint = f"did you mean {nearest[0]}://? " if nearest else ""
    return UsageError(
        f"{without_secrets(text)!r} begins with the unknown {scheme}://: {hint}known are "
        + ", ".join(f"{name}://" for name in known)
    )
