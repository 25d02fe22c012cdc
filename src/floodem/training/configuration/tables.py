"""Options as tables: dataclasses become plain values and TOML, and come back checked.

In: what a configuration file or a command line says, as plain values or text.
Out: frozen dataclasses, or one sentence that names the key. What a key may hold
follows from the annotation of its field.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from floodem.counting import counted
from floodem.errors import GeometryError, OptionError
from floodem.geometry import Box, VoxelSize

_Options = TypeVar("_Options")

NONE = "none"
"""What stands on a command line for a key that is left out."""

_SCALARS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def key_of(field: dataclasses.Field[Any]) -> str:
    """Return the name of a field's key; repeated tables are named in the singular."""
    return str(field.metadata.get("key", field.name))


def annotations_of(cls: type) -> dict[str, Any]:
    """Return the annotation of each field."""
    return typing.get_type_hints(cls)


def without_none(kind: Any) -> Any:
    """Return X of ``X | None``, and anything else as it is."""
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        rest = [part for part in typing.get_args(kind) if part is not types.NoneType]
        return rest[0] if len(rest) == 1 else kind
    return kind


def may_be_none(kind: Any) -> bool:
    """Tell whether a key of this annotation may be left out."""
    return types.NoneType in typing.get_args(kind)


def is_table(kind: Any) -> bool:
    """Tell whether a key of this annotation is a table, of keys of its own."""
    return dataclasses.is_dataclass(kind) and kind not in (Box, VoxelSize)


def repeated_table(kind: Any) -> type | None:
    """Return the dataclass of a repeated table, or None."""
    parts = typing.get_args(kind)
    if typing.get_origin(kind) is tuple and parts and is_table(parts[0]):
        table: type = parts[0]
        return table
    return None


