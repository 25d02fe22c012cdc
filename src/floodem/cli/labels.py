"""Segmentations on the command line: what is given as one comes in, a note goes out."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from floodem.shapes.source import LabelSource


def warn_of_image(source: LabelSource) -> None:
    """Say on stderr where what shall hold labels looks like an image.

    Floats are left to be refused by who reads them.

    Raises
    ------
    VolumeNotFoundError, VolumeFormatError, UnsafeFileError, StorageError
        When it cannot be opened.
    """
    from floodem.shapes.source import image_notice

    with source.open() as volume:
        notice = image_notice(volume) if volume.dtype.kind in "ui" else None
    if notice is not None:
        print(f"note: {notice}", file=sys.stderr, flush=True)
