"""Where the labels of a run go: an address and a plan in, an empty volume for tasks out.

Chunked formats are filled by many tasks at once, whose cores are whole chunks::

    local    DST.floodem/labels.zarr  --(renamed at the end)-->  DST
    remote   DST itself; run.json and the receipts say whether it is complete
    a file   DST.floodem/labels.zarr3 --(converted at the end)--> DST (HDF5, NIfTI, sections)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from floodem.assembly.blocks import BlockPlan
from floodem.assembly.run_record import work_address
from floodem.errors import (
    DestinationExistsError,
    GeometryError,
    OptionError,
    RunConflictError,
    VolumeNotFoundError,
)
from floodem.geometry import VoxelSize, Zyx
from floodem.volumes import create_volume, open_volume
from floodem.volumes.conversion.destination import is_by_section, is_resumable, require_place
from floodem.volumes.conversion.pyramid import level_factors
from floodem.volumes.location import Location, parse_location, require_format
from floodem.volumes.volume import Kind, Volume

LABEL_DTYPE = np.dtype(np.uint64)

USUAL_CHUNK = 64
"""Edge of a chunk where the cores allow it, as everywhere in floodem."""

SMALLEST_CHUNK, LARGEST_CHUNK = 16, 256
"""Shorter chunks are too many files, longer ones (128 MiB as a cube) too much to read at once."""

_GROWS_AS = "zarr3"
"""Format in which the labels of single files are collected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelDestination:
    """A volume of labels (uint64) that many tasks fill; it can be sent to other processes.

    Attributes
    ----------
    uri
        What the user calls it.
    plan
        How the volume is cut; its box is where the labels lie.
    voxel_size
        In nanometres, or None.
    factors
        Of the coarser levels, against the finest.
    replaces
        Whether what is there may be replaced, once the new labels are complete (remote: at
        once).
    """

    uri: str
    plan: BlockPlan
    voxel_size: VoxelSize | None
    factors: tuple[Zyx, ...] = ()
    replaces: bool = False

    @classmethod
    def choose(
        cls,
        uri: str,
        *,
        plan: BlockPlan,
        voxel_size: VoxelSize | None,
        levels: int | Literal["auto"] = "auto",
        overwrite: bool = False,
    ) -> LabelDestination:
        """Decide how labels are kept at an address.

        Parameters
        ----------
        levels
            How many coarser levels; ``"auto"``: as many as it takes, and none where the
            format has none.
        overwrite
            See `replaces`.

        Raises
        ------
        FloodemError
            When the address cannot hold such labels.
        """
        location = parse_location(uri)
        has_levels = "levels" in require_format(location).options
        if levels not in ("auto", 0) and not has_levels:
            raise OptionError(
                f"{location.uri}: {location.format} volumes have no levels, and {levels} are asked "
                "for: leave them out or choose another format"
            )
        count = None if levels == "auto" else levels
        factors = level_factors(plan.box.shape, voxel_size, count=count) if has_levels else ()
        return cls(uri=uri, plan=plan, voxel_size=voxel_size, factors=factors, replaces=overwrite)

    @property
    def location(self) -> Location:
        """The parsed address."""
        return parse_location(self.uri)

    @property
    def work(self) -> str:
        """The run's folder."""
        return work_address(self.uri)

    @property
    def is_converted(self) -> bool:
        """Whether the labels are collected in a chunked store and converted last."""
        location = self.location
        return not is_resumable(location) or is_by_section(location)

    @property
    def growing(self) -> Path | None:
        """The folder in which the labels grow; None where they grow in place (remote)."""
        location = self.location
        if location.is_remote:
            return None
        if self.is_converted:
            return Path(self.work) / f"labels.{_GROWS_AS}"
        # Some names decide how a volume is kept: `.ome.zarr` is a group.
        name = location.path.rstrip("/\\").lower()
        is_ome = location.dataset is None and name.endswith(".ome.zarr")
        return Path(self.work) / ("labels.ome.zarr" if is_ome else f"labels.{location.format}")

    @property
    def target(self) -> str:
        """The address that tasks write to."""
        growing = self.growing
        if growing is None:
            return self.uri
        return f"{_GROWS_AS if self.is_converted else self.location.format}://{growing}"

    @property
    def chunks(self) -> Zyx:
        """Chunks of which every core is made whole, unless it is cut at the box."""
        z, y, x = (
            _chunk(core, count=count, length=length, plan=self.plan)
            for core, count, length in zip(
                self.plan.core, self.plan.grid, self.plan.box.shape, strict=True
            )
        )
        return (z, y, x)

    def create(self) -> None:
        """Make the empty volume, unless it is there from an earlier start of the same run.

        Raises
        ------
        RunConflictError
            When what grows there is of another plan.
        FloodemError
            Whatever `create_volume` refuses.
        """
        require_place(self.location)
        if self._has_target():
            return
        try:
            create_volume(
                self.target,
                shape=self.plan.box.shape,
                dtype=LABEL_DTYPE,
                voxel_size=self.voxel_size,
                offset=self.plan.box.start,
                chunks=self.chunks,
                levels=self.factors,
                kind=Kind.LABELS,
            ).close()
        except DestinationExistsError:
            # Another process that starts the same run was faster.
            if not self._has_target():
                raise

    def _has_target(self) -> bool:
        try:
            with open_volume(self.target, writable=True) as volume:
                self._require_ours(volume)
        except VolumeNotFoundError:
            return False
        return True

    def _require_ours(self, volume: Volume) -> None:
        ours = (self.plan.box, LABEL_DTYPE, 1 + len(self.factors))
        if (volume.box, volume.dtype, len(volume.levels)) != ours or any(
            core % chunk
            for core, chunk, count in zip(
                self.plan.core, volume.chunks, self.plan.grid, strict=True
            )
            if count > 1
        ):
            raise RunConflictError(
                f"{volume.uri} holds {volume.box} {volume.dtype} in chunks of {volume.chunks} "
                f"(z,y,x), not {self.plan.box} {LABEL_DTYPE} in blocks of {self.plan.core}: begin "
                "again with --overwrite, or choose another destination"
            )


def _chunk(core: int, *, count: int, length: int, plan: BlockPlan) -> int:
    """Return the edge of a chunk on one axis that has `count` cores and `length` voxels."""
    if count == 1:
        return min(USUAL_CHUNK, length)
    if core <= USUAL_CHUNK:
        return core
    divisors = [edge for edge in range(1, LARGEST_CHUNK + 1) if core % edge == 0]
    short = [edge for edge in divisors if SMALLEST_CHUNK <= edge <= USUAL_CHUNK]
    long = [edge for edge in divisors if edge > USUAL_CHUNK]
    if not short and not long:
        near = math.ceil(core / USUAL_CHUNK) * USUAL_CHUNK
        raise GeometryError(
            f"block {plan.core} (z,y,x) cannot be cut into whole chunks, because {core} has no "
            f"divisor from {SMALLEST_CHUNK} to {LARGEST_CHUNK}: give a multiple of "
            f"{USUAL_CHUNK}, for example {near}"
        )
    return max(short) if short else min(long)
