"""Places on servers: an address in, what tensorstore needs to reach it out.

Addresses are ``http(s)://host/path``, ``gs://bucket/key`` and ``s3://bucket/key``;
only in http addresses ``%20`` means a space. What is then asked of a server goes
through `patience`. The environment decides what the addresses do not say:

- ``FLOODEM_REMOTE_DEADLINE``: seconds after which an answer is given up (default 60).
- ``AWS_ENDPOINT_URL_S3`` or ``AWS_ENDPOINT_URL``, ``AWS_REGION`` or
  ``AWS_DEFAULT_REGION``, and the usual AWS credentials; without any, requests are
  not signed, as public buckets want it.
- ``STORAGE_EMULATOR_HOST`` or ``TENSORSTORE_GCS_HTTP_URL``: another server for gs;
  credentials as ``gcloud`` leaves them, or none.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from floodem.errors import OptionError, VolumeFormatError
from floodem.volumes.packages import require_package

HTTP_SCHEMES = ("http", "https")
REMOTE_SCHEMES = (*HTTP_SCHEMES, "gs", "s3")

DEADLINE_VARIABLE = "FLOODEM_REMOTE_DEADLINE"
REMOTE_DEADLINE_S = 60.0
"""How long one object may take to be read or written, with everything that is tried again."""

_STALLS_PER_DEADLINE = 6
# `patience` tries again, as it knows the deadline and what has been sent before.
_RETRIES = {"max_retries": 0}
_USER = re.compile(r"(?<=://)[^/\s@\"']+@")
_QUERY = re.compile(r"(https?://[^\s\"'?]*)\?[^\s\"']*", re.IGNORECASE)


def is_remote(path: str) -> bool:
    """Tell an http(s), gs or s3 address from a path."""
    scheme, separator, _ = path.partition("://")
    return bool(separator) and scheme.lower() in REMOTE_SCHEMES


def without_secrets(text: str) -> str:
    """Cut user names, passwords and signed queries out of every address in a text."""
    return _QUERY.sub(r"\1", _USER.sub("", text))


def remote_deadline_s() -> float:
    """Return the deadline of one read or write of an object, in seconds.

    Raises
    ------
    OptionError
        When ``FLOODEM_REMOTE_DEADLINE`` is no positive number.
    """
    text = os.environ.get(DEADLINE_VARIABLE, "")
    if not text:
        return REMOTE_DEADLINE_S
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise OptionError(
            f"{DEADLINE_VARIABLE}={text!r} is no positive number of seconds: for example 120"
        )
    return seconds


def stall_s() -> int:
    """Return after how many seconds without a byte a connection is cut and tried again."""
    return max(1, round(remote_deadline_s() / _STALLS_PER_DEADLINE))


def tensorstore() -> Any:
    """Import tensorstore, with stalled connections cut before the deadline is over.

    A stall is noticed by the library that tensorstore reads http with, which
    looks at the environment when it is used first.
    """
    seconds = str(stall_s())
    os.environ.setdefault("TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS", seconds)
    os.environ.setdefault("TENSORSTORE_CURL_LOW_SPEED_LIMIT_BYTES", "1")
    os.environ.setdefault("TENSORSTORE_CURL_CONNECT_TIMEOUT_SECONDS", seconds)
    return require_package("tensorstore", purpose="a remote address", install="tensorstore")


def kvstore_spec(address: str, *, is_folder: bool = False) -> dict[str, Any]:
    """Return what tensorstore opens as the key-value store at a remote address.

    Raises
    ------
    VolumeFormatError
        When the address names no host or bucket.
    """
    scheme, place, path, query = split_address(address)
    if not place:
        raise VolumeFormatError(
            f"{without_secrets(address)} names no host or bucket: write {scheme}://NAME/PATH"
        )
    if is_folder and path:
        path = path.rstrip("/") + "/"
    if scheme in HTTP_SCHEMES:
        base = f"{scheme}://{place}" + (f"?{query}" if query else "")
        return {"driver": "http", "base_url": base, "path": "/" + unquote(path)}
    if scheme == "gs":
        _point_at_emulator()
        return {"driver": "gcs", "bucket": place, "path": path}
    return {"driver": "s3", "bucket": place, "path": path, **_s3_place()}


def split_address(address: str) -> tuple[str, str, str, str]:
    """Take a remote address apart: scheme, host or bucket, path without its first slash, query."""
    scheme, _, rest = address.partition("://")
    scheme, query = scheme.lower(), ""
    if scheme in HTTP_SCHEMES:
        rest, _, query = rest.partition("#")[0].partition("?")
    place, _, path = rest.partition("/")
    return scheme, place, path, query


def child_address(address: str, inner: str) -> str:
    """Return the address of something inside a remote folder; a signed query stays behind it."""
    scheme, place, path, query = split_address(address)
    joined = "/".join(part for part in (path.rstrip("/"), inner) if part)
    return f"{scheme}://{place}/{joined}" + (f"?{query}" if query else "")


def parent_address(address: str) -> str | None:
    """Return the address of the folder around a remote one, or None at the top."""
    scheme, place, path, query = split_address(address)
    above, _, name = path.rstrip("/").rpartition("/")
    if not name:
        return None
    return f"{scheme}://{place}/{above}" + (f"?{query}" if query else "")


def context_spec() -> dict[str, Any]:
    """Return how tensorstore is to go about remote requests."""
    context: dict[str, Any] = {
        f"{kind}_request_retries": dict(_RETRIES) for kind in ("http", "gcs", "s3")
    }
    if not _has_aws_credentials():
        context["aws_credentials"] = {"type": "anonymous"}
    return context


def _point_at_emulator() -> None:
    emulator = os.environ.get("STORAGE_EMULATOR_HOST")
    if emulator:
        url = emulator if "://" in emulator else f"http://{emulator}"
        os.environ["TENSORSTORE_GCS_HTTP_URL"] = url.rstrip("/")


def _s3_place() -> dict[str, str]:
    environment = os.environ.get
    endpoint = environment("AWS_ENDPOINT_URL_S3") or environment("AWS_ENDPOINT_URL")
    region = environment("AWS_REGION") or environment("AWS_DEFAULT_REGION")
    place = {"endpoint": endpoint.rstrip("/")} if endpoint else {}
    return place | ({"aws_region": region} if region else {})


def _has_aws_credentials() -> bool:
    """Look whether this user or machine has any, without asking the network."""
    named = (
        "AWS_ACCESS_KEY_ID",
        "AWS_PROFILE",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    )
    files = (
        os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or Path.home() / ".aws" / "credentials",
        os.environ.get("AWS_CONFIG_FILE") or Path.home() / ".aws" / "config",
    )
    return (
        any(os.environ.get(name) for name in named)
        or any(Path(file).is_file() for file in files)
        or _is_on_ec2()
    )


def _is_on_ec2() -> bool:
    """Tell whether this is a machine of Amazon, which may have a role of its own."""
    try:
        vendor = Path("/sys/class/dmi/id/sys_vendor").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False
    return vendor.startswith("Amazon EC2")
