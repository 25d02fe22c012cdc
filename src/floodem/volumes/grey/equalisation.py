"""Even contrast over an image: a volume or a section in, the same equalised as in ImageJ out.

Each section (y, x) stands for itself. A volume is converted (see
`floodem.volumes.conversion`) as `floodem.volumes.grey.equalised` shows it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from floodem.errors import OptionError, StoppedError, VolumeFormatError
from floodem.geometry import Box, Zyx
from floodem.progress import Progress, ProgressListener
from floodem.volumes.access import open_volume
from floodem.volumes.conversion.convert import make_copy
from floodem.volumes.conversion.plan import ConversionOptions
from floodem.volumes.conversion.result import Conversion
from floodem.volumes.grey.equalised import EqualisedVolume, Part, equalise_part
from floodem.volumes.grey.tables import Rule, Section
from floodem.volumes.kinds import looks_like_labels
from floodem.volumes.parallel import usable_threads
from floodem.volumes.volume import Array, Kind, Volume

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
    _require_range(value_range, dtype=section.dtype)
    if value_range is None and low == high:
        return section.copy()
    rule = Rule(block=block, bins=bins, slope=slope, low=low, high=high, spacing=spacing or 0)
    result = np.empty_like(section, order="C")
    equalise_part(Part(section, (0, 0), (0, 0), section.shape, result), rule)
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
    pyramid: int | Literal["auto"] | None = None,
    kind: Kind | None = None,
    channel: int | None = None,
    level: int = 0,
    axes: str | None = None,
    allow_external: bool = False,
    overwrite: bool = False,
    threads: int | None = None,
    progress: ProgressListener | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Conversion:
    """Equalise the contrast of every section of an image (see `clahe_section`).

    This is a conversion (see `floodem.volumes.convert`) of the image as it is with
    even contrast: it is verified, leaves receipts, and goes on after a stop. The
    copy keeps voxel size, offset and type. It is the same whatever the box, the
    blocks and the number of threads: windows look beyond the box. Memory stays
    bounded by a few blocks. When anything fails, what was at the destination
    before is still there.

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
    chunks, pyramid
        Of the destination, as for `convert`.
    kind
        `Kind.IMAGE` insists that the source is an image where it looks like labels.
    channel, level, axes, allow_external
        As for `open_volume`, when the source is an address.
    overwrite
        Replace what is there, once the copy is complete.
    threads
        By default one for each core that this process may use.
    progress
        Called after every block, in voxels over all steps.
    should_stop
        Asked after every block; when it answers True the work ends with `StoppedError`.

    Raises
    ------
    GeometryError
        When the box is not inside the source.
    OptionError
        When an option has an impossible value.
    VolumeFormatError
        When the source is no image of 8 or 16 bits.
    StoppedError
        When `should_stop` said so.
    FloodemError
        Whatever `open_volume`, `create_volume` and `convert` refuse.
    """
    Rule(block=block, bins=bins, slope=slope)
    workers = usable_threads(threads)

    def hear(report: Progress) -> None:
        if progress is not None:
            progress(report)
        if should_stop():
            raise StoppedError("stopped while the range was sought: run the same command again")

    with contextlib.ExitStack() as opened:
        if not isinstance(source, Volume):
            source = opened.enter_context(
                open_volume(
                    source, channel=channel, level=level, axes=axes, allow_external=allow_external
                )
            )
        _require_image(source, kind=kind)
        _require_range(value_range, dtype=source.dtype)
        equalised = opened.enter_context(
            EqualisedVolume(
                source,
                block=block,
                bins=bins,
                slope=slope,
                value_range=value_range,
                threads=workers,
                progress=hear,
            )
        )
        return make_copy(
            equalised,
            destination,
            options=ConversionOptions(box=box, chunks=chunks, pyramid=pyramid),
            origin={"axes": axes, "channel": channel, "level": level},
            threads=workers,
            overwrite=overwrite,
            progress=progress,
            should_stop=should_stop,
            let_go=opened.close,
        )


def _require_image(source: Volume, *, kind: Kind | None) -> None:
    """Refuse labels, unless it is insisted that they are an image, and what is no grey value."""
    is_labels = kind is Kind.LABELS or (kind is None and looks_like_labels(source))
    if is_labels and is_grey(source.dtype):
        verb = "holds" if kind or source.kind else "looks like"
        raise VolumeFormatError(
            f"{source.uri} {verb} labels ({source.dtype}), which have no contrast: name the image, "
            "or say --kind image if it is one"
        )
    if is_labels:
        raise VolumeFormatError(
            f"{source.uri} holds {source.dtype}, which are numbers of objects rather than grey "
            "values: name the image, or bring it to 8 bits first if it is one, as in "
            "floodem convert --kind image --window LOW,HIGH --dtype uint8"
        )
    _require_grey(source.dtype, uri=source.uri)


def _require_range(value_range: tuple[int, int] | None, *, dtype: np.dtype[Any]) -> None:
    limits = np.iinfo(dtype)
    if value_range is None:
        return
    low, high = value_range
    Rule(low=low, high=high)
    if low < limits.min or high > limits.max:
        raise OptionError(
            f"the range {low} to {high} is not within {dtype}, which holds {limits.min} to "
            f"{limits.max}: give two values in it"
        )


def is_grey(dtype: np.dtype[Any]) -> bool:
    """Tell whether values of a type can be equalised: integers of 8 or 16 bits."""
    return dtype.kind in "ui" and dtype.itemsize <= _MAX_ITEMSIZE


def _require_grey(dtype: np.dtype[Any], *, uri: str) -> None:
    if not is_grey(dtype):
        raise VolumeFormatError(
            f"{uri} holds {dtype}, and histograms are equalised of grey values of 8 or 16 bits: "
            "bring it to 8 bits first, as in floodem convert --window LOW,HIGH --dtype uint8"
        )


def _range_of(section: Array) -> tuple[int, int]:
    if section.dtype == np.uint8:
        return 0, int(np.iinfo(np.uint8).max)
    return int(section.min()), int(section.max())
