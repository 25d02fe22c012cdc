"""Masks of a request: MaskConfig messages in, rules of `floodem.flooding.masks` out, and words.

A channel rule takes the values in ``values``, else those from ``min_value`` to
``max_value``, both included, of which one that is not set is 0. The rules of one mask are
joined by "or", then inverted where it says so; masks are joined by "or".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from floodem.errors import OptionError
from floodem.flooding.masks import (
    CoordinateMask,
    ImageMask,
    MaskRule,
    ShiftMask,
    ValueSelection,
    VolumeMask,
)
from floodem.geometry import Box, Zyx
from floodem.legacy.requests.message import Message
from floodem.legacy.requests.volumes import FIRST_CHANNEL, VolumeAddress, volume_address

_FINEST = 0


def mask_rules(
    masks: Sequence[Message], *, field: str = "masks", image: VolumeAddress | None = None
) -> tuple[MaskRule, ...]:
    """Return a rule for each MaskConfig.

    Parameters
    ----------
    masks
        MaskConfig messages.
    field
        Of the request that holds them, for messages.
    image
        Where intensities are looked up; None: in the image that the flood sees.

    Raises
    ------
    OptionError, UsageError
        When one names no source, selects nothing, or is not served, by name.
    """
    return tuple(_rule(mask, field=field, image=image) for mask in masks)


def shift_rule(request: Message, *, fov: Zyx) -> ShiftMask | None:
    """Return the rule of a request's shift mask, or None when it has none.

    Parameters
    ----------
    fov
        Of the network (z, y, x): what is looked at where shift_mask_fov is not set.

    Raises
    ------
    OptionError, UsageError
        When it is incomplete.
    """
    if not request.has("shift_mask"):
        return None
    address = _only_finest(volume_address(request.get("shift_mask"), field="shift_mask"))
    threshold = request.get("shift_mask_threshold")
    if threshold < 1:
        raise OptionError(
            f"shift_mask_threshold {threshold} would forbid every position (not set, it is 0): "
            "give the shift in voxels from which a position is forbidden, for example 4"
        )
    scale = request.get("shift_mask_scale") if request.has("shift_mask_scale") else 1
    if scale < 1:
        raise OptionError(
            f"shift_mask_scale {scale} is below 1: give how many voxels of the image lie along "
            "one of the shift mask"
        )
    return ShiftMask(
        uri=address.uri,
        window=_window(request, fov=fov),
        threshold=threshold,
        scale=scale,
        is_confined=True,
    )


def mask_texts(rules: Iterable[MaskRule]) -> tuple[str, ...]:
    """Return masks as ``--mask`` takes them, for all but those in `unwritten`."""
    return tuple(text for rule in rules for text in _texts(rule) or ())


def unwritten(rules: Iterable[MaskRule]) -> tuple[MaskRule, ...]:
    """Return the masks that no ``--mask`` can say: several rules inverted as a whole."""
    return tuple(rule for rule in rules if _texts(rule) is None)


def _rule(mask: Message, *, field: str, image: VolumeAddress | None) -> MaskRule:
    invert = bool(mask.get("invert"))
    if mask.has("coordinate_expression"):
        expression = mask.get("coordinate_expression").get("expression")
        return CoordinateMask(expression=expression, invert=invert)
    if mask.has("volume"):
        volume = mask.get("volume")
        address = _only_finest(volume_address(volume.get("mask"), field=f"{field}.volume.mask"))
        selections = _selections(volume, field=f"{field}.volume")
        return VolumeMask(uri=address.uri, selections=selections, invert=invert)
    if mask.has("image"):
        selections = _selections(mask.get("image"), field=f"{field}.image", is_image=True)
        if image is None:
            return ImageMask(selections=selections, invert=invert)
        return VolumeMask(uri=_only_finest(image).uri, selections=selections, invert=invert)
    raise OptionError(
        f"{field} holds a mask without a source: give it volume, image or coordinate_expression"
    )


def _selections(
    source: Message, *, field: str, is_image: bool = False
) -> tuple[ValueSelection, ...]:
    channels = source.get("channels")
    if not channels:
        raise OptionError(
            f"{field} has no channels, so that it masks nothing: say which values, as in "
            "channels { channel: 0 min_value: 1 max_value: 255 }"
        )
    return tuple(_selection(rule, field=field, is_image=is_image) for rule in channels)


def _selection(rule: Message, *, field: str, is_image: bool) -> ValueSelection:
    channel = rule.get("channel")
    if channel < 0 or (is_image and channel != FIRST_CHANNEL):
        possible = "the image has channel 0 only" if is_image else "channels count from 0"
        raise OptionError(f"{field} has a rule for channel {channel}: {possible}")
    low, high = rule.get("min_value"), rule.get("max_value")
    has_range = not rule.get("values")
    if has_range and low > high:
        unset = [name for name in ("min_value", "max_value") if not rule.has(name)]
        why = f", because {unset[0]} is not set and is 0" if unset else ""
        raise OptionError(
            f"{field} masks values from {low:g} to {high:g}, which are none{why}: set both"
        )
    return ValueSelection(
        values=tuple(rule.get("values")),
        minimum=low if has_range else None,
        maximum=high if has_range else None,
        invert=bool(rule.get("invert")),
        channel=None if is_image else channel,
    )


def _only_finest(address: VolumeAddress) -> VolumeAddress:
    if address.level != _FINEST:
        raise OptionError(
            f"{address.uri} is asked for at scale_index {address.level}: masks are read at "
            "level 0, and may be coarser than the image"
        )
    return address


def _window(request: Message, *, fov: Zyx) -> Box:
    if not request.has("shift_mask_fov"):
        z, y, x = fov
        return Box.from_shape(fov, start=(-(z // 2), -(y // 2), -(x // 2)))
    return box_zyx(request.get("shift_mask_fov"), field="shift_mask_fov")


def box_zyx(box_xyz: Message, *, field: str) -> Box:
    """Return a BoundingBox as a box.

    Raises
    ------
    OptionError
        When it holds no voxel.
    """
    start, size = (vector_zyx(box_xyz.get(name)) for name in ("start", "size"))
    if min(size) < 1:
        x, y, z = size[::-1]
        raise OptionError(
            f"{field} has the size {x}, {y}, {z} (x,y,z): write "
            "start { x: 0 y: 0 z: 0 } size { x: 250 y: 250 z: 250 }, every size at least 1"
        )
    return Box.from_shape(size, start=start)


def vector_zyx(vector_xyz: Message) -> Zyx:
    """Return a Vector3j in the order z, y, x."""
    return (vector_xyz.get("z"), vector_xyz.get("y"), vector_xyz.get("x"))


def _texts(rule: MaskRule) -> tuple[str, ...] | None:
    if isinstance(rule, CoordinateMask):
        return (f"{'not ' if rule.invert else ''}where: {rule.expression}",)
    if not isinstance(rule, VolumeMask | ImageMask):
        return None
    if rule.invert and len(rule.selections) > 1:
        return None
    return tuple(_text(rule, selection) for selection in rule.selections)


def _text(rule: VolumeMask | ImageMask, selection: ValueSelection) -> str:
    negation = "not " if rule.invert != selection.invert else ""
    where = f"volume:{rule.uri}," if isinstance(rule, VolumeMask) else "image:"
    settings = []
    if selection.values:
        settings.append(f"values={'|'.join(f'{value:d}' for value in map(int, selection.values))}")
    else:
        settings += [f"min={selection.minimum!r}", f"max={selection.maximum!r}"]
    if selection.channel is not None:
        settings.append(f"channel={selection.channel}")
    return negation + where + ",".join(settings)
