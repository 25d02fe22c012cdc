"""Shifts between neighbouring sections: an image in, a field that segment takes as a mask out.

The field has two channels, the shift of the next section along x and along y in voxels of
the image's finest level (int16), and one voxel for each square of so many voxels in a
section. Its blocks are tasks with receipts in ``DST.floodem``: whoever is stopped goes on
with the same command.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int16

from floodem.assembly.level_ratio import level_ratio
from floodem.assembly.run_record import RECEIPTS, RunRecord, image_identity, is_taken
from floodem.assembly.sources import close_sources, read_image
from floodem.cluster import ALONE, Crew, Task, run_tasks
from floodem.cluster.holding import holding
from floodem.errors import DestinationExistsError, OptionError, VolumeFormatError
from floodem.flooding.run_folder import RunStatus
from floodem.geometry import Box, VoxelSize, Zyx, tiles
from floodem.memory import require_memory
from floodem.progress import Progress, ProgressListener
from floodem.project.matching import FILTER_MARGIN, Matching
from floodem.project.shift_blocks import PairCounts, ShiftBlock
from floodem.volumes import create_volume, open_volume
from floodem.volumes.chunked.creation import empty_remote, put_into_place
from floodem.volumes.location import Location, parse_location, require_format
from floodem.volumes.pyramid_geometry import level_box, level_voxel_size
from floodem.volumes.source import VolumeSource
from floodem.volumes.volume import Kind, Volume

METHOD_VERSION = 1
"""Of the method: fields of another one are not mixed with this one's."""

BLOCK_SECTIONS = 16
BLOCK_VOXELS = 1024
MOST_SQUARES = 64
"""A task takes so many sections, and squares of about so many voxels, or fewer of them."""

_X, _Y = 0, 1
"""Channels of the field, as `floodem.flooding.masks.shift` reads them."""

