"""What a conversion decides or leaves out without being asked: options in, sentences out.

Whatever a copy is made otherwise than its caller may think is said here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from floodem.volumes.kinds import SMALL_BYTES, looks_like_labels
from floodem.volumes.registry import VolumeFormat
from floodem.volumes.volume import Volume

_SHAPES_OWN_CHUNKS = frozenset({"npz", "npy", "png", "tiff", "nifti", "mrc"})
"""Formats that are written whole, or section by section, whatever chunks are asked for."""

_TYPED_BY_KIND = frozenset({"precomputed"})
"""Formats that say of every volume whether it is an image or a segmentation."""


def are_unstated_labels(
    source: Volume, *, dtype: np.dtype[Any], has_levels: bool, record: VolumeFormat
) -> bool:
    """Tell whether a copy in a small integer type is to be made as labels, unasked.

    Nobody has said what the values mean. Voxels are only looked at where it makes a
    difference: coarser levels of labels are no means.

    Parameters
    ----------
    dtype
        Of the copy.
    record
        Its format.
    """
    if dtype.kind not in "ui" or dtype.itemsize > SMALL_BYTES:
        return False
    return (has_levels or record.name in _TYPED_BY_KIND) and looks_like_labels(source)


def label_note(uri: str, *, has_levels: bool) -> str:
    """Say that a volume was taken for labels."""
    consequence = (
        "its levels hold the most frequent ids; --kind image for means"
        if has_levels
        else "it is written as a segmentation; --kind image otherwise"
    )
    return f"{uri} looks like labels: {consequence}"


def unkept_notes(record: VolumeFormat, options: dict[str, object]) -> Iterator[str]:
    """Say which options a format has no room for.

    Parameters
    ----------
    options
        Values by name; None where nothing was asked for.
    """
    dropped = [] if record.keeps_position else ["voxel_size", "offset", "kind"]
    dropped += ["chunks"] if record.name in _SHAPES_OWN_CHUNKS else []
    for name in dropped:
        if options[name] is not None:
            option = name.replace("_", "-")
            yield (
                f"{record.name} volumes have no room for --{option}: {options[name]} is not kept"
                if name != "chunks"
                else f"{record.name} volumes are not kept in chunks: --chunks has no effect"
            )
