"""Which channel of a colour picture is the volume: what was asked for in, an index out."""

from __future__ import annotations

from collections.abc import Callable

from floodem.errors import OptionError, VolumeFormatError


def choose_channel(
    channel: int | None,
    *,
    channels: int,
    path: object,
    uri: str,
    are_equal: Callable[[], bool],
) -> int:
    """Return which channel of a picture is meant.

    Parameters
    ----------
    channel
        What the user asked for.
    channels, path
        How many there are, and in which file.
    uri
        What messages call the volume.
    are_equal
        Tells whether all channels hold the same values, as they
        do in grey images saved in colour.

    Raises
    ------
    VolumeFormatError
        When a colour image is given and no channel.
    OptionError
        When there is no such channel.
    """
    if channel is not None and channel >= channels:
        what = "sections are grey images" if channels == 1 else f"it has {channels}"
        raise OptionError(f"{uri} has no channel {channel}: {what}, counted from 0")
    if channel is None and channels > 1:
        advice = (
            "its channels are all equal, so take the first (--channel 0, in Python channel=0)"
            if are_equal()
            else f"choose one of its {channels} channels (--channel 0 to "
            f"{channels - 1}, in Python channel=)"
        )
        raise VolumeFormatError(
            f"{path} is a colour image, and a volume has one value per voxel: {advice}"
        )
    return channel or 0
