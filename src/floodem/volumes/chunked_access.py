"""What tensorstore needs to reach a store, and what it says when it cannot.

A path or remote address comes in; key-value store specs, small metadata files and
one sentence for every refusal go out.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from floodem.errors import (
    DestinationExistsError,
    FloodemError,
    StorageError,
    VolumeFormatError,
    VolumeNotFoundError,
)
from floodem.volumes.layouts.folder import Folder, local_folder
from floodem.volumes.location import Location
from floodem.volumes.packages import require_package

_STATUS = re.compile(r"^([A-Z_]+): (.*?)(?: \[[a-z_]+=.*)?$", re.DOTALL)
_DAMAGE = ("FAILED_PRECONDITION", "DATA_LOSS", "INVALID_ARGUMENT", "OUT_OF_RANGE")
# A store that may be read but not listed answers so for a name that is not there.
_NOT_TO_BE_SEEN = "PERMISSION_DENIED"
# A host that does not answer is given up after about eight seconds; tensorstore's own
# default is a quarter of an hour.
REMOTE_RETRIES = {"max_retries": 6, "initial_delay": "0.25s", "max_delay": "4s"}
# Reasons come last in a status: `Permission denied`, or `Invalid file path: "/a/../b"`.
_QUOTED_REASON = re.compile(r'[^:"]+: "[^"]*"$')
_ESCAPED_BYTES = re.compile(r"(?:\\x[0-9a-f]{2})+")


def sentence(action: str, uri: str, error: Exception) -> FloodemError:
    """Turn tensorstore's status into one of our errors."""
    match = _STATUS.match(str(error))
    status, text = (match[1], match[2]) if match else ("", str(error))
    text = _ESCAPED_BYTES.sub(_unescape, text)
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
    reason = quoted[0].strip() if quoted else text.rsplit(": ", 1)[-1]
    return StorageError(
        f"cannot {action} {uri}: {reason}; check the address, the rights and the free space"
    )


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


def kvstore(path: str, *, is_remote: bool) -> str | dict[str, str]:
    """Return tensorstore's spec of a folder."""
    address = path if is_remote else _local_address(path)
    # tensorstore takes UTF-8, and Python may have decoded the path otherwise (LC_ALL=C).
    try:
        folder = os.fsencode(address).decode("utf-8").rstrip("/") + "/"
    except UnicodeError:
        raise VolumeFormatError(
            f"{path!r} is not written in UTF-8, which zarr, n5 and precomputed stores need: "
            "rename the folder"
        ) from None
    return folder if is_remote else {"driver": "file", "path": folder}


def _local_address(path: str) -> str:
    """Return a path as tensorstore takes it: absolute and without ``..``.

    Only what goes up is resolved, and as the system does it: behind a link ``..`` leads
    elsewhere than the text says, and a network drive of Windows is to keep its letter.
    """
    goes_up = ".." in Path(path).parts
    return (Path(os.path.realpath(path)) if goes_up else Path(path).absolute()).as_posix()


def context(*, is_remote: bool) -> dict[str, Any]:
    """Return tensorstore's settings for a place."""
    if not is_remote:
        return {}
    return {f"{scheme}_request_retries": REMOTE_RETRIES for scheme in ("http", "gcs", "s3")}


def open_kvstore(path: str, *, is_remote: bool) -> Any:
    """Open a folder as a key-value store."""
    ts = tensorstore_module()
    settings = ts.Context(context(is_remote=is_remote))
    return ts.KvStore.open(kvstore(path, is_remote=is_remote), context=settings).result()


def inner_path(location: Location) -> str:
    """Join a store and the array inside it."""
    if location.dataset is None:
        return location.path
    return location.path.rstrip("/\\") + "/" + location.dataset.strip("/")


def folder_of(location: Location) -> Folder:
    """Return the folder of a volume, from which small files can be read."""
    path = inner_path(location)
    if not location.is_remote:
        return local_folder(path)

    def read(address: str) -> bytes | None:
        above, _, name = address.rpartition("/")
        try:
            found = open_kvstore(above, is_remote=True).read(name).result()
        except (ValueError, OSError) as error:
            if str(error).startswith(_NOT_TO_BE_SEEN):
                return None
            raise sentence("open", location.uri, error) from error
        return bytes(found.value) if found.state == "value" else None

    return Folder(path, read)
