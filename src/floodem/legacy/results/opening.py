"""A folder of old results becomes one volume with its origins.

In: what the older programs wrote, in either layout. Out: labels (uint64) in any format,
and in ``DST.floodem`` beside them the receipts of the copy and origins.json,
overlaps.json as `floodem segment` writes them, and subvolumes.json, which says which
subvolume got which ids.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from floodem.counting import counted
from floodem.errors import GeometryError, VolumeNotFoundError
from floodem.flooding.results import ORIGINS_VERSION
from floodem.flooding.run_folder import ORIGINS, OVERLAPS
from floodem.geometry import Box, VoxelSize, Zyx
from floodem.legacy.results.merged import MergedResults, locate
from floodem.legacy.results.paths import SubvolumeFile, corner_of, find_subvolumes
from floodem.legacy.results.placement import uncovered
from floodem.progress import ProgressListener
from floodem.volumes.conversion.convert import convert
from floodem.volumes.servers.transport import open_store

SUBVOLUMES = "subvolumes.json"
_UNKNOWN_END = "unknown"
_MOST_EMPTY = 1000
"""How many times as large as its subvolumes a volume may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedResults:
    """What became of a folder of old results.

    Attributes
    ----------
    uri
        Address of the volume.
    box
        Where it lies, z, y, x.
    record
        Address of the folder beside it.
    subvolumes
        How many of them reach into it.
    segments, origins
        How many segments have voxels in it, and of how many it is known where they began.
    was_finished
        Whether an earlier call had made all of it.
    notices
        What a user should know about it.
    """

    uri: str
    box: Box
    record: str
    subvolumes: int
    segments: int
    origins: int
    was_finished: bool
    notices: tuple[str, ...]


def open_results(
    source: str | Path,
    destination: str | Path,
    *,
    box: Box | None = None,
    voxel_size: VoxelSize | None = None,
    chunks: Zyx | None = None,
    pyramid: int | Literal["auto"] | None = None,
    threads: int | None = None,
    overwrite: bool = False,
    progress: ProgressListener | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> OpenedResults:
    """Turn old results into one volume of labels with its origins.

    Ids are made unique over subvolumes as `floodem.legacy.results.merged` says; those of
    a single subvolume stay. Where subvolumes overlap, a voxel comes from the one whose
    centre is nearest. Segments that meet at such a border keep different ids.

    Parameters
    ----------
    source
        Folder of results, in either layout, or one npz file.
    destination
        Address of the volume; ending or prefix tell the format.
    box
        The part to open, z, y, x, in the frame of the subvolumes' names.
    voxel_size
        In nanometres; old results do not say it.
    chunks, pyramid, threads, overwrite, progress, should_stop
        As for `floodem.volumes.convert`.

    Raises
    ------
    VolumeNotFoundError
        When there is no result.
    GeometryError
        When the box lies outside of all of them.
    StoppedError
        When `should_stop` said so; the same call goes on.
    DestinationExistsError
        When something is at the destination and `overwrite` is not set.
    FloodemError
        When a file is damaged, or whatever `convert` refuses.
    """
    found, notices = _find(Path(source))
    merged = MergedResults(
        [locate(file) for file in found],
        part=box,
        uri=f"results://{Path(source).absolute()}",
        voxel_size=voxel_size,
        progress=progress,
        should_stop=should_stop,
    )
    with merged:
        _require_near(merged)
        merged.require_records()
        made = convert(
            merged,
            destination,
            box=box,
            chunks=chunks,
            pyramid=pyramid,
            threads=threads,
            overwrite=overwrite,
            progress=progress,
            should_stop=should_stop,
        )
        origins = _write_record(merged, made.record)
        inside = len(merged.places.near(merged.part))
        return OpenedResults(
            uri=made.uri,
            box=merged.part,
            record=made.record,
            subvolumes=inside,
            segments=len(merged.tally().voxels),
            origins=origins,
            was_finished=made.was_finished,
            notices=(
                *notices,
                *made.notices,
                *_notices(merged, subvolumes=inside, origins=origins),
            ),
        )


def _find(source: Path) -> tuple[list[SubvolumeFile], list[str]]:
    if source.is_dir():
        found = find_subvolumes(source)
        hidden = [file.hidden for file in found if file.hidden is not None]
        if hidden:
            note = (
                f"{counted(len(hidden), 'result')} of the flat layout, {hidden[0]} first, have "
                "another of the same corner in folders, which was taken"
            )
            return found, [note]
        return found, []
    if not source.is_file():
        raise VolumeNotFoundError(
            f"there is no {source}: give the folder that the older program wrote its results to, "
            "or one npz file"
        )
    corner = corner_of(source)
    file = SubvolumeFile(path=source, corner=corner or (0, 0, 0))
    if corner is not None:
        return [file], []
    return [file], [f"the name of {source} tells no corner: it was put at 0,0,0"]


def _require_near(merged: MergedResults) -> None:
    """Refuse a part that meets no subvolume, or is all but empty.

    Raises
    ------
    GeometryError
        Saying where the subvolumes lie.
    """
    part, places = merged.part, merged.places
    near = places.near(part)
    if not near:
        raise GeometryError(
            f"box {part} meets no subvolume of {merged.uri}, which lie in {merged.box} (z,y,x): "
            "choose a box in there"
        )
    held = sum(places.boxes[number].size for number in near)
    if part.size > _MOST_EMPTY * held:
        raise GeometryError(
            f"box {part} would be all but empty: {counted(len(near), 'subvolume')} in it, the "
            f"first at {places.boxes[near[0]]} (z,y,x); open them one by one, with --box"
        )


def _write_record(merged: MergedResults, record: str) -> int:
    """Write what is known about the segments beside the volume; return how many have origins."""
    tally, store = merged.tally(), open_store(record)
    origins: dict[int, Any] = {
        segment: {
            "start_zyx": list(info.start_zyx),
            "iters": info.iters,
            "seconds": round(info.walltime_sec, 3),
            "voxels": voxels,
            "end": _UNKNOWN_END,
        }
        for segment, voxels, info in merged.origins()
    }
    subvolumes = [
        {
            "file": str(piece.file.path),
            "box": str(piece.box),
            "added_to_ids": before,
        }
        for piece, before in zip(merged.pieces, tally.before, strict=True)
    ]
    for name, values in (
        (SUBVOLUMES, {"subvolumes": subvolumes}),
        (OVERLAPS, {"overlaps": dict(merged.overlaps())}),
        (ORIGINS, {"origins": origins}),
    ):
        text = json.dumps({"version": ORIGINS_VERSION, **values}, indent=1) + "\n"
        store.write(name, text.encode())
    return len(origins)


def _notices(merged: MergedResults, *, subvolumes: int, origins: int) -> list[str]:
    said = []
    if subvolumes > 1:
        said.append(
            f"{subvolumes} subvolumes were put together by the nearest centre and their segments "
            "are not joined: each has its own ids, see " + SUBVOLUMES
        )
    empty = uncovered(merged.part, merged.places.boxes)
    if empty:
        said.append(f"{counted(empty, 'voxel')} of {merged.part} lie in no subvolume and are 0")
    without = len(merged.tally().voxels) - origins
    if without:
        said.append(f"{counted(without, 'segment')} have no origin in the files")
    if merged.voxel_size is None:
        said.append("old results do not say their voxel size: give it with --voxel-size")
    return said
