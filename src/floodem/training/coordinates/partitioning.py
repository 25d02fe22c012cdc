"""Partitions of label volumes of any size: a volume in, blocks of uint8 out, in bounded memory.

Objects are counted over the whole volume first; then each block is read with the
surroundings of its voxels and sorted by `floodem.labels.partitions`. What comes out
does not depend on the blocks.

    labels --> sizes of objects --> blocks + surroundings --> partitions --> index
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8

from floodem.errors import GeometryError, LabelError, OptionError
from floodem.flooding.masks import ImageMask, MaskRule, build_mask, check_masks
from floodem.geometry import Box, VoxelSize, Zyx, tiles
from floodem.labels import require_labels
from floodem.labels.partitions import (
    EXCLUDED,
    BlockRuns,
    near_masked,
    partition_block,
    partition_table,
)
from floodem.labels.runs import Counts, Ids
from floodem.progress import Progress, ProgressListener
from floodem.volumes.inspection.ids import id_sizes
from floodem.volumes.parallel import usable_threads
from floodem.volumes.volume import Volume

BLOCK_BYTES = 2**27
"""What one block takes while it is sorted, unless one chunk with its surroundings takes more."""

_BYTES_BESIDE = 4
"""For each voxel: its object's number (1 to 2 bytes), its partition, and whether a run begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sphere:
    """Voxels within `radius` of a centre (z, y, x, in the volume's frame), all in voxels."""

    centre: tuple[float, float, float]
    radius: float

    @classmethod
    def parse(cls, text: str) -> Sphere:
        """Read ``"50,120,80,25"``: z, y, x and radius.

        Raises
        ------
        OptionError
            When these are not four numbers, or the radius is negative.
        """
        try:
            z, y, x, radius = (float(part) for part in text.split(","))
        except ValueError:
            raise OptionError(
                f"{text!r} is not a sphere: write z,y,x,r, for example 50,120,80,25"
            ) from None
        if not (all(math.isfinite(number) for number in (z, y, x, radius)) and radius >= 0):
            raise OptionError(f"sphere {text!r} has a radius below 0, or a number without an end")
        return cls(centre=(z, y, x), radius=radius)

    @property
    def box(self) -> Box:
        """The voxels that may lie in it."""
        (z, y, x), r = self.centre, self.radius
        return Box(
            (math.ceil(z - r), math.ceil(y - r), math.ceil(x - r)),
            (math.floor(z + r) + 1, math.floor(y + r) + 1, math.floor(x + r) + 1),
        )

    def holds(self, box: Box) -> Bool[np.ndarray, "z y x"]:
        """Return which voxels of a box lie in it; those at the radius do."""
        squares = [
            (np.arange(first, stop) - at) ** 2
            for first, stop, at in zip(box.start, box.stop, self.centre, strict=True)
        ]
        distances = np.add.outer(np.add.outer(squares[0], squares[1]), squares[2])
        return np.asarray(distances <= self.radius**2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Partitioning:
    """By what voxels are sorted into partitions.

    Attributes
    ----------
    thresholds
        Fractions of the surroundings between the partitions, ascending.
    radius
        Half of the surroundings, z, y, x, in voxels.
    min_size
        Objects with fewer voxels are background.
    ids
        Sort only these objects, and leave others 0; None: all.
    masks
        No centres where a masked voxel lies in the surroundings.
    spheres
        No centres in these.
    """

    thresholds: tuple[float, ...]
    radius: Zyx
    min_size: int
    ids: tuple[int, ...] | None = None
    masks: tuple[MaskRule, ...] = ()
    spheres: tuple[Sphere, ...] = ()

    def __post_init__(self) -> None:
        if self.min_size < 1:
            raise OptionError(f"smallest size {self.min_size} of an object is not 1 or more")
        bad = [one for one in self.ids or () if not 0 < one < 2**64]
        if bad:
            raise OptionError(f"id {bad[0]} is no object's: ids are 1 to 2**64 - 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenObjects:
    """Which objects are sorted into partitions.

    Attributes
    ----------
    ids
        Ascending.
    all_objects
        How many objects there are, small ones among them.
    unused_ids
        Those asked for that are no objects, or too small.
    """

    ids: Ids
    all_objects: int
    unused_ids: tuple[int, ...] = ()


class PartitionedLabels:
    """The partitions of a label volume, made block by block as they are asked for.

    Parameters
    ----------
    labels
        An open volume of labels, of any integer type.
    by
        Thresholds, radius, smallest size, and what is left out.
    box
        The part to sort, by default all; what lies outside is not looked at.
    chunks
        Blocks begin at multiples of these, counted from the box's start.
    threads
        By default one for each core that this process may use.
    progress
        Called after each block, in voxels.

    Raises
    ------
    GeometryError
        When the box is not inside the volume, or the radius leaves nothing of it.
    LabelError
        When the volume holds no labels, or no object is large enough.
    OptionError
        When thresholds, radius or masks are impossible.
    """

    def __init__(
        self,
        labels: Volume,
        *,
        by: Partitioning,
        box: Box | None = None,
        chunks: Zyx = (1, 1, 1),
        threads: int | None = None,
        progress: ProgressListener | None = None,
    ) -> None:
        self._labels = labels
        self._by = by
        self.box = labels.box if box is None else box
        self._table = partition_table(by.thresholds, radius=by.radius)
        self.valid = box_less(self.box, by.radius, what="radius", of=labels.uri)
        require_labels(np.zeros(0, labels.dtype), what=labels.uri)
        _require_masks(by.masks, box=self.box, labels=labels)
        self._threads = usable_threads(threads)
        self._progress = progress
        core = _block_core(
            self.box.shape, itemsize=labels.dtype.itemsize, radius=by.radius, chunks=chunks
        )
        self._tiles = list(tiles(self.box, core=core))
        # What is one block anyway is read once, for the sizes and for the partitions.
        self._whole = self._runs(self.box) if len(self._tiles) == 1 else None
        ids, voxels = (
            self._sizes() if self._whole is None else (self._whole.ids, self._whole.voxels)
        )
        self.objects = _choose(ids, voxels, by=by, uri=labels.uri)

    def blocks(self) -> Iterator[tuple[Box, UInt8[np.ndarray, "z y x"]]]:
        """Yield boxes and their partitions, in C order; together they cover the box.

        255 within the radius of the box's faces and where centres are excluded, 0 in
        background and in objects that are not sorted, else 1 to the number of
        thresholds + 1.
        """
        done, total = 0, self.box.size
        report = self._progress or (lambda _: None)
        report(Progress(stage="partitions", done=done, total=total, unit="voxels"))
        for tile in self._tiles:
            yield tile.core, self._block(tile.core)
            done += tile.core.size
            report(Progress(stage="partitions", done=done, total=total, unit="voxels"))

    def _sizes(self) -> tuple[Ids, Counts]:
        return id_sizes(self._labels, box=self.box, threads=self._threads, progress=self._progress)

    def _runs(self, box: Box) -> BlockRuns:
        labels = self._labels.read(box)
        require_labels(labels, what=self._labels.uri)
        return BlockRuns(labels)

    def _block(self, box: Box) -> UInt8[np.ndarray, "z y x"]:
        partitions = np.full(box.shape, EXCLUDED, np.uint8)
        seen = box.intersection(self.valid)
        if seen is None:
            return partitions
        halo = self.box if self._whole else seen.grow(self._by.radius)
        found = partition_block(
            self._whole or self._runs(halo),
            core=seen.translate(_negative(halo.start)),
            objects=self.objects.ids,
            radius=self._by.radius,
            table=self._table,
            threads=self._threads,
        )
        _exclude(found, seen, by=self._by, voxel_size=self._labels.voxel_size)
        partitions[seen.slices(origin=box.start)] = found
        return partitions


def _choose(ids: Ids, voxels: Counts, *, by: Partitioning, uri: str) -> ChosenObjects:
    """Return the objects to sort, given the sizes of all.

    Raises
    ------
    LabelError
        When there are none.
    """
    is_object = ids != 0
    is_chosen = is_object & (voxels >= by.min_size)
    if not is_chosen.any():
        largest = int(voxels[is_object].max()) if is_object.any() else 0
        raise LabelError(
            f"{uri} has no object of {by.min_size} voxels or more, the largest has {largest}: "
            "give a smaller size, or other labels"
        )
    unused: tuple[int, ...] = ()
    if by.ids is not None:
        large = ids[is_chosen]
        is_chosen &= np.isin(ids, np.array(by.ids, np.uint64))
        unused = tuple(sorted(set(by.ids) - set(large.tolist())))
        if not is_chosen.any():
            one = len(by.ids) == 1
            named = f"id {by.ids[0]} is no" if one else f"none of the {len(by.ids)} ids is an"
            raise LabelError(
                f"{named} object of {by.min_size} voxels or more in "
                f"{uri}: check the ids, or give a smaller size"
            )
    return ChosenObjects(
        ids=ids[is_chosen], all_objects=int(np.count_nonzero(is_object)), unused_ids=unused
    )


def box_less(box: Box, margin: Zyx, *, what: str, of: str) -> Box:
    """Return a box without the voxels near its faces.

    Raises
    ------
    OptionError
        When the margin is negative.
    GeometryError
        When nothing is left.
    """
    if min(margin) < 0:
        raise OptionError(f"{what} {margin} (z,y,x) is negative: give 0 or more on every axis")
    if any(size <= 2 * less for size, less in zip(box.shape, margin, strict=True)):
        raise GeometryError(
            f"{what} {','.join(map(str, margin))} leaves nothing of {of}, which has "
            f"{','.join(map(str, box.shape))} voxels (z,y,x): give a smaller {what}"
        )
    return box.grow(_negative(margin))


def _negative(zyx: Zyx) -> Zyx:
    z, y, x = zyx
    return (-z, -y, -x)


def _require_masks(masks: tuple[MaskRule, ...], *, box: Box, labels: Volume) -> None:
    if any(isinstance(rule, ImageMask) for rule in masks):
        raise OptionError(
            "a mask of the form image:... looks at an image, and partitions are made from labels "
            "alone: name the image's address, as in volume:em.h5@raw,max=10"
        )
    check_masks(masks, box=box, voxel_size=labels.voxel_size)


def _exclude(
    partitions: UInt8[np.ndarray, "z y x"],
    box: Box,
    *,
    by: Partitioning,
    voxel_size: VoxelSize | None,
) -> None:
    """Mark what masks and spheres exclude in the partitions of a box."""
    halo = box.grow(by.radius)
    mask = build_mask(by.masks, box=halo, voxel_size=voxel_size)
    if mask is not None and mask.any():
        core = box.translate(_negative(halo.start))
        partitions[near_masked(mask, core=core, radius=by.radius)] = EXCLUDED
    for sphere in by.spheres:
        near = sphere.box.intersection(box)
        if near is not None:
            partitions[near.slices(origin=box.start)][sphere.holds(near)] = EXCLUDED


def _block_core(shape: Zyx, *, itemsize: int, radius: Zyx, chunks: Zyx) -> Zyx:
    """Choose blocks of whole chunks that fit in `BLOCK_BYTES` with their surroundings.

    They are halved where that adds least to what is read twice.
    """
    core = list(shape)

    def bytes_at_once() -> int:
        edges = (min(c + 2 * r, s) for c, r, s in zip(core, radius, shape, strict=True))
        return math.prod(edges) * (itemsize + _BYTES_BESIDE)

    while bytes_at_once() > BLOCK_BYTES:
        axes = [axis for axis in range(3) if core[axis] > chunks[axis]]
        if not axes:
            break
        axis = max(axes, key=lambda one: core[one] / (radius[one] + 1))
        core[axis] = -(-core[axis] // (2 * chunks[axis])) * chunks[axis]
    return (core[0], core[1], core[2])
