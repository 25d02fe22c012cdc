"""Masks as one writes them on a command line.

In: text. Out: a rule. The grammar is in `MASK_SYNTAX`, which the command line
shows as help.
"""

from __future__ import annotations

import difflib
import re

from floodem.errors import OptionError
from floodem.flooding.masks.rules import CoordinateMask, ImageMask, MaskRule, VolumeMask
from floodem.flooding.masks.selection import ValueSelection

MASK_SYNTAX = """\
A mask is one of
  URI                     voxels of that volume that are not 0
  volume:URI,SELECTION    voxels of that volume with selected values
  image:SELECTION         voxels of the image itself with selected raw intensities
  where: CONDITION        voxels whose x, y, z fulfil a condition: where: z < 10 and x > 5
where SELECTION is values=1|3, or min=1,max=4 (both ends belong to it; one may be left out),
after a comma also channel=0 for a volume with several. 'not ' or '!' in front masks everything
else. A mask volume has the image's voxel size or whole multiples of it. Several masks are
joined: a voxel is masked when any of them masks it. Write volume: before a URI that begins
like one of the others."""

_NOT = re.compile(r"(?:not(?:\s+|$)|!)\s*")
_KIND = re.compile(r"(volume|image|where)\s*:\s*")
_SETTING = re.compile(r"\s*([A-Za-z_]+)\s*=\s*([^,]*)")
# The settings after the last part of a URI: ",name=value" once or more, up to the end.
_SETTINGS_AT_END = re.compile(r"((?:,\s*[A-Za-z_]+\s*=[^,]*)+)$")
_WHOLE = re.compile(r"[+-]?\d{1,20}")
_SETTINGS = ("values", "min", "max", "channel")


def parse_mask(text: str) -> MaskRule:
    """Read a mask; see `MASK_SYNTAX` for what can be written.

    Raises
    ------
    OptionError
        When it is not understood.
    """
    body = text.strip()
    negation = _NOT.match(body)
    invert = negation is not None
    if negation:
        body = body[negation.end() :]
    kind = _KIND.match(body)
    rest = body[kind.end() :] if kind else body
    if not rest:
        raise _refused(text, len(text), "something is missing here")
    match kind and kind[1]:
        case "where":
            return CoordinateMask(expression=rest, invert=invert)
        case "image":
            return ImageMask(selections=(_image_selection(text, rest),), invert=invert)
        case "volume":
            uri, selection = _volume(text, rest)
            return VolumeMask(uri=uri, selections=(selection,), invert=invert)
    if any(f",{name}=" in rest for name in _SETTINGS):
        raise _refused(text, text.index(rest), "write volume: before a URI with a selection")
    return VolumeMask(uri=rest, invert=invert)


def _volume(text: str, rest: str) -> tuple[str, ValueSelection]:
    settings = _SETTINGS_AT_END.search(rest)
    if settings is None:
        return rest, ValueSelection()
    if not settings.start():
        raise _refused(text, text.index(rest), "a URI is missing here")
    return rest[: settings.start()], _selection(text, settings[1][1:])


def _image_selection(text: str, rest: str) -> ValueSelection:
    selection = _selection(text, rest)
    if selection.is_nonzero or selection.channel is not None:
        raise _refused(text, text.index(rest), "select intensities by values or min and max")
    return selection


def _selection(text: str, settings: str) -> ValueSelection:
    start = len(text.rstrip()) - len(settings)
    found: dict[str, str] = {}
    for part in settings.split(","):
        setting = _SETTING.fullmatch(part)
        if setting is None:
            raise _refused(text, start, f"{part!r} is no setting like min=1")
        name, value = setting[1], setting[2].strip()
        if name not in _SETTINGS or name in found:
            why = "is given twice" if name in found else f"is unknown{_nearest(name)}"
            raise _refused(text, start, f"{name!r} {why}")
        found[name] = value
        start += len(part) + 1
    values = found["values"].split("|") if "values" in found else []
    channel = _number(text, found["channel"]) if "channel" in found else None
    if isinstance(channel, float) or (channel is not None and channel < 0):
        raise _refused(text, text.index("channel"), "channels are whole numbers from 0")
    return ValueSelection(
        values=tuple(_number(text, value) for value in values),
        minimum=_number(text, found["min"]) if "min" in found else None,
        maximum=_number(text, found["max"]) if "max" in found else None,
        channel=channel,
    )


def _number(text: str, value: str) -> int | float:
    value = value.strip()
    if _WHOLE.fullmatch(value):
        return int(value)
    try:
        return float(value)
    except ValueError:
        position = text.rfind(f"={value}") + 1
        raise _refused(text, position, f"{value!r} is no number") from None


def _nearest(name: str) -> str:
    found = difflib.get_close_matches(name.lower(), _SETTINGS, n=1, cutoff=0.5)
    return f" (did you mean {found[0]}?)" if found else ""


def _refused(text: str, position: int, why: str) -> OptionError:
    return OptionError(
        f"the mask {text!r} is not understood at character {position + 1}: {why}; write URI, "
        "volume:URI,values=1|3, image:min=0,max=10 or where: z < 10, with 'not ' or '!' in front "
        "for the opposite"
    )
