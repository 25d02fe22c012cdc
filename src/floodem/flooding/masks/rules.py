"""Where floods may not go: rules in, one mask for a box of the volume out.

A rule looks at a volume beside the image (a tissue mask, labels to leave out),
at the image's own intensities, or at coordinates. A voxel is masked when any
rule says so. The flood driver asks once for each block; a mask forbids the
centre of a field of view, or a seed, not what the network writes around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool

from floodem.errors import GeometryError, VolumeFormatError
from floodem.flooding.masks.expression import CoordinateExpression
from floodem.flooding.masks.selection import ValueSelection
from floodem.geometry import Box, VoxelSize, Zyx
from floodem.volumes.volume import Volume

Array = np.ndarray[Any, np.dtype[Any]]

# Two voxel sizes have a whole ratio when it is whole to a thousandth: files round them.
RATIO_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskPlace:
    """What a mask is asked for: a box of the volume, and the image in it.

    Attributes
    ----------
    box
        Voxels of the image's volume, z, y, x.
    image
        Raw intensities in the box, or None where no rule looks at them.
    voxel_size
        Of the image, or None when unknown: then masks have the same.
    """

    box: Box
    image: Array | None = None
    voxel_size: VoxelSize | None = None


class MaskRule(Protocol):
    """One reason to mask voxels."""

    def masked(self, place: MaskPlace) -> Bool[np.ndarray, "z y x"]:
        """Return where this rule masks the voxels of a place."""
        ...

    def require_possible(self, place: MaskPlace) -> None:
        """Check before a run that the rule can be applied all over a place."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary for a run's record."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeMask:
    """Values of another volume, of the image's voxel size or whole multiples of it.

    Voxel c of a volume r times as coarse lies over the voxels from r * c to
    r * (c + 1) - 1 of the image. Where the volume ends, its value is 0.

    Attributes
    ----------
    uri
        Address of the volume.
    selections
        What is masked; more than one are joined by "or".
    invert
        Mask everything else instead.
    """

    uri: str
    selections: tuple[ValueSelection, ...] = (ValueSelection(),)
    invert: bool = False

    def masked(self, place: MaskPlace) -> Bool[np.ndarray, "z y x"]:
        """Return where this rule masks the voxels of a place.

        Raises
        ------
        GeometryError
            When its voxels are no whole multiples of the image's.
        VolumeNotFoundError, VolumeFormatError, StorageError
            When the volume cannot be read.
        """
        return _inverted(
            _any([self._selected(one, place) for one in self.selections]), invert=self.invert
        )

    def require_possible(self, place: MaskPlace) -> None:
        """Check that the volume is there, fits the image's voxels and meets the box.

        Raises
        ------
        GeometryError
            When its voxels are no whole multiples of the image's, or it lies elsewhere.
        VolumeFormatError
            When it holds anything but numbers.
        VolumeNotFoundError, StorageError
            When it cannot be opened.
        """
        for selection in self.selections:
            with self._opened(selection) as volume:
                coarse = _coarse_box(place.box, _ratio(volume, place.voxel_size))
                if volume.dtype.kind not in "buif":
                    raise VolumeFormatError(
                        f"mask {self.uri} holds {volume.dtype}: give a volume of numbers"
                    )
                if volume.box.intersection(coarse) is None:
                    raise GeometryError(
                        f"mask {self.uri} holds {volume.box} (z,y,x) and nothing of {coarse}, "
                        "where the image is: check its offset and voxel size"
                    )

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary for a run's record."""
        selections = [selection.to_json() for selection in self.selections]
        return {"kind": "volume", "uri": self.uri, "selections": selections, "invert": self.invert}

    def _opened(self, selection: ValueSelection) -> Volume:
        from floodem.volumes import open_volume

        return open_volume(self.uri, channel=selection.channel)

    def _selected(self, selection: ValueSelection, place: MaskPlace) -> Bool[np.ndarray, "z y x"]:
        with self._opened(selection) as volume:
            ratio = _ratio(volume, place.voxel_size)
            coarse = _coarse_box(place.box, ratio)
            chosen = selection.of(read_padded(volume, coarse))
        if ratio == (1, 1, 1):
            return chosen
        ends = zip(place.box.start, place.box.stop, ratio, coarse.start, strict=True)
        nearest = [np.arange(a, b) // step - first for a, b, step, first in ends]
        return chosen[np.ix_(*nearest)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageMask:
    """Raw intensities of the image itself, before any normalisation.

    Attributes
    ----------
    selections
        What is masked; more than one are joined by "or".
    invert
        Mask everything else instead.
    """

    selections: tuple[ValueSelection, ...]
    invert: bool = False

    def masked(self, place: MaskPlace) -> Bool[np.ndarray, "z y x"]:
        """Return where this rule masks the voxels of a place."""
        assert place.image is not None, "an image rule needs the raw image"
        assert place.image.shape == place.box.shape
        chosen = [selection.of(place.image) for selection in self.selections]
        return _inverted(_any(chosen), invert=self.invert)

    def require_possible(self, place: MaskPlace) -> None:
        """Do nothing: intensities can always be compared."""

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary for a run's record."""
        selections = [selection.to_json() for selection in self.selections]
        return {"kind": "image", "selections": selections, "invert": self.invert}


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinateMask:
    """A condition on x, y, z, in voxels of the image's volume.

    Attributes
    ----------
    expression
        The condition, see `floodem.flooding.masks.expression`.
    invert
        Mask where it does not hold.

    Raises
    ------
    OptionError
        When the expression is not understood.
    """

    expression: str
    invert: bool = False

    def __post_init__(self) -> None:
        CoordinateExpression(self.expression)

    def masked(self, place: MaskPlace) -> Bool[np.ndarray, "z y x"]:
        """Return where this rule masks the voxels of a place."""
        holds = CoordinateExpression(self.expression).over(place.box)
        return _inverted(holds, invert=self.invert)

    def require_possible(self, place: MaskPlace) -> None:
        """Check that the condition can be computed exactly all over the box.

        Raises
        ------
        OptionError
            When numbers in it grow too large.
        """
        CoordinateExpression(self.expression).require_exact(place.box)

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary for a run's record."""
        return {"kind": "where", "expression": self.expression, "invert": self.invert}


def build_mask(
    rules: Sequence[MaskRule],
    *,
    box: Box,
    image: Array | None = None,
    voxel_size: VoxelSize | None = None,
) -> Bool[np.ndarray, "z y x"] | None:
    """Return where any rule masks the voxels of a box, or None without rules.

    Parameters
    ----------
    rules
        As `parse_mask` gives them.
    box
        Voxels of the image's volume.
    image
        Raw intensities in the box (z, y, x); needed by image rules only.
    voxel_size
        Of the image.

    Raises
    ------
    OptionError, GeometryError, VolumeNotFoundError, VolumeFormatError, StorageError
        When a rule cannot be applied; `check_masks` finds that out beforehand.
    """
    if not rules:
        return None
    place = MaskPlace(box=box, image=image, voxel_size=voxel_size)
    return _any([rule.masked(place) for rule in rules])


def check_masks(
    rules: Sequence[MaskRule], *, box: Box, voxel_size: VoxelSize | None = None
) -> None:
    """Check before a run that every rule can be applied all over the box.

    Raises
    ------
    OptionError, GeometryError, VolumeNotFoundError, VolumeFormatError, StorageError
        When one cannot.
    """
    place = MaskPlace(box=box, voxel_size=voxel_size)
    for rule in rules:
        rule.require_possible(place)


def _any(masks: Sequence[Bool[np.ndarray, "z y x"]]) -> Bool[np.ndarray, "z y x"]:
    return reduce(np.logical_or, masks)


def _inverted(mask: Bool[np.ndarray, "z y x"], *, invert: bool) -> Bool[np.ndarray, "z y x"]:
    return ~mask if invert else mask


def _ratio(volume: Volume, voxel_size: VoxelSize | None) -> Zyx:
    """Return how many voxels of the image lie along each edge of the mask's."""
    if volume.voxel_size is None or voxel_size is None:
        return (1, 1, 1)
    pairs = zip(volume.voxel_size.zyx_nm, voxel_size.zyx_nm, strict=True)
    exact = [coarse / fine for coarse, fine in pairs]
    whole = [round(ratio) for ratio in exact]
    if any(w < 1 or abs(r / w - 1) > RATIO_TOLERANCE for r, w in zip(exact, whole, strict=True)):
        raise GeometryError(
            f"mask {volume.uri} has voxels of {volume.voxel_size} nm, the image {voxel_size} nm "
            "(z,y,x): use a mask whose voxels are as large or a whole multiple on every axis"
        )
    z, y, x = whole
    return (z, y, x)


def _coarse_box(box: Box, ratio: Zyx) -> Box:
    """Return the coarse voxels that lie over a box."""
    (z0, y0, x0), (z1, y1, x1), (rz, ry, rx) = box.start, box.stop, ratio
    return Box((z0 // rz, y0 // ry, x0 // rx), (-(-z1 // rz), -(-y1 // ry), -(-x1 // rx)))


def read_padded(volume: Volume, box: Box) -> Array:
    """Read a box of which the volume may hold only a part; the rest is 0."""
    held = volume.box.intersection(box)
    if held == box:
        return volume.read(box)
    padded = np.zeros(box.shape, dtype=volume.dtype)
    if held is not None:
        padded[held.slices(origin=box.start)] = volume.read(held)
    return padded
