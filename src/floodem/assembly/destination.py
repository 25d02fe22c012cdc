"""Where the labels of a run go: an address and a plan in, an empty volume for tasks out.

Chunked formats are filled by many tasks at once, whose cores are whole chunks::

    local    DST.floodem/labels.zarr  --(renamed at the end)-->   DST
    remote   DST itself; run.json and the receipts say whether it is complete
    a file   DST.floodem/labels.zarr3 --(converted at the end)--> DST (HDF5, NIfTI, sections)

Where the labels are is kept in ``DST.floodem/destination.json``, so that every process
of the run, and the next one, finds them.
"""

from __future__ import annotations

import contextlib
import math
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from floodem.assembly.blocks import BlockPlan
from floodem.assembly.output_chunks import are_whole, chunks_of, shards_of
from floodem.assembly.place import Place, Whereabouts
from floodem.assembly.run_record import is_taken, work_address
from floodem.errors import (
    DestinationExistsError,
    OptionError,
    RunConflictError,
    StorageError,
    VolumeFormatError,
    VolumeNotFoundError,
)
from floodem.geometry import VoxelSize, Zyx
from floodem.volumes import create_volume, open_volume
from floodem.volumes.chunked.creation import empty_remote
from floodem.volumes.chunked.layouts import LAYOUTS
from floodem.volumes.conversion.destination import is_by_section, is_resumable, require_place
from floodem.volumes.conversion.pyramid import level_factors
from floodem.volumes.location import Location, parse_location, require_format
from floodem.volumes.registry import CreateRequest
from floodem.volumes.servers.addresses import HTTP_SCHEMES, remote_deadline_s, split_address
from floodem.volumes.servers.transport import open_store
from floodem.volumes.volume import Kind, Volume

LABEL_DTYPE = np.dtype(np.uint64)

_FINAL_DTYPES: tuple[np.dtype[Any], ...] = (LABEL_DTYPE, np.dtype(np.uint32), np.dtype(np.uint16))

GROWS_AS = "zarr3"
"""Format in which the labels of single files are collected."""

MOST_CHUNK_FILES = 100_000
"""Beyond that many files quotas and listings become the problem, and shards are taken."""

_SHARDED = "zarr3"
"""Shards of precomputed volumes follow a curve, and so would lie in several cores."""

