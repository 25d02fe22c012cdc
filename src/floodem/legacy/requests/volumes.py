"""Volumes as requests name them: a DecoratedVolume in, an address for `open_volume` out.

``hdf5`` is FILE:DATASET or FILE@DATASET. ``tensorstore`` is the JSON of a TensorStore
spec, of which the drivers and places are served that floodem's own addresses know; the
axes are those that floodem finds in the store. ``volinfo`` described volumes of Google's
internal storage, and is served where it is the address of an ordinary volume.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from floodem.errors import FloodemError, OptionError
from floodem.legacy.addresses import file_and_dataset
from floodem.legacy.requests.message import Message
from floodem.volumes.location import parse_location
from floodem.volumes.volume import Volume

FIRST_CHANNEL = 0
"""Of an image with several channels the old program took the first."""

_PREFIXES: Mapping[str, str] = {
    "zarr": "zarr",
    "zarr2": "zarr",
    "zarr3": "zarr3",
    "n5": "n5",
    "neuroglancer_precomputed": "precomputed",
}
_WITHOUT_EFFECT = frozenset(
    {
        *("cache_pool", "context", "create", "data_copy_concurrency", "delete_existing", "open"),
        *("dtype", "recheck_cached_data", "recheck_cached_metadata", "recheck_cached"),
        *("fill_missing_data_reads", "file_io_concurrency", "file_io_sync", "file_io_locking"),
        *("gcs_request_concurrency", "gcs_request_retries", "gcs_user_project"),
        *("aws_region", "aws_credentials", "s3_request_concurrency", "s3_request_retries"),
        *("http_request_concurrency", "http_request_retries", "cache_control"),
        "store_data_equal_to_fill_value",
    }
)
"""Of a spec: what changes how data come, and not which."""

_KVSTORE_KEYS: Mapping[str, tuple[str, ...]] = {
    "file": ("path",),
    "gcs": ("bucket", "path"),
    "s3": ("bucket", "path", "endpoint"),
    "http": ("base_url", "path"),
}
_EXAMPLE_ARGUMENTS = r'"{\"depth\": 12}"'
_URL_SCHEMES = ("file://", "gs://", "s3://", "http://", "https://")


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeAddress:
    """Where a volume is.

    Attributes
    ----------
    uri
        As `floodem.volumes.open_volume` takes it.
    level
        Of its pyramid, 0 is the finest.
    """

    uri: str
    level: int = 0

    def open(self, *, channel: int | None = None) -> Volume:
        """Open the volume.

        Raises
        ------
        FloodemError
            Whatever `open_volume` refuses.
        """
        from floodem.volumes import open_volume

        return open_volume(self.uri, channel=channel, level=self.level)


def volume_address(volume: Message, *, field: str) -> VolumeAddress:
    """Return the address of a DecoratedVolume.

    Parameters
    ----------
    field
        Of the request that holds it, for messages.

    Raises
    ------
    OptionError, UsageError
        When it names no volume, or one that floodem does not read, by name.
    """
    if volume.get("decorator_specs"):
        raise OptionError(
            f"{field}.decorator_specs change volumes of Google's internal storage only: take them "
            "out, and change the volume itself where they did something"
        )
    if volume.has("hdf5"):
        return VolumeAddress(uri=file_and_dataset(volume.get("hdf5")))
    if volume.has("tensorstore"):
        return _tensorstore_address(volume.get("tensorstore"), field=f"{field}.tensorstore")
    if volume.has("volinfo"):
        return VolumeAddress(uri=_simple_volinfo(volume.get("volinfo"), field=field))
    raise OptionError(
        f'{field} names no volume: write {field} {{ hdf5: "FILE:DATASET" }}, or tensorstore'
    )


def _simple_volinfo(address: str, *, field: str) -> str:
    try:
        is_known = parse_location(address).format is not None
    except FloodemError:
        is_known = False
    if not is_known:
        raise OptionError(
            f"{field}.volinfo {address!r} describes a volume of Google's internal storage, which "
            f'nothing else reads: write {field} {{ hdf5: "FILE:DATASET" }} or tensorstore'
        )
    return address


def _tensorstore_address(text: str, *, field: str) -> VolumeAddress:
    spec = json_object(text, field=field)
    driver = spec.get("driver")
    prefix = _PREFIXES.get(driver) if isinstance(driver, str) else None
    if prefix is None:
        raise OptionError(
            f"{field} has the driver {driver!r}: floodem reads "
            f"{', '.join(name for name in _PREFIXES if name != 'zarr2')}"
        )
    level = spec.get("scale_index", 0)
    if isinstance(level, bool) or not isinstance(level, int) or level < 0:
        raise OptionError(f"{field} has the scale_index {level!r}: give a level counted from 0")
    _require_known(spec, ("driver", "kvstore", "path", "scale_index"), field=field)
    place = _place(spec.get("kvstore"), field=f"{field} kvstore")
    inner = spec.get("path", "")
    if not isinstance(inner, str):
        raise OptionError(f"{field} has the path {inner!r}: give a text")
    if inner:
        place = f"{place.rstrip('/')}/{inner}"
    return VolumeAddress(uri=f"{prefix}://{place}", level=level)


def _place(kvstore: Any, *, field: str) -> str:
    """Return path or URL of a key-value store."""
    if isinstance(kvstore, str):
        if not kvstore.startswith(_URL_SCHEMES) or "|" in kvstore:
            raise OptionError(
                f"{field} {kvstore!r} is no place that floodem reads: give an address that begins "
                f"with one of {', '.join(_URL_SCHEMES)}"
            )
        return kvstore.removeprefix("file://")
    if not isinstance(kvstore, Mapping):
        raise OptionError(f"{field} is {kvstore!r}: give an address, or driver and path")
    driver = kvstore.get("driver")
    keys = _KVSTORE_KEYS.get(driver) if isinstance(driver, str) else None
    if driver is None or keys is None:
        raise OptionError(
            f"{field} has the driver {driver!r}: floodem reads {', '.join(_KVSTORE_KEYS)}"
        )
    _require_known(kvstore, ("driver", *keys), field=field)
    values = {key: kvstore.get(key, "") for key in keys}
    if not all(isinstance(value, str) for value in values.values()):
        raise OptionError(f"{field} has a value that is no text: {', '.join(keys)} are texts")
    if values.get("endpoint"):
        raise OptionError(
            f"{field} has an endpoint: set the environment variable AWS_ENDPOINT_URL instead"
        )
    host = next((key for key in ("bucket", "base_url") if values.get(key) == ""), None)
    if host is not None:
        raise OptionError(f"{field} has no {host}: say where the volume is")
    path: str = values["path"]
    if driver == "file":
        found = path
    elif driver == "http":
        found = f"{values['base_url'].rstrip('/')}/{path.lstrip('/')}"
    else:
        found = f"{'gs' if driver == 'gcs' else 's3'}://{values['bucket']}/{path.lstrip('/')}"
    if not found.strip("/"):
        raise OptionError(f"{field} has no path: say where the volume is")
    return found


def _require_known(spec: Mapping[str, Any], known: tuple[str, ...], *, field: str) -> None:
    """Refuse keys that change which data are read."""
    for key in spec:
        if key not in known and key not in _WITHOUT_EFFECT:
            if key == "transform":
                advice = "floodem finds z, y and x itself; copy the volume if it is another one"
            else:
                nearest = difflib.get_close_matches(str(key)[:80], known, n=1, cutoff=0.5)
                advice = f"did you mean {nearest[0]}?" if nearest else "take it out"
            raise OptionError(f"{field} has {key!r}, which floodem does not read: {advice}")


def json_object(text: str, *, field: str, example: str = _EXAMPLE_ARGUMENTS) -> dict[str, Any]:
    """Read the JSON object in a field; an empty text is an empty one.

    Parameters
    ----------
    example
        What the field may hold, as it is written there.

    Raises
    ------
    OptionError
        When it is no JSON object.
    """
    try:
        values = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError) as error:
        raise OptionError(
            f"{field} {text[:80]!r} is not JSON ({error}): write it like {example}"
        ) from error
    if not isinstance(values, dict):
        raise OptionError(f"{field} {text[:80]!r} is no JSON object: write it in braces")
    return values
