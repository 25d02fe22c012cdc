"""What a file with one array says of it: the header's facts in, their arrangement out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from floodem.volumes.axes import Arrangement, arrange
from floodem.volumes.channels import choose_channel
from floodem.volumes.description import Description
from floodem.volumes.registry import OpenRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """A header, checked.

    Attributes
    ----------
    shape, axes
        Stored lengths in C order and their names.
    dtype
        Of the file, with its byte order.
    start
        Where the voxels begin.
    description
        Voxel size, offset and kind for z, y and x as stored.
    is_colour
        Whether the last axis is red, green, blue.
    notices
        Sentences about what is odd.
    """

    shape: tuple[int, ...]
    axes: str
    dtype: np.dtype[Any]
    start: int
    description: Description
    is_colour: bool
    notices: tuple[str, ...]

    def arranged(self, request: OpenRequest) -> Arrangement:
        """Find z, y and x, and the channel that was asked for.

        Raises
        ------
        VolumeFormatError, OptionError
            As `arrange`; also when the array is in colour and no channel is asked for.
        """
        uri = request.location.uri
        if self.is_colour:
            # Nothing is known about the voxels before they are read.
            choose_channel(
                request.channel,
                channels=self.shape[-1],
                path=uri,
                uri=uri,
                are_equal=lambda: False,
            )
        return arrange(
            self.shape, uri=uri, channel=request.channel, asked=request.axes, declared=self.axes
        )