_CLAIM = "destination.claim"
_ASKED_EVERY_S = 0.5


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
        Whether what is there may be replaced: once the new labels are complete, but on
        servers at once.
    is_sharded
        Whether many chunks go into one file.
    """

    uri: str
    plan: BlockPlan
    voxel_size: VoxelSize | None
    factors: tuple[Zyx, ...] = ()
    replaces: bool = False
    is_sharded: bool = False

    @classmethod
    def choose(
        cls,
        uri: str,
        *,
        plan: BlockPlan,
        voxel_size: VoxelSize | None,
        levels: int | Literal["auto"] = "auto",
        overwrite: bool = False,
        is_sharded: bool | None = None,
    ) -> LabelDestination:
        """Decide how labels are kept at an address; nothing is written.

        Parameters
        ----------
        levels
            How many coarser levels; ``"auto"``: as many as it takes, and none where the
            format has none.
        overwrite
            See `replaces`.
        is_sharded
            See there; None: where a zarr 3 volume would have more than a hundred thousand
            chunks.

        Raises
        ------
        FloodemError
            When the format has no levels or shards that are asked for, or blocks cannot be
            cut into whole chunks.
        """
        location = parse_location(uri)
        has_levels = "levels" in require_format(location).options
        if levels not in ("auto", 0) and not has_levels:
            raise OptionError(
                f"{location.uri}: {location.format} volumes have no levels, and {levels} are asked "
                "for: leave them out or choose another format"
            )
        if is_sharded is None:
            is_sharded = location.format == _SHARDED and _chunk_count(plan) > MOST_CHUNK_FILES
        if is_sharded and location.format != _SHARDED:
            raise OptionError(
                f"{location.uri}: {location.format} volumes have no shards that blocks could be "
                f"cut into: leave them out or choose {_SHARDED}://"
            )
        count = None if levels == "auto" else levels
        made = cls(
            uri=uri,
            plan=plan,
            voxel_size=voxel_size,
            factors=level_factors(plan.box.shape, voxel_size, count=count) if has_levels else (),
            replaces=overwrite,
            is_sharded=is_sharded,
        )
        assert made.chunks  # or a refusal
        return made

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
            return Path(self.work) / f"labels.{GROWS_AS}"
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
        return f"{GROWS_AS if self.is_converted else self.location.format}://{growing}"

    @property
    def chunks(self) -> Zyx:
        """Chunks of which every core is made whole, unless it is cut at the box."""
        return chunks_of(self.plan)

    @property
    def shards(self) -> Zyx | None:
        """Shards of whole chunks, of which every core is made whole; None without shards."""
        return shards_of(self.plan) if self.is_sharded else None

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a run's record; a run with others is another run."""
        return {
            "box": str(self.plan.box),
            "block": list(self.plan.core),
            "halo": list(self.plan.margin),
            "voxel_size_nm_zyx": None if self.voxel_size is None else list(self.voxel_size.zyx_nm),
            "levels": [list(factors) for factors in self.factors],
            "is_sharded": self.is_sharded,
        }

    def require_possible(self) -> None:
        """Refuse an address to which these labels could not be written, before they are computed.

        Nothing is left behind, and no server is asked.

        Raises
        ------
        FloodemError
            Whatever `create_volume` refuses. What is at the destination is looked at by
            `RunRecord.begin`.
        """
        location = self.location
        require_place(location)
        if location.is_remote and split_address(location.path)[0] in HTTP_SCHEMES:
            raise StorageError(
                f"{location.uri} cannot be written, because http addresses are for reading only: "
                "write to a local folder, gs:// or s3://"
            )
        facts = self._facts()
        if self.is_converted:
            self.final_dtype()
        elif location.is_remote:
            LAYOUTS[str(location.format)].documents(CreateRequest(location=location, **facts))
        else:
            create_volume(self.uri, **facts, overwrite=True).discard()

    def final_dtype(self) -> np.dtype[Any]:
        """Return the type of the labels at the destination: the widest that its format holds.

        Where that is not uint64, ids must fit it in the end; they are never cut.

        Raises
        ------
        FloodemError
            When it holds no labels, or nothing can be written there.
        """
        if not self.is_converted:
            return LABEL_DTYPE
        for number, dtype in enumerate(_FINAL_DTYPES, start=1):
            try:
                create_volume(
                    self.uri,
                    shape=self.plan.box.shape,
                    dtype=dtype,
                    voxel_size=self.voxel_size,
                    offset=self.plan.box.start,
                    overwrite=True,
                ).discard()
            except VolumeFormatError:
                if number == len(_FINAL_DTYPES):
                    raise
            else:
                return dtype
        raise AssertionError

    def create(self) -> None:
        """Make the empty volume, unless it is there from an earlier start of the same run.

        Several processes may do so at once.

        Raises
        ------
        RunConflictError
            When what grows there is of another plan, or was removed.
        DestinationExistsError
            When something is at a remote destination that is not to be replaced.
        FloodemError
            Whatever `create_volume` refuses.
        """
        place = self.place()
        if place in (Place.PLACING, Place.PLACED):
            return
        if place is Place.GROWING:
            if not self._has_target():
                raise RunConflictError(
                    f"{self._shown_target} was begun and is gone: begin again with --overwrite, "
                    "or choose another destination"
                )
            return
        if self.location.is_remote:
            self._create_remote()
        elif not self._has_target():
            with contextlib.suppress(DestinationExistsError):  # another process was faster
                create_volume(self.target, **self._facts()).close()
            self._has_target()
        Whereabouts(place=Place.GROWING).write(self.work, only_new=True)

    def place(self) -> Place:
        """Return where the labels are.

        Raises
        ------
        RunConflictError
            When the run's folder does not say it any more.
        """
        return Whereabouts.read(self.work).place

    def _facts(self) -> dict[str, Any]:
        return {
            "shape": self.plan.box.shape,
            "dtype": LABEL_DTYPE,
            "voxel_size": self.voxel_size,
            "offset": self.plan.box.start,
            "chunks": self.chunks,
            "shards": self.shards,
            "levels": self.factors,
            "kind": Kind.LABELS,
        }

    def _create_remote(self) -> None:
        """Make the volume in place; what is to be replaced is removed once, by one process."""
        store, name = open_store(self.work), uuid.uuid4().hex.encode()
        if store.read(_CLAIM) is None:
            # By others than starters of this run, who would have left their claim.
            is_foreign = not self.replaces and is_taken(self.uri) and store.read(_CLAIM) is None
            if is_foreign:
                raise DestinationExistsError(
                    f"{self.location.uri} exists already and no run of floodem made it: choose "
                    "another destination or --overwrite"
                )
            if store.write(_CLAIM, name, only_new=True) and self.replaces:
                empty_remote(self.location)
                store.write(_CLAIM, b"")
        if self.replaces:
            self._wait_until_empty()
        create_volume(self.target, **self._facts(), is_shared=True).close()
        self._has_target()

    def _wait_until_empty(self) -> None:
        store, begun = open_store(self.work), time.monotonic()
        while store.read(_CLAIM):
            if time.monotonic() - begun > remote_deadline_s():
                # Whoever began is gone: only the holder of the run's lease gets here.
                empty_remote(self.location)
                store.write(_CLAIM, b"")
                return
            time.sleep(_ASKED_EVERY_S)

    def _has_target(self) -> bool:
        try:
            with open_volume(self.target, writable=True) as volume:
                self._require_ours(volume)
        except VolumeNotFoundError:
            return False
        return True

    def _require_ours(self, volume: Volume) -> None:
        ours = (self.plan.box, LABEL_DTYPE, 1 + len(self.factors))
        is_ours = (volume.box, volume.dtype, len(volume.levels)) == ours
        if not is_ours or not are_whole(volume.chunks, self.plan):
            raise RunConflictError(
                f"{self._shown_target} holds {volume.box} {volume.dtype} in chunks of "
                f"{volume.chunks} (z,y,x), not {self.plan.box} {LABEL_DTYPE} in blocks of "
                f"{self.plan.core}: begin again with --overwrite, or choose another destination"
            )

    @property
    def _shown_target(self) -> str:
        return str(self.growing or self.location.uri)


def _chunk_count(plan: BlockPlan) -> int:
    return math.prod(
        -(-size // edge) for size, edge in zip(plan.box.shape, chunks_of(plan), strict=True)
    )
