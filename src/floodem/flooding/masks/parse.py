"""Masks as one writes them on a command line.

In: text. Out: a rule. The grammar is in `MASK_SYNTAX`, which the command line
shows as help.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from floodem.errors import GeometryError, OptionError
from floodem.flooding.masks.rules import CoordinateMask, ImageMask, MaskRule, VolumeMask
from floodem.flooding.masks.selection import ValueSelection
from floodem.flooding.masks.shift import ShiftMask
from floodem.geometry import Box

MASK_SYNTAX = """\
A mask is one of
  URI                     voxels of that volume that are not 0
  volume:URI,SELECTION    voxels of that volume with selected values
  image:SELECTION         voxels of the image itself with selected raw intensities
  where: CONDITION        voxels whose x, y, z fulfil a condition: where: z < 10 and x > 5
  shift:URI,SETTINGS      voxels near which sections are shifted against each other, by a field
                          from floodem doctor --shift-mask
where SELECTION is values=1|3, or min=1,max=4 (both ends belong to it; one may be left out),
after a comma also channel=0 for a volume with several. 'not ' or '!' in front masks everything
else. A mask volume has the image's voxel size or whole multiples of it. Several masks are
joined: a voxel is masked when any of them masks it. Write volume: before a URI that begins
like one of the others.
SETTINGS are window=-16:16,-16:17,-16:17 (z,y,x: the voxels around a position in which there
may be no large shift, such as those of a field of view), threshold=4 (voxels from which a shift
is large) and scale=1 (how much coarser than the image the field is along y and x)."""

_NOT = re.compile(r"(?:not(?:\s+|$)|!)\s*")
_KIND = re.compile(r"(volume|image|where|shift)\s*:\s*")
_SETTING = re.compile(r"\s*([A-Za-z_]+)\s*=\s*([^,]*)")
# The settings after the last part of a URI: ",name=value" once or more, up to the end.
_SETTINGS_AT_END = re.compile(r"((?:,\s*[A-Za-z_]+\s*=[^,]*)+)$")
_WHOLE = re.compile(r"[+-]?\d{1,20}")
_SETTINGS = ("values", "min", "max", "channel")
# Here values may hold commas: a setting ends where the next one begins.
_SHIFT_SETTING = re.compile(r",\s*([A-Za-z_]+)\s*=\s*((?:(?!,\s*[A-Za-z_]+\s*=).)*)", re.DOTALL)
_SHIFT_SETTINGS = ("window", "threshold", "scale")
_DEFAULT_THRESHOLD = 4
"""As in google/ffn (movement.py, shift_mask_threshold)."""


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
        case "shift":
            if invert:
                raise _refused(text, 0, "a shift mask has no opposite")
            return _shift(text, rest)
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


def _shift(text: str, rest: str) -> ShiftMask:
    found: dict[str, str] = {}
    start = text.index(rest)
    settings = list(_SHIFT_SETTING.finditer(rest))
    for setting in settings:
        name, value = setting[1], setting[2].strip()
        if name not in _SHIFT_SETTINGS or name in found:
            known = _nearest(name, _SHIFT_SETTINGS)
            why = "is given twice" if name in found else f"is unknown{known}"
            raise _refused(text, start + setting.start(1), f"{name!r} {why}")
        found[name] = value
    uri = rest[: settings[0].start()] if settings else rest
    if not uri:
        raise _refused(text, start, "a URI is missing here")
    if "window" not in found:
        raise _refused(
            text, start + len(rest), "write ,window=-16:16,-16:17,-16:17 for a field of view of 33"
        )
    scale = _number(text, found.get("scale", "1"))
    if not isinstance(scale, int):
        raise _refused(text, text.index("scale"), f"scale {scale} is no whole number")
    return ShiftMask(
        uri=uri,
        window=_window(text, found["window"]),
        threshold=_number(text, found.get("threshold", str(_DEFAULT_THRESHOLD))),
        scale=scale,
    )


def _window(text: str, value: str) -> Box:
    try:
        return Box.parse(value)
    except GeometryError as error:
        raise _refused(text, text.index(value), f"window: {error}") from None


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
            known = _nearest(name, _SETTINGS)
            why = "is given twice" if name in found else f"is unknown{known}"
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


def _nearest(name: str, known: Sequence[str]) -> str:
    found = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    return f" (did you mean {found[0]}?)" if found else ""


def _refused(text: str, position: int, why: str) -> OptionError:
    return OptionError(
        f"the mask {text!r} is not understood at character {position + 1}: {why}; write URI, "
        "volume:URI,values=1|3, image:min=0,max=10 or where: z < 10, with 'not ' or '!' in front "
        "for the opposite, or shift:URI,threshold=4,window=-16:16,-16:17,-16:17,scale=32"
    )