_LARGEST = int(np.iinfo(np.int16).max)
_STAGE = "measuring shifts"
_FOUR_BYTES, _SPECTRA, _MAPS, _SECTION_ARRAYS = 4, 6, 14, 24
"""Arrays that a task holds at once; see `_required_bytes`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShiftField:
    """Shifts between the sections of an image, measured and written.

    Attributes
    ----------
    uri
        Where the field is.
    box
        Its voxels; (z, y, x) lies over the image's voxels (z, s * y, s * x) and on.
    scale
        s, in voxels of the finest level.
    step
        Voxels of the finest level in the smallest shift that was looked for.
    matching
        How patches were compared, in voxels of the level that was looked at.
    pairs
        What became of each section and the next one, by the field's z.
    was_finished
        Whether an earlier call had done all the work.
    """

    uri: str
    box: Box
    scale: int
    step: int
    matching: Matching
    pairs: Mapping[int, PairCounts]
    was_finished: bool


def measure_shifts(
    image: VolumeSource,
    destination: str,
    *,
    matching: Matching | None = None,
    overwrite: bool = False,
    crew: Crew = ALONE,
    progress: ProgressListener | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> ShiftField:
    """Measure by how much sections are shifted, or go on with a run that was stopped.

    Parameters
    ----------
    image
        A coarser level takes a quarter of the time or less; its sections must be those
        of the finest level, and its shifts are as many voxels apart as it is coarser.
    destination
        Address of the field: a chunked format that has channels (zarr, precomputed).

    Raises
    ------
    OptionError, GeometryError
        When the level or the options do not fit the image.
    VolumeFormatError
        When the destination's format has no channels.
    DestinationExistsError
        When something else is at the destination.
    RunConflictError
        When it was begun with another image or options, or another process works there.
    ShardDoneError
        When this shard's part is done and others are still at theirs.
    StoppedError
        When it was told to stop; the same call goes on.
    """
    run = _prepare(image, destination, Matching() if matching is None else matching)
    record = RunRecord(destination)
    with holding(record.address, crew=crew, what=record.destination, should_stop=should_stop):
        if overwrite:
            record.clear(crew=crew)
            run.forget()
        stated = record.begin(run.identity, plan=run.plan, about={}, replaces=overwrite)
        was_finished = record.summary() is not None
        if stated["status"] in (RunStatus.BEGUN, RunStatus.REPLACING):
            run.create()
            record.state(RunStatus.WRITING)
        try:
            results = run_tasks(
                measure_block,
                run.tasks(),
                receipts=f"{record.address}/{RECEIPTS}shifts",
                identity={**run.identity, **run.plan},
                crew=crew,
                progress=lambda done, total: _tell(progress, done, total),
                should_stop=should_stop,
            )
        finally:
            close_sources()
        run_tasks(
            put_in_place,
            [Task(key="field", argument=_FinishTask(run=run, replaces=stated["replaces"]))],
            receipts=f"{record.address}/{RECEIPTS}place",
            identity={**run.identity, **run.plan},
            crew=Crew(shard=crew.shard),
            takes_rest=True,
        )
        if not was_finished:
            record.state(RunStatus.DONE, summary={"sections": run.box.shape[0]})
    return ShiftField(
        uri=destination,
        box=run.box,
        scale=run.scale,
        step=run.step,
        matching=run.matching,
        pairs=_added(results),
        was_finished=was_finished,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _BlockTask:
    """One block of a field; it can be sent to other processes."""

    image: VolumeSource
    image_box: Box
    target: str
    core: Box
    matching: Matching
    step: int


def measure_block(task: _BlockTask) -> dict[str, Any]:
    """Measure and write one block of a field.

    Returns
    -------
    dict
        ``pairs``: for each of its sections z and the counts (`PairCounts.to_json`).

    Raises
    ------
    FloodemError
        When the image cannot be read, or the field not be written.
    """
    block = ShiftBlock(
        read=lambda box: read_image(task.image, box),
        image_box=task.image_box,
        core=task.core,
        matching=task.matching,
    )
    shifts, counts = block.measure()
    _write(task.target, task.core, shifts * np.int16(task.step))
    sections = range(task.core.start[0], task.core.stop[0])
    return {"pairs": [[z, one.to_json()] for z, one in zip(sections, counts, strict=True)]}


def _write(target: str, core: Box, shifts_yx: Int16[np.ndarray, "2 z y x"]) -> None:
    for channel, component in ((_Y, shifts_yx[0]), (_X, shifts_yx[1])):
        with open_volume(target, channel=channel, writable=True) as volume:
            volume.write(core, component)


@dataclass(frozen=True, slots=True, kw_only=True)
class _FinishTask:
    run: _Run
    replaces: bool


def put_in_place(task: _FinishTask) -> dict[str, Any]:
    """Let a complete field take its place."""
    task.run.finish(replaces=task.replaces)
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """What one run does, as plain values.

    `voxel_size` is that of a voxel of the field.
    """

    image: VolumeSource
    image_box: Box
    uri: str
    work: str
    box: Box
    voxel_size: VoxelSize | None
    matching: Matching
    step: int
    identity: Mapping[str, Any]

    @property
    def location(self) -> Location:
        return parse_location(self.uri)

    @property
    def scale(self) -> int:
        return self.matching.stride * self.step

    @property
    def core(self) -> Zyx:
        squares = min(MOST_SQUARES, max(1, BLOCK_VOXELS // self.matching.stride))
        return (BLOCK_SECTIONS, squares, squares)

    @property
    def plan(self) -> dict[str, Any]:
        return {"box": str(self.box), "block": list(self.core)}

    @property
    def growing(self) -> Path | None:
        """Where a local field grows; None: in place, on a server."""
        location = self.location
        return None if location.is_remote else Path(self.work) / f"shifts.{location.format}"

    @property
    def target(self) -> str:
        """The address that tasks write to."""
        growing = self.growing
        return self.uri if growing is None else f"{self.location.format}://{growing}"

    def tasks(self) -> list[Task]:
        cores = [tile.core for tile in tiles(self.box, core=self.core)]
        return [
            Task(
                key=f"{number:06}",
                argument=_BlockTask(
                    image=self.image,
                    image_box=self.image_box,
                    target=self.target,
                    core=core,
                    matching=self.matching,
                    step=self.step,
                ),
            )
            for number, core in enumerate(cores)
        ]

    def create(self) -> None:
        """Make the empty field, unless another shard was faster."""
        with contextlib.suppress(DestinationExistsError):
            create_volume(
                self.target,
                shape=self.box.shape,
                dtype=np.int16,
                voxel_size=self.voxel_size,
                offset=self.box.start,
                chunks=self.core,
                channels=2,
                kind=Kind.IMAGE,
            ).close()

    def forget(self) -> None:
        """Remove what an earlier run has made."""
        if self.growing is not None:
            shutil.rmtree(self.growing, ignore_errors=True)
        elif is_taken(self.uri):
            empty_remote(self.location)

    def finish(self, *, replaces: bool) -> None:
        if self.growing is not None and self.growing.exists():
            put_into_place(self.growing, self.location, overwrite=replaces)


def _prepare(image: VolumeSource, destination: str, matching: Matching) -> _Run:
    """Check everything before anything is written."""
    location = parse_location(destination)
    options = require_format(location).options
    if "channels" not in options:
        raise VolumeFormatError(
            f"{location.uri}: {location.format} volumes have no room for the two channels of a "
            "shift field: choose zarr or precomputed"
        )
    with image.open() as volume:
        step = _step(volume, image)
        if step * matching.lost > _LARGEST:
            raise OptionError(
                f"shifts up to {step * matching.lost} voxels do not fit into 16 bits: give a "
                "smaller search or a finer level"
            )
        edge = (1, matching.stride, matching.stride)
        require_memory(
            needed_bytes=_required_bytes(matching),
            purpose=f"comparing patches of {matching.patch} voxels",
            remedy="give a smaller patch or search",
        )
        return _Run(
            image=image,
            image_box=volume.box,
            uri=destination,
            work=RunRecord(destination).address,
            box=level_box(volume.box, edge),
            voxel_size=level_voxel_size(volume.voxel_size, edge),
            matching=matching,
            step=step,
            identity={
                "kind": "shifts",
                "method": METHOD_VERSION,
                "level": image.level,
                "image": image_identity(volume, box=volume.box, voxel_size=volume.voxel_size),
                **asdict(matching),
            },
        )


def _step(volume: Volume, image: VolumeSource) -> int:
    """Return how many voxels of the finest level lie along y and x of the level looked at."""
    z, y, x = level_ratio(volume, level=image.level)
    if z != 1 or y != x:
        raise OptionError(
            f"level {image.level} of {image.uri} is {z},{y},{x} times (z,y,x) as coarse as the "
            "finest: shifts between sections need a level with all sections, equally coarse along "
            "y and x"
        )
    return y


def _required_bytes(matching: Matching) -> int:
    """Return about how much a task holds: a row of blocks in all its spectra and maps."""
    squares = min(MOST_SQUARES, max(1, BLOCK_VOXELS // matching.stride))
    columns = squares + 2 * matching.reach + 2
    spectra = _SPECTRA * (matching.stride + 2 * matching.search) ** 2
    maps = (_MAPS + _SPECTRA * (2 * matching.reach + 1)) * (2 * matching.search + 1) ** 2
    edge = (squares + 2) * matching.stride + 2 * (matching.margin + FILTER_MARGIN)
    return _FOUR_BYTES * (columns * (spectra + maps) + _SECTION_ARRAYS * edge**2)


def _added(results: Sequence[Mapping[str, Any]]) -> dict[int, PairCounts]:
    pairs: dict[int, PairCounts] = {}
    for result in results:
        for z, values in result["pairs"]:
            counts = PairCounts.from_json(values)
            pairs[z] = pairs[z] + counts if z in pairs else counts
    return pairs


def _tell(progress: ProgressListener | None, done: int, total: int) -> None:
    if progress is not None:
        progress(Progress(stage=_STAGE, done=done, total=total, unit="blocks"))
