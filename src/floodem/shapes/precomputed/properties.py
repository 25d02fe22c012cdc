"""Properties of segments: names, numbers and tags by id, as Neuroglancer lists and sorts them.

Columns come in, one info file goes out, and back. Format:
neuroglancer_segment_properties (google/neuroglancer,
src/datasource/precomputed/segment_properties.md), inline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped, UInt64

from floodem.errors import LabelError, OptionError, VolumeFormatError
from floodem.shapes.precomputed.folders import INFO, read_json, write_json
from floodem.shapes.precomputed.shards import MAX_ID
from floodem.volumes.damage import damaged

PROPERTIES_TYPE = "neuroglancer_segment_properties"

MAX_BYTES = 512 * 2**20
"""A million segments with a name and a few numbers take a tenth of that."""

MAX_TAGS = 2**16
"""Neuroglancer keeps a segment's tags as 16-bit characters of a string."""

_NUMBER_TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32")

Numbers = Shaped[np.ndarray, "ids"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SegmentProperties:
    """Columns of one table, in the order of `ids`.

    Attributes
    ----------
    labels
        Short names, shown beside the id.
    descriptions
        Longer texts.
    numbers
        Columns that can be sorted by and filtered with, by name.
    tags
        Which segments have each tag, by its name.
    """

    ids: UInt64[np.ndarray, "ids"]
    labels: Sequence[str] | None = None
    descriptions: Sequence[str] | None = None
    numbers: Mapping[str, Numbers] = field(default_factory=dict)
    tags: Mapping[str, Bool[np.ndarray, "ids"]] = field(default_factory=dict)


def write_segment_properties(
    folder: Path,
    *,
    ids: UInt64[np.ndarray, "ids"],
    labels: Sequence[str] | None = None,
    descriptions: Sequence[str] | None = None,
    numbers: Mapping[str, Numbers] | None = None,
    tags: Mapping[str, Bool[np.ndarray, "ids"]] | None = None,
) -> None:
    """Write the properties of segments as ``info`` of a folder that is there.

    Whole numbers beyond 32 bits, and all real ones, are written as float32, which is
    the best the format has.

    Parameters
    ----------
    folder
        Where to.
    ids, labels, descriptions, numbers, tags
        See `SegmentProperties`.

    Raises
    ------
    LabelError
        When an id is there twice.
    OptionError
        When a column has another length than `ids`, a number is not finite, or a tag
        is empty, contains a space or begins with ``#``, or is there twice (tags are
        compared without case).
    StorageError
        When the file system refuses.
    """
    if len(np.unique(ids)) != len(ids):
        raise LabelError(f"{len(ids) - len(np.unique(ids))} ids are there twice: give each once")
    properties: list[dict[str, Any]] = []
    for name, texts in (("label", labels), ("description", descriptions)):
        if texts is not None:
            _check_length(name, len(texts), len(ids))
            properties.append({"id": name, "type": name, "values": [str(text) for text in texts]})
    if tags:
        properties.append(_tags(tags, len(ids)))
    for name, values in (numbers or {}).items():
        _check_length(name, len(values), len(ids))
        properties.append(_number(name, values))
    inline = {"ids": [str(one) for one in ids.tolist()], "properties": properties}
    write_json(folder / INFO, {"@type": PROPERTIES_TYPE, "inline": inline})


def _check_length(name: str, length: int, expected: int) -> None:
    if length != expected:
        raise OptionError(
            f"property {name} has {length} values for {expected} ids: give one for each"
        )


def _number(name: str, values: Numbers) -> dict[str, Any]:
    if values.dtype.kind not in "uifb" or not np.isfinite(values).all():
        raise OptionError(
            f"property {name} has values of type {values.dtype} that are not finite numbers: "
            "leave them out or replace them"
        )
    kind = _number_type(values)
    if kind == "float32":
        if (np.abs(values) > np.finfo(np.float32).max).any():
            raise OptionError(f"property {name} has values beyond 3e38: give a larger unit")
        # By way of text, so that 0.1 is written and not 0.10000000149011612.
        written = values.astype(np.float32).astype(str).astype(np.float64).tolist()
    else:
        written = values.astype(kind).tolist()
    return {"id": name, "type": "number", "data_type": kind, "values": written}


def _number_type(values: Numbers) -> str:
    """Return the type of the format that holds these numbers, or comes closest."""
    if values.dtype.kind == "b":
        return "uint8"
    if values.dtype.name in _NUMBER_TYPES:
        return values.dtype.name
    if values.dtype.kind == "f":
        return "float32"
    low, high = (int(values.min()), int(values.max())) if len(values) else (0, 0)
    for kind in ("uint32", "int32"):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return kind
    return "float32"


def _tags(tags: Mapping[str, Bool[np.ndarray, "ids"]], count: int) -> dict[str, Any]:
    names = list(tags)
    folded = {name.casefold() for name in names}
    if len(folded) != len(names) or len(names) > MAX_TAGS:
        raise OptionError(
            f"{len(names)} tags of which {len(folded)} differ: give different ones, at most "
            f"{MAX_TAGS}"
        )
    values: list[list[int]] = [[] for _ in range(count)]
    for number, (name, has_tag) in enumerate(tags.items()):
        if not name or name.startswith("#") or any(char.isspace() for char in name):
            raise OptionError(f"tag {name!r} is empty, has spaces or begins with #: rename it")
        _check_length(name, len(has_tag), count)
        for row in np.flatnonzero(has_tag).tolist():
            values[row].append(number)
    return {"id": "tags", "type": "tags", "tags": names, "values": values}


def read_segment_properties(folder: Path) -> SegmentProperties:
    """Read the properties of segments; properties of type ``string`` are passed over.

    Raises
    ------
    VolumeNotFoundError
        When the folder has no info.
    VolumeFormatError
        When it is damaged, or larger than `MAX_BYTES`.
    """
    path = folder / INFO
    info = read_json(path, max_bytes=MAX_BYTES)
    if not isinstance(info, dict) or info.get("@type") != PROPERTIES_TYPE:
        raise _damaged(path, f"its @type is not {PROPERTIES_TYPE}")
    inline = info.get("inline") or {"ids": [], "properties": []}
    try:
        ids = np.array([_id(text) for text in inline["ids"]], np.uint64)
        columns = _Columns(path=path, count=len(ids))
        for values in inline["properties"]:
            columns.add(values)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        if isinstance(error, VolumeFormatError):
            raise
        raise _damaged(path, error) from error
    return SegmentProperties(
        ids=ids,
        labels=columns.texts.get("label"),
        descriptions=columns.texts.get("description"),
        numbers=columns.numbers,
        tags=columns.tags,
    )


class _Columns:
    """What has been read so far."""

    def __init__(self, *, path: Path, count: int) -> None:
        self._path = path
        self._count = count
        self.texts: dict[str, list[str]] = {}
        self.numbers: dict[str, Numbers] = {}
        self.tags: dict[str, Bool[np.ndarray, "ids"]] = {}

    def add(self, column: dict[str, Any]) -> None:
        kind, values = column["type"], column["values"]
        if not isinstance(values, list) or len(values) != self._count:
            raise _damaged(self._path, f"property {column['id']!r} is not {self._count} values")
        if kind in {"label", "description"}:
            if not all(isinstance(value, str) for value in values):
                raise _damaged(self._path, f"property {column['id']!r} has values that are no text")
            self.texts[kind] = values
        elif kind == "number":
            if column["data_type"] not in _NUMBER_TYPES:
                raise _damaged(self._path, f"numbers of type {column['data_type']!r}")
            self.numbers[str(column["id"])] = np.array(values, column["data_type"])
        elif kind == "tags":
            self._add_tags([str(name) for name in column["tags"]], values)
        elif kind != "string":
            raise _damaged(self._path, f"a property of type {kind!r}")

    def _add_tags(self, names: list[str], values: list[list[int]]) -> None:
        if len(names) * self._count > MAX_BYTES:
            raise _damaged(self._path, f"{len(names)} tags for {self._count} segments")
        table = np.zeros((len(names), self._count), bool)
        for row, numbers in enumerate(values):
            if any(not 0 <= number < len(names) for number in numbers):
                raise _damaged(self._path, f"a segment has tag {max(numbers)} of {len(names)}")
            table[numbers, row] = True
        self.tags = dict(zip(names, table, strict=True))


def _id(text: Any) -> int:
    if not (isinstance(text, str) and text.isascii() and text.isdigit() and len(text) <= 20):
        raise ValueError(f"{text!r} is no id")
    number = int(text)
    if number > MAX_ID:
        raise ValueError(f"id {text} does not fit into 64 bits")
    return number


def _damaged(path: Path, reason: object) -> VolumeFormatError:
    return damaged(path, kind="properties of segments", reason=reason)