def to_plain(value: Any) -> Any:
    """Return a tree of options as plain values, ready for JSON."""
    if isinstance(value, Box):
        return str(value)
    if isinstance(value, VoxelSize):
        return list(value.zyx_nm)
    if dataclasses.is_dataclass(value):
        return {
            key_of(field): to_plain(getattr(value, field.name))
            for field in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {str(name): to_plain(entry) for name, entry in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(entry) for entry in value]
    return value


def from_plain(cls: type[_Options], values: Any, *, where: str = "") -> _Options:
    """Build options from plain values.

    Parameters
    ----------
    cls
        A dataclass whose fields are the keys.
    values
        A mapping; keys that are left out, or None, keep their defaults.
    where
        Name of the table, for messages.

    Raises
    ------
    OptionError
        Naming the first key that is unknown, or holds something else than it should.
    """
    if not isinstance(values, Mapping):
        raise OptionError(f"{where} is {values!r}, not a table: write it as [{where}]")
    fields = {key_of(field): field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    require_known(values, fields, where=where)
    kinds = annotations_of(cls)
    given = {
        fields[name].name: value_of(kinds[fields[name].name], value, where=_path(where, name))
        for name, value in values.items()
        if value is not None
    }
    try:
        return cls(**given)
    except GeometryError as error:
        raise OptionError(f"{where or 'configuration'}: {error}") from error


def require_known(values: Mapping[str, Any], known: Mapping[str, Any], *, where: str) -> None:
    """Refuse a key that is not among those known, naming the nearest.

    Raises
    ------
    OptionError
        When there is one.
    """
    for name in values:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1)
            advice = (
                f"did you mean {_path(where, nearest[0])}?"
                if nearest
                else f"known are {', '.join(known)}"
            )
            raise OptionError(f"no key is called {_path(where, name)}: {advice}")


def value_of(kind: Any, value: Any, *, where: str) -> Any:
    """Return a plain value as its annotation wants it.

    Raises
    ------
    OptionError
        When it is of another type; the message names the key.
    """
    kind = without_none(kind)
    table = repeated_table(kind)
    if table is not None:
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise OptionError(f"{where} is {value!r}, not a repeated table: write [[{where}]]")
        return tuple(from_plain(table, entry, where=where) for entry in value)
    if is_table(kind):
        return from_plain(kind, value, where=where)
    if kind is Box:
        return value if isinstance(value, Box) else _box(value, where=where)
    if kind is VoxelSize:
        return value if isinstance(value, VoxelSize) else _voxel_size(value, where=where)
    if typing.get_origin(kind) is tuple:
        return _tuple(kind, value, where=where)
    if isinstance(value, Mapping) and not isinstance(kind, type):
        return _mapping(value, where=where)
    return _scalar(kind, value, where=where)


def value_of_text(kind: Any, text: str, *, where: str) -> Any:
    """Return what a text on a command line stands for, as a plain value.

    Numbers of a list are parted by commas, mappings are written
    ``name=value,name=value``, and `NONE` leaves a key out where that is allowed.

    Raises
    ------
    OptionError
        When the text cannot be read; the message names the option.
    """
    if text == NONE and may_be_none(kind):
        return None
    kind = without_none(kind)
    if typing.get_origin(kind) is tuple or kind is VoxelSize:
        parts = [part for part in text.split(",") if part.strip()]
        inner = float if kind is VoxelSize else typing.get_args(kind)[0]
        plain: Any = [_scalar_of_text(inner, part.strip(), where=where) for part in parts]
    elif kind in _SCALARS:
        plain = _scalar_of_text(kind, text, where=where)
    elif kind is Box:
        plain = text
    else:
        plain = _mapping_of_text(text, where=where)
    value_of(kind, plain, where=where)
    return plain


def _path(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _box(value: Any, *, where: str) -> Box:
    if not isinstance(value, str):
        raise OptionError(f'{where} is {value!r}, not a box: write "0:80,10:90,20:100" (z,y,x)')
    try:
        return Box.parse(value)
    except GeometryError as error:
        raise OptionError(f"{where}: {error}") from error


def _voxel_size(value: Any, *, where: str) -> VoxelSize:
    z, y, x = _tuple(tuple[float, float, float], value, where=where)
    try:
        return VoxelSize(z, y, x)
    except GeometryError as error:
        raise OptionError(f"{where}: {error}") from error


def _tuple(kind: Any, value: Any, *, where: str) -> tuple[Any, ...]:
    parts = typing.get_args(kind)
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise OptionError(f"{where} is {value!r}, not a list: write [..., ...]")
    if len(parts) == 2 and parts[1] is Ellipsis:
        parts = parts[:1] * len(value)
    if len(parts) != len(value):
        order = ", ordered z, y, x" if len(parts) == 3 else ""
        entries = counted(len(value), "entry", many="entries")
        raise OptionError(f"{where} {list(value)} has {entries}: give {len(parts)}{order}")
    return tuple(
        value_of(part, entry, where=where) for part, entry in zip(parts, value, strict=True)
    )


def _mapping(value: Mapping[Any, Any], *, where: str) -> dict[str, Any]:
    for name, entry in value.items():
        if not isinstance(name, str) or not isinstance(entry, bool | int | float | str):
            raise OptionError(f"{where}.{name} is {entry!r}: give a number, a text, true or false")
    return dict(value)


def _scalar(kind: Any, value: Any, *, where: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    # bool is a subclass of int, and must not count as one.
    if kind in _SCALARS and type(value) is kind:
        return value
    expected = _SCALARS.get(kind, "a table")
    raise OptionError(f"{where} is {value!r}, and should be {expected}")


def _scalar_of_text(kind: Any, text: str, *, where: str) -> Any:
    if kind is str:
        return text
    if kind is bool:
        if text not in {"true", "false"}:
            raise OptionError(f"{where} is {text!r}, and should be true or false")
        return text == "true"
    try:
        return kind(text)
    except ValueError:
        raise OptionError(f"{where} is {text!r}, and should be {_SCALARS[kind]}") from None


def _mapping_of_text(text: str, *, where: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, sign, written = part.partition("=")
        if not sign:
            raise OptionError(f"{where} is {text!r}: write name=value,name=value")
        try:
            values[name.strip()] = json.loads(written)
        except ValueError:
            values[name.strip()] = written
    return values
