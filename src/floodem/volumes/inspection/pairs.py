"""Two volumes of one place, held against each other before anything relies on both.

Two open volumes come in; sentences about where they do not match go out, the
first thing first. Nothing is read: count, size, type, voxel size and place are
what the files declare, and the order of sections is in their names.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from floodem.errors import VolumeFormatError
from floodem.volumes.sections.names import section_numbers
from floodem.volumes.volume import Kind, Volume, likely_kind

_SIZE_TOLERANCE = 1e-3
"""Some formats keep voxel sizes as float32, and some programs round them."""


def mismatches(image: Volume, labels: Volume) -> tuple[str, ...]:
    """Say in sentences where an image and its labels do not match; none when they do.

    Held against each other are the number of sections, their height and width, the
    types (labels are whole numbers, images are grey values), voxel sizes where both
    are known, the place of the first voxel, and, for two stacks of files, the numbers
    in the names of the files at each place.
    """
    names = (f"image {image.uri}", f"labels {labels.uri}")
    return (*_types(image, labels), *_find(image, labels, names=names))


def require_matching(image: Volume, labels: Volume) -> None:
    """Refuse an image and labels that do not lie on each other voxel by voxel.

    Raises
    ------
    VolumeFormatError
        With the first mismatch (see `mismatches`).
    """
    for sentence in mismatches(image, labels):
        raise VolumeFormatError(sentence)


def require_alike(first: Volume, second: Volume) -> None:
    """Refuse two images, or two label volumes, that do not lie on each other voxel by voxel.

    Raises
    ------
    VolumeFormatError
        With the first mismatch, the types left out (see `mismatches`).
    """
    for sentence in _find(first, second, names=(first.uri, second.uri)):
        raise VolumeFormatError(sentence)


_Names = tuple[str, str]
"""What messages call the first and the second volume."""


def _find(first: Volume, second: Volume, *, names: _Names) -> Iterator[str]:
    yield from _shapes(first, second, names=names)
    yield from _order(first, second)
    yield from _places(first, second, names=names)


def _types(image: Volume, labels: Volume) -> Iterator[str]:
    if labels.dtype.kind not in "ui":
        yield (
            f"labels {labels.uri} hold {labels.dtype}, and labels are whole numbers: "
            "convert them (--dtype uint32)"
        )
    for volume, role, other in ((image, "image", Kind.LABELS), (labels, "labels", Kind.IMAGE)):
        if volume.kind is other:
            yield (
                f"{volume.uri} was given as {role} and says that it holds {_what(other)}: "
                "give the image first, then its labels"
            )
    is_wide = image.dtype.kind in "ui" and likely_kind(image.dtype) is Kind.LABELS
    if is_wide and image.kind is None:
        yield (
            f"image {image.uri} holds {image.dtype}, which are numbers of objects rather than "
            "grey values: give the image first, then its labels"
        )


def _what(kind: Kind) -> str:
    return "an image" if kind is Kind.IMAGE else "labels"


def _shapes(first: Volume, second: Volume, *, names: _Names) -> Iterator[str]:
    if first.shape[0] != second.shape[0]:
        yield (
            f"{names[0]} has {first.shape[0]} sections and {names[1]} {second.shape[0]}: give "
            f"both for the same sections{_first_alone(first, second)}"
        )
    if first.shape[1:] != second.shape[1:]:
        (height, width), (other_height, other_width) = first.shape[1:], second.shape[1:]
        yield (
            f"sections of {names[0]} have {height} x {width} pixels (y,x) and those of "
            f"{names[1]} {other_height} x {other_width}: crop or pad them to one size"
        )


def _names(volume: Volume) -> Sequence[str]:
    """Return the names of a stack's files; other volumes have none."""
    names: Sequence[str] = getattr(volume, "section_names", ())
    return names


def _numbered(first: Volume, second: Volume) -> tuple[list[int], list[int]] | None:
    ours, others = section_numbers(_names(first)), section_numbers(_names(second))
    return None if ours is None or others is None else (ours, others)


def _first_alone(first: Volume, second: Volume) -> str:
    """Name the first section that only one of two stacks has."""
    numbered = _numbered(first, second)
    if numbered is None:
        return ""
    alone = set(numbered[0]) ^ set(numbered[1])
    for volume, numbers in zip((first, second), numbered, strict=True):
        if alone and min(alone) in numbers:
            name = _names(volume)[numbers.index(min(alone))]
            return f" ({name} of {volume.uri} has no counterpart)"
    return ""


def _order(first: Volume, second: Volume) -> Iterator[str]:
    """Hold the numbers in the names of two stacks against each other."""
    numbered = _numbered(first, second)
    if numbered is None:
        return
    for index, (ours, other) in enumerate(zip(*numbered, strict=False)):
        if ours != other:
            yield (
                f"section {index} is {_names(first)[index]} of {first.uri} but "
                f"{_names(second)[index]} of {second.uri}: give sections of the same number the "
                "same place"
            )
            return


def _places(first: Volume, second: Volume, *, names: _Names) -> Iterator[str]:
    ours, other = first.voxel_size, second.voxel_size
    if (
        ours is not None
        and other is not None
        and not all(
            math.isclose(a, b, rel_tol=_SIZE_TOLERANCE)
            for a, b in zip(ours.zyx_nm, other.zyx_nm, strict=True)
        )
    ):
        yield (
            f"{names[0]} has voxels of {ours} nm (z,y,x) and {names[1]} of {other} nm: correct "
            "the one that is wrong (convert --voxel-size)"
        )
    if first.offset != second.offset:
        yield (
            f"{names[0]} begins at voxel {first.offset} (z,y,x) and {names[1]} at "
            f"{second.offset}: correct the one that is wrong (convert --offset)"
        )
