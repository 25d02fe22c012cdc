"""The image of a request as the flood sees it: a volume in, the same or its matched copy out.

The old program took the first channel of an image, knew no voxel sizes, and could make
the grey values of the part it worked on like those of a reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from floodem.errors import VolumeFormatError
from floodem.flooding.masks import MaskRule, build_mask, check_masks
from floodem.geometry import Box, VoxelSize
from floodem.legacy.requests.histogram import match_histogram, read_lookup_table
from floodem.legacy.requests.volumes import FIRST_CHANNEL, VolumeAddress
from floodem.volumes.volume import Array, Volume

_MAX_ITEMSIZE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestedImage:
    """What a request says about its image.

    Attributes
    ----------
    address
        Where it is.
    reference_histogram
        Path of a lookup table, or None.
    histogram_masks
        Voxels that do not count when histograms are matched.
    """

    address: VolumeAddress
    reference_histogram: Path | None = None
    histogram_masks: Sequence[MaskRule] = ()

    def open(self, *, box: Box | None) -> OldImage:
        """Open the image; the part in `box` is what its sections are matched in.

        Raises
        ------
        FloodemError
            When the image or the lookup table cannot be read, or does not fit the request.
        """
        lut = None
        if self.reference_histogram is not None:
            lut = read_lookup_table(self.reference_histogram)
        source = self.address.open(channel=FIRST_CHANNEL)
        try:
            return OldImage(source, box=box, lut=lut, ignored=self.histogram_masks)
        except BaseException:
            source.close()
            raise


class OldImage(Volume):
    """One channel of an image, its grey values matched where a lookup table is given.

    Parameters
    ----------
    source
        Closed with this volume.
    box
        Its part that matters; None: all of it. Matching looks at this part, section by
        section, and at nothing around it.
    lut
        What matched grey values are looked up in, or None.
    ignored
        Voxels that do not count when histograms are matched.
    """

    def __init__(
        self,
        source: Volume,
        *,
        box: Box | None,
        lut: UInt8[np.ndarray, "256"] | None = None,
        ignored: Sequence[MaskRule] = (),
    ) -> None:
        self._source = source
        self._lut = lut
        self._ignored = ignored
        self.uri = source.uri
        self.box = source.box if box is None or not source.box.contains(box) else box
        self.dtype = source.dtype
        self.voxel_size: VoxelSize | None = source.voxel_size
        self.chunks = source.chunks
        self.kind = source.kind
        self.notices = source.notices
        if lut is None:
            return
        if self.dtype.kind != "u" or self.dtype.itemsize > _MAX_ITEMSIZE:
            raise VolumeFormatError(
                f"{self.uri} holds {self.dtype}, and reference_histogram is for grey values of 8 "
                "or 16 bits: take it out of the request, or bring the image to 8 bits"
            )
        check_masks(ignored, box=self.box, voxel_size=self.voxel_size)

    def _read(self, box: Box) -> Array:
        if self._lut is None:
            return self._source.read(box)
        raw = self._source.read(self.box)
        ignored = build_mask(self._ignored, box=self.box, image=raw, voxel_size=self.voxel_size)
        matched: Array = match_histogram(raw, self._lut, ignored=ignored)
        return np.ascontiguousarray(matched[box.slices(origin=self.box.start)])

    def close(self) -> None:
        """Let go of the image."""
        self._source.close()
