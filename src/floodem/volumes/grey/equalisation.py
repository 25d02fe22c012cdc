"""Even contrast over an image: a volume or a section in, the same equalised as in ImageJ out.

Each section (y, x) stands for itself. The rule is in `floodem.volumes.grey.tables`;
here a volume is read, equalised and written block by block.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from floodem.errors import GeometryError, VolumeFormatError
from floodem.geometry import Box, Zyx, tiles
from floodem.progress import Progress, ProgressListener
from floodem.volumes.access import create_volume, open_volume
from floodem.volumes.conversion.block_reading import Reader
from floodem.volumes.grey.reading import grey_blocks, grey_reader
from floodem.volumes.grey.tables import Rule, Section, Span, equalise
from floodem.volumes.parallel import in_order, usable_threads
from floodem.volumes.volume import Array, Kind, Volume

BLOCKS_HELD = 3
"""One is read, one is equalised, one is written."""

_TILE = 512
"""Edge of what is equalised at a time: its tables take a few megabytes."""

_MAX_ITEMSIZE = 2


def clahe_section(
    section: Section,
    *,
    block: int = 127,
    bins: int = 256,
    slope: float = 1.5,
    value_range: tuple[int, int] | None = None,
    spacing: int | None = None,
) -> Section:
    """Equalise the contrast of one section, as ImageJ's "Enhance Local Contrast (CLAHE)" does.

    Parameters
    ----------
    section
        Grey values (y, x) of 8 or 16 bits.
    block
        Edge of the window that decides about a pixel, odd, in pixels; cut at the
        section's border. A block larger than the section is allowed.
    bins
        Of the window's histogram, at most 256.
    slope
        How much the contrast may grow at most.
    value_range
        Darkest and brightest value that the bins span; values beyond become
        these. By default 0 to 255 for uint8, else the section's own.
    spacing
        Pixels between two points of the grid of tables; 1 is exact and slow. By
        default a tenth of the block.

    Returns
    -------
    numpy.ndarray
        New values (y, x) of the same type. Where all pixels are alike and bins of
        one value are not cut (a very large slope), they keep their value.

    Raises
    ------
    OptionError
        When an option has an impossible value.
    VolumeFormatError
        When the type is not an integer of 8 or 16 bits.

    Notes
    -----
    16-bit values lie between two bins and get the value between the two new
    ones. ImageJ scales them by the ratio of two 8-bit values instead, which
    leaves steps at the bins' borders; its bins span the displayed range.
    """
    _require_grey(section.dtype, uri="this section")
    if section.size == 0:
        return section.copy()
    low, high = _range_of(section) if value_range is None else value_range
    if value_range is None and low == high:
        return section.copy()
    rule = Rule(block=block, bins=bins, slope=slope, low=low, high=high, spacing=spacing or 0)
    result = np.empty_like(section, order="C")
    _equalise_part(_Part(section, (0, 0), (0, 0), section.shape, result), rule)
    return result


def clahe(
    source: Volume | str | Path,
    destination: str | Path,
    *,
    block: int = 127,
    bins: int = 256,
    slope: float = 1.5,
    value_range: tuple[int, int] | None = None,
    box: Box | None = None,
    chunks: Zyx | None = None,
    channel: int | None = None,
    level: int = 0,
    axes: str | None = None,
    allow_external: bool = False,
    overwrite: bool = False,
    threads: int | None = None,
    progress: ProgressListener | None = None,
) -> None:
    """Equalise the contrast of every section of an image (see `clahe_section`).

    The copy keeps voxel size, offset and type. It is the same whatever the box,
    the blocks and the number of threads: windows look beyond the box. Memory
    stays bounded by a few blocks. When anything fails, what was at the
    destination before is still there.

    Parameters
    ----------
    source
        An open volume, which stays open, or an address.
    destination
        Address of the new volume; ending or prefix tell the format.
    block, bins, slope
        As for `clahe_section`.
    value_range
        Darkest and brightest value that the bins span. By default 0 to 255 for
        uint8, else those of the whole volume, which is then read twice.
    box
        The part to equalise, in the source's frame (z, y, x; offset included).
    chunks
        Of the destination, z, y, x.
    channel, level, axes, allow_external
        As for `open_volume`, when the source is an address.
    overwrite
        Replace what is there, once the copy is complete.
    threads
        By default one for each core that this process may use.
    progress
        Called after every block, in voxels.

    Raises
    ------
    GeometryError
        When the box is not inside the source.
    OptionError
        When an option has an impossible value.
    VolumeFormatError
        When the source is no image of 8 or 16 bits.
    FloodemError
        Whatever `open_volume` and `create_volume` refuse.
    """
    Rule(block=block, bins=bins, slope=slope)
    workers = usable_threads(threads)
    with contextlib.ExitStack() as stack:
        if not isinstance(source, Volume):
            source = stack.enter_context(
                open_volume(
                    source, channel=channel, level=level, axes=axes, allow_external=allow_external
                )
            )
        _require_grey(source.dtype, uri=source.uri)
        if source.kind is Kind.LABELS:
            raise VolumeFormatError(f"{source.uri} holds labels, not an image: name the image")
        part = source.box if box is None else box
        if not source.box.contains(part) or part.size == 0:
            raise GeometryError(
                f"box {part} is empty or not inside {source.uri}, which holds {source.box} "
                "(z,y,x): choose a box in it"
            )
        low, high = value_range or _range_of_volume(source, threads=workers, progress=progress)
        rule = None
        if value_range is not None or low != high:
            rule = Rule(block=block, bins=bins, slope=slope, low=low, high=high)
        copy = create_volume(
            destination,
            shape=part.shape,
            dtype=source.dtype,
            voxel_size=source.voxel_size,
            offset=part.start,
            chunks=chunks,
            kind=Kind.IMAGE,
            overwrite=overwrite,
        )
        try:
            _equalise_blocks(source, copy, rule=rule, threads=workers, progress=progress)
            # The copy may take the place of the source, and an open file keeps its place.
            stack.close()
            copy.close()
        except BaseException:
            copy.discard()
            raise


def _require_grey(dtype: np.dtype[Any], *, uri: str) -> None:
    if dtype.kind not in "ui" or dtype.itemsize > _MAX_ITEMSIZE:
        raise VolumeFormatError(
            f"{uri} holds {dtype}, and histograms are equalised of grey values of 8 or 16 bits: "
            "bring it to 8 bits first, as in floodem convert --window LOW,HIGH --dtype uint8"
        )


def _range_of(section: Array) -> tuple[int, int]:
    if section.dtype == np.uint8:
        return 0, int(np.iinfo(np.uint8).max)
    return int(section.min()), int(section.max())


def _range_of_volume(
    volume: Volume, *, threads: int, progress: ProgressListener | None
) -> tuple[int, int]:
    """Return what the bins span: of the whole volume, so that every box of it gets the same."""
    if volume.dtype == np.uint8:
        return 0, int(np.iinfo(np.uint8).max)
    from floodem.volumes.grey.statistics import statistics

    found = statistics(volume, threads=threads, progress=progress)
    assert found.minimum is not None
    assert found.maximum is not None
    return int(found.minimum), int(found.maximum)


@dataclass(frozen=True, slots=True)
class _Part:
    """A rectangle of a section to be equalised, and the pixels around it.

    Attributes
    ----------
    pixels
        What was read of the section (y, x).
    origin
        Where its first pixel lies in the section.
    start
        Where the first pixel of `result` lies in the section.
    shape
        Of the whole section.
    result
        Where the new values go.
    """

    pixels: Array
    origin: tuple[int, int]
    start: tuple[int, int]
    shape: tuple[int, ...]
    result: Array


def _equalise_part(part: _Part, rule: Rule | None) -> None:
    (top, left), (y0, x0) = part.origin, part.start
    height, width = part.result.shape
    if rule is None:
        part.result[...] = part.pixels[y0 - top :, x0 - left :][:height, :width]
        return
    for y, x in itertools.product(range(0, height, _TILE), range(0, width, _TILE)):
        ys = (y0 + y, y0 + min(y + _TILE, height))
        xs = (x0 + x, x0 + min(x + _TILE, width))
        spans = (
            Span.around(*ys, length=part.shape[0], rule=rule),
            Span.around(*xs, length=part.shape[1], rule=rule),
        )
        (above, below), (before, behind) = spans[0].reach, spans[1].reach
        part.result[y : y + _TILE, x : x + _TILE] = equalise(
            part.pixels[above - top : below - top, before - left : behind - left],
            ys,
            xs,
            spans=spans,
            rule=rule,
        )


def _equalise_blocks(
    source: Volume,
    copy: Volume,
    *,
    rule: Rule | None,
    threads: int,
    progress: ProgressListener | None,
) -> None:
    report = progress or (lambda _: None)
    # Read with what the windows cover beside it, and written.
    core, held = grey_blocks(
        source,
        copy.shape,
        chunks=copy.chunks,
        voxel_bytes=2 * source.dtype.itemsize,
        wanted=BLOCKS_HELD,
    )
    done, total = 0, copy.box.size

    def blocks() -> Iterator[tuple[Box, Array, Iterator[_Part]]]:
        for tile in tiles(copy.box, core=core):
            result = np.empty(tile.core.shape, source.dtype)
            yield tile.core, result, _parts(reader, tile.core, result=result, rule=rule)

    def parts() -> Iterator[tuple[_Part, tuple[Box, Array] | None]]:
        """Yield all sections of all blocks; with the last one of a block, the block itself."""
        for box, result, sections in blocks():
            last = box.shape[0] - 1
            for index, section in enumerate(sections):
                yield section, ((box, result) if index == last else None)

    def work(item: tuple[_Part, tuple[Box, Array] | None]) -> tuple[Box, Array] | None:
        _equalise_part(item[0], rule)
        return item[1]

    report(Progress(stage="clahe", done=0, total=total, unit="voxels"))
    with grey_reader(source, threads=threads) as reader:
        ahead = max(1, (held - 1) * core[0])
        for finished in in_order(work, parts(), threads=threads, ahead=ahead):
            # Results come in order, so the sections before the last one are finished too.
            if finished is not None:
                copy.write(*finished)
                done += finished[0].size
                report(Progress(stage="clahe", done=done, total=total, unit="voxels"))


def _parts(reader: Reader, box: Box, *, result: Array, rule: Rule | None) -> Iterator[_Part]:
    """Read a block with what its windows cover, and yield its sections."""
    source = reader.volume
    (_, oy, ox), (_, y0, x0), (_, y1, x1) = source.offset, box.start, box.stop
    _, height, width = source.shape
    ys, xs = (y0 - oy, y1 - oy), (x0 - ox, x1 - ox)
    if rule is not None:
        ys = Span.around(*ys, length=height, rule=rule).reach
        xs = Span.around(*xs, length=width, rule=rule).reach
    covered = Box(
        (box.start[0], ys[0] + oy, xs[0] + ox),
        (box.stop[0], ys[1] + oy, xs[1] + ox),
    )
    pixels = reader.read(covered)
    for section, new in zip(pixels, result, strict=True):
        yield _Part(section, (ys[0], xs[0]), (y0 - oy, x0 - ox), (height, width), new)
