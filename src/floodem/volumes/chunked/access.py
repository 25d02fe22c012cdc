"""What tensorstore needs to reach a store, and what it says when it cannot.

A path or remote address comes in; key-value store specs, small metadata files and
one sentence for every refusal go out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

from floodem.errors import (
    DestinationExistsError,
    FloodemError,
    StorageError,
    VolumeFormatError,
    VolumeNotFoundError,
)
from floodem.volumes.chunked.layouts.folder import Folder, local_folder
from floodem.volumes.location import Location
from floodem.volumes.packages import require_package
from floodem.volumes.servers.addresses import (
    HTTP_SCHEMES,
    child_address,
    context_spec,
    kvstore_spec,
    split_address,
    tensorstore,
    without_secrets,
)
from floodem.volumes.servers.patience import AccessDeniedError, Future, code_in, insist, reason_in
from floodem.volumes.servers.size import whole_files_only

_STATUS = re.compile(r"^([A-Z_]+): (.*?)(?: \[[a-z_]+=.*)?$", re.DOTALL)
_DAMAGE = ("FAILED_PRECONDITION", "DATA_LOSS", "INVALID_ARGUMENT", "OUT_OF_RANGE")
# Reasons come last in a status: `Permission denied`, or `Invalid file path: "/a/../b"`.
_QUOTED_REASON = re.compile(r'[^:"]+: "[^"]*"$')
# What tensorstore says of a server that answers a request for a part with the whole object.
_WHOLE_FILES_ONLY = "was ignored by server"
_ESCAPED_BYTES = re.compile(r"(?:\\x[0-9a-f]{2})+")

T = TypeVar("T")


def sentence(action: str, uri: str, error: Exception) -> FloodemError:
    """Turn tensorstore's status into one of our errors."""
    match = _STATUS.match(str(error))
    status, text = (match[1], match[2]) if match else ("", str(error))
    text = without_secrets(_ESCAPED_BYTES.sub(_unescape, text))
    if _WHOLE_FILES_ONLY in text:
        return whole_files_only(uri)
    if status == "NOT_FOUND":
        return VolumeNotFoundError(f"{uri} is not there: {text}; check the address")
    is_refusal = text.startswith("Error writing")
    if not is_refusal and status in _DAMAGE:
        return VolumeFormatError(
            f"cannot {action} {uri}: {text}; the volume is damaged or of another format"
        )
    if status == "ALREADY_EXISTS":
        return already_there(uri)
    quoted = _QUOTED_REASON.search(text)
    if code_in(error) is not None:
        text = reason_in(error)
    reason = quoted[0].strip() if quoted else text.rsplit(": ", 1)[-1]
    return StorageError(
        f"cannot {action} {uri}: {reason}; check the address, the rights and the free space"
    )


def is_absence(error: Exception) -> bool:
    """Tell whether tensorstore says that there is nothing."""
    match = _STATUS.match(str(error))
    return match is not None and match[1] == "NOT_FOUND"


def already_there(uri: str) -> DestinationExistsError:
    """Say that something is where a new volume should go."""
    return DestinationExistsError(
        f"{uri} exists already and was left as it is: "
        "choose another destination or --overwrite (overwrite=True)"
    )


def _unescape(match: re.Match[str]) -> str:
    return bytes.fromhex(match[0].replace("\\x", "")).decode("utf-8", errors="replace")


def tensorstore_module() -> Any:
    """Import tensorstore, or say how to install it."""
    return require_package(
        "tensorstore", purpose="a zarr, n5 or precomputed volume", install="tensorstore"
    )


def kvstore(path: str, *, is_remote: bool) -> dict[str, Any]:
    """Return tensorstore's spec of a folder."""
    if is_remote:
        return kvstore_spec(path, is_folder=True)
    address = _local_address(path)
    # tensorstore takes UTF-8, and Python may have decoded the path otherwise (LC_ALL=C).
    try:
        folder = os.fsencode(address).decode("utf-8").rstrip("/") + "/"
    except UnicodeError:
        raise VolumeFormatError(
            f"{path!r} is not written in UTF-8, which zarr, n5 and precomputed stores need: "
            "rename the folder"
        ) from None
    return {"driver": "file", "path": folder}


def _local_address(path: str) -> str:
    """Return a path as tensorstore takes it: absolute and without ``..``.

    Only what goes up is resolved, and as the system does it: behind a link ``..`` leads
    elsewhere than the text says, and a network drive of Windows is to keep its letter.
    """
    goes_up = ".." in Path(path).parts
    return (Path(os.path.realpath(path)) if goes_up else Path(path).absolute()).as_posix()


def context(*, is_remote: bool) -> dict[str, Any]:
    """Return tensorstore's settings for a place."""
    return context_spec() if is_remote else {}


def open_kvstore(path: str, *, is_remote: bool) -> Any:
    """Open a folder as a key-value store."""
    ts = tensorstore() if is_remote else tensorstore_module()
    settings = ts.Context(context(is_remote=is_remote))
    spec = kvstore(path, is_remote=is_remote)
    return wait(
        lambda: ts.KvStore.open(spec, context=settings),
        uri=path,
        action="open",
        is_remote=is_remote,
    )


def open_array(path: str, spec: dict[str, Any], *, location: Location, writable: bool) -> Any:
    """Open a folder as an array; `spec` says of which format."""
    is_remote = location.is_remote
    ts = tensorstore() if is_remote else tensorstore_module()
    place = {
        "kvstore": kvstore(path, is_remote=is_remote),
        "context": context(is_remote=is_remote),
        "open": True,
    }
    return wait(
        lambda: ts.open(spec | place, read=True, write=writable),
        uri=location.uri,
        action="open",
        is_remote=is_remote,
    )


def wait(start: Callable[[], Future[T]], *, uri: str, action: str, is_remote: bool) -> T:
    """Wait for what `start` begins; with servers there is patience, and a deadline."""
    return insist(start, address=uri, action=action) if is_remote else start().result()


def inner_path(location: Location) -> str:
    """Join a store and the array inside it."""
    if location.dataset is None:
        return location.path
    if location.is_remote:
        return child_address(location.path, location.dataset.strip("/"))
    return location.path.rstrip("/\\") + "/" + location.dataset.strip("/")


def folder_of(location: Location) -> Folder:
    """Return the folder of a volume, from which small files can be read."""
    path = inner_path(location)
    if not location.is_remote:
        return local_folder(path)

    # One store for all that is looked at, which may also lie above the volume.
    stores: list[Any] = []
    known: dict[str, bytes | None] = {}

    def read(address: str) -> bytes | None:
        scheme, place, key, query = split_address(address)
        top = f"{scheme}://{place}/" + (f"?{query}" if query else "")
        if key not in known:
            try:
                if not stores:
                    stores.append(open_kvstore(top, is_remote=True))
                key_there = unquote(key) if scheme in HTTP_SCHEMES else key
                found = insist(
                    lambda: stores[0].read(key_there), address=location.uri, action="open"
                )
            except AccessDeniedError:
                # A store that may be read but not listed says so of what is not there.
                return None
            except FloodemError:
                raise
            except (ValueError, OSError) as error:
                raise sentence("open", location.uri, error) from error
            known[key] = bytes(found.value) if found.state == "value" else None
        return known[key]

    return Folder(path, read)
