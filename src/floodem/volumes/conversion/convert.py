"""Any volume to any format: two addresses in, a new volume and its record out, block by block.

A conversion is planned (`plan`), its blocks are written and receipted
(`steps`, `receipts`), read back and compared, and put into place. Chunked
stores and stacks that were stopped go on where they were.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from numpy.typing import DTypeLike

from floodem.geometry import Box, VoxelSize, Zyx
from floodem.progress import ProgressListener
from floodem.volumes.access import open_volume
from floodem.volumes.conversion.plan import ConversionOptions, make_plan
from floodem.volumes.conversion.recoding import Window
from floodem.volumes.conversion.result import Conversion
from floodem.volumes.conversion.run import Run
from floodem.volumes.volume import Kind, Volume

__all__ = ["Conversion", "Window", "convert"]


def convert(
    source: Volume | str | Path,
    destination: str | Path,
    *,
    box: Box | None = None,
    voxel_size: VoxelSize | None = None,
    offset: Zyx | None = None,
    dtype: DTypeLike | None = None,
    window: tuple[float, float] | None = None,
    relabel: bool = False,
    axes: str | None = None,
    channel: int | None = None,
    level: int = 0,
    chunks: Zyx | None = None,
    shards: Zyx | None = None,
    encoding: str | None = None,
    pyramid: int | Literal["auto"] | None = None,
    kind: Kind | None = None,
    threads: int | None = None,
    allow_external: bool = False,
    overwrite: bool = False,
    progress: ProgressListener | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Conversion:
    """Copy a volume, or a box of it, to another address and format, and check the copy.

    What is written gets receipts in ``DESTINATION.floodem``; at the end it is read
    back and compared with them. Chunked stores and stacks grow beside their place
    and appear when they are complete; after a stop the same call goes on. Other
    formats, which are written whole, begin again. When anything fails, what was at
    the destination before is still there (remote stores are written in place).

    All blocks in work together take at most 2 GiB, or half of the free memory if that
    is less, unless one chunk (shard, section) of the copy takes more.

    Parameters
    ----------
    source
        An open volume, which stays open, or an address.
    destination
        Address of the new volume; ending or prefix tell the format.
    box
        The part to copy, in the source's frame (z, y, x; offset included).
    voxel_size
        In nanometres, instead of the source's.
    offset
        Where the first voxel of the copy lies, instead of where it came from.
    dtype
        Another type of voxel. Values that do not fit are refused, never wrapped.
    window
        Grey levels (low, high) that become the full range of `dtype` (default
        uint8); what lies outside is clipped. For images.
    relabel
        Give the objects the numbers 1..n in the order of their ids, and the copy
        the smaller of uint32 and uint64 unless `dtype` says otherwise. The table
        is kept in ``DESTINATION.floodem/relabel.csv``.
    axes, channel, level, allow_external
        As for `open_volume`, when the source is an address.
    chunks, shards, encoding
        As for `create_volume`.
    pyramid
        How many coarser levels to add, or ``"auto"``; see
        `floodem.volumes.conversion.pyramid.level_factors`.
    kind
        Whether the values are an image, whose coarser levels are means, or labels
        (the most frequent value); by default what the source says, or its type.
    threads
        How many blocks are worked on at once; by default one for each core.
    overwrite
        Replace what is there once the copy is complete, and begin again where an
        earlier conversion was stopped.
    progress
        Called after every block, in voxels over all steps.
    should_stop
        Asked after every block; when it answers True the conversion ends with
        `StoppedError`.

    Raises
    ------
    GeometryError
        When the box is not inside the source.
    LabelError
        When values do not fit `dtype`.
    StoppedError
        When `should_stop` said so.
    RunConflictError
        When another process converts to the destination, or a stopped conversion
        there had another source or other options.
    StorageError
        When the file system refuses, or the copy read back is not what was written.
    FloodemError
        Whatever `open_volume` and `create_volume` refuse.
    """
    options = ConversionOptions(
        box=box,
        voxel_size=voxel_size,
        offset=offset,
        dtype=dtype,
        window=None if window is None else Window(*window),
        relabel=relabel,
        chunks=chunks,
        shards=shards,
        encoding=encoding,
        pyramid=pyramid,
        kind=kind,
    )
    with contextlib.ExitStack() as opened:
        if not isinstance(source, Volume):
            source = opened.enter_context(
                open_volume(
                    source, channel=channel, level=level, axes=axes, allow_external=allow_external
                )
            )
        return make_copy(
            source,
            destination,
            options=options,
            origin={"axes": axes, "channel": channel, "level": level},
            threads=threads,
            overwrite=overwrite,
            progress=progress,
            should_stop=should_stop,
            let_go=opened.close,
        )


def make_copy(
    source: Volume,
    destination: str | Path,
    *,
    options: ConversionOptions,
    origin: dict[str, Any],
    threads: int | None,
    overwrite: bool,
    progress: ProgressListener | None,
    should_stop: Callable[[], bool],
    let_go: Callable[[], None],
) -> Conversion:
    """Copy an open volume, or one whose voxels are computed when they are read; see `convert`.

    Parameters
    ----------
    origin
        How the source was opened: part of what a resumed run must have in common.
    let_go
        Closes the source before the copy is put into place, which may be its own: an
        open file keeps its place.
    """
    run = Run(
        make_plan(source, destination, options=options, origin=origin),
        threads=threads,
        overwrite=overwrite,
        progress=progress,
        should_stop=should_stop,
        let_go=let_go,
    )
    with run.record.hold():
        return run.make()
