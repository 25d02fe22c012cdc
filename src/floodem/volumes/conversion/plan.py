"""What a conversion will do, before it does anything: an open source and options in, a plan out.

Everything that can be refused without reading voxels is refused here.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike

from floodem.errors import FloodemError, GeometryError, LabelError, OptionError
from floodem.geometry import Box, VoxelSize, Zyx
from floodem.labels.relabel import label_dtype
from floodem.labels.runs import Ids, require_labels
from floodem.volumes.conversion.derived import DerivedVolume
from floodem.volumes.conversion.destination import (
    is_resumable,
    require_place,
    serves_threads,
    work_place,
)
from floodem.volumes.conversion.fingerprint import fingerprint
from floodem.volumes.conversion.notes import are_unstated_labels, label_note, unkept_notes
from floodem.volumes.conversion.pyramid import level_factors
from floodem.volumes.conversion.recoding import Recoding, Relabeling, Window, WindowRecoding
from floodem.volumes.declared import number_dtype
from floodem.volumes.location import Location, parse_location, require_format
from floodem.volumes.servers.addresses import without_secrets
from floodem.volumes.volume import Kind, Volume, likely_kind

AUTOMATIC: Literal["auto"] = "auto"

_LOSSY = frozenset({"jpeg"})
"""Encodings and formats that do not give back what they were given."""

_WINDOW_DTYPE = "uint8"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversionOptions:
    """What is asked of a conversion; see `floodem.volumes.conversion.convert.convert`."""

    box: Box | None = None
    voxel_size: VoxelSize | None = None
    offset: Zyx | None = None
    dtype: DTypeLike | None = None
    window: Window | None = None
    relabel: bool = False
    chunks: Zyx | None = None
    shards: Zyx | None = None
    encoding: str | None = None
    pyramid: int | Literal["auto"] | None = None
    kind: Kind | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A conversion whose options fit its source.

    Attributes
    ----------
    part
        What is copied, in the source's frame.
    box
        Where the copy lies.
    declared_kind
        What the copy will say that its values mean; None leaves it to their type.
    factors
        Of the coarser levels, against the finest.
    work
        Where the copy grows if it can be taken up again, and is local.
    is_resumable
        Whether finished blocks are kept when the conversion stops.
    reads_in_threads, writes_in_threads
        Whether several threads may ask the source, and the copy, at once.
    is_lossy
        Whether the copy gives back other values than it was given.
    identity
        Plain values that a conversion must share with the one it goes on with.
    notices
        What is done or left out otherwise than the caller may think.
    """

    source: Volume
    location: Location
    options: ConversionOptions
    part: Box
    box: Box
    voxel_size: VoxelSize | None
    declared_kind: Kind | None
    factors: tuple[Zyx, ...]
    work: Path | None
    is_resumable: bool
    reads_in_threads: bool
    writes_in_threads: bool
    is_lossy: bool
    identity: dict[str, Any]
    notices: tuple[str, ...] = ()

    @property
    def steps(self) -> tuple[Zyx, ...]:
        """Factors of each coarser level against the one before it."""
        before = ((1, 1, 1), *self.factors)[: len(self.factors)]
        return tuple(
            (now[0] // last[0], now[1] // last[1], now[2] // last[2])
            for last, now in zip(before, self.factors, strict=True)
        )

    def recoding(self, old_ids: Ids | None) -> Recoding:
        """Return what becomes of the values; `old_ids` are those in the source, to relabel."""
        options, source = self.options, self.source
        if old_ids is not None:
            asked = options.dtype
            dtype = label_dtype(len(old_ids)) if asked is None else number_dtype(asked)
            return Relabeling(old_ids, dtype=dtype)
        if options.window is not None:
            dtype = number_dtype(_WINDOW_DTYPE if options.dtype is None else options.dtype)
            return WindowRecoding(options.window, source=source.dtype, dtype=dtype)
        dtype = source.dtype if options.dtype is None else number_dtype(options.dtype)
        if source.dtype.kind == "f" and dtype.kind in "ui":
            raise LabelError(
                f"{source.dtype} values cannot become {dtype} without loss: say which of them "
                "are to become its full range (--window LOW,HIGH, in Python window=)"
            )
        return Recoding(dtype)

    def kind(self, dtype: np.dtype[Any]) -> Kind:
        """Return how coarser levels are computed."""
        return self.declared_kind or likely_kind(dtype)


def make_plan(
    source: Volume, destination: str | Path, *, options: ConversionOptions, origin: dict[str, Any]
) -> Plan:
    """Check options against a source and a destination.

    Parameters
    ----------
    origin
        How the source was opened, for the identity.

    Raises
    ------
    FloodemError
        What cannot be made: a box outside the source, a window over labels, a
        pyramid that is too high, an address without a format.
    """
    location = parse_location(destination)
    record = require_format(location)
    require_place(location)
    part = source.box if options.box is None else options.box
    if not source.box.contains(part) or part.size == 0:
        raise GeometryError(
            f"box {part} is empty or not inside {source.uri}, which holds {source.box} "
            "(z,y,x): choose a box in it"
        )
    offset = part.start if options.offset is None else options.offset
    voxel_size = source.voxel_size if options.voxel_size is None else options.voxel_size
    factors = _factors(options, part.shape, voxel_size)
    keeps_blocks = is_resumable(location)
    plan = Plan(
        source=source,
        location=location,
        options=options,
        part=part,
        box=Box.from_shape(part.shape, start=offset),
        voxel_size=voxel_size,
        declared_kind=_declared_kind(source, options),
        factors=factors,
        work=work_place(location) if keeps_blocks and not location.is_remote else None,
        is_resumable=keeps_blocks,
        reads_in_threads=_serves_threads(source),
        writes_in_threads=keeps_blocks,
        is_lossy=options.encoding in _LOSSY or record.name in _LOSSY,
        identity=_identity(source, options, factors=factors, origin=origin),
    )
    if not options.relabel:
        plan.recoding(None)  # refuses types that do not go together
    return _with_notices(plan)


def _with_notices(plan: Plan) -> Plan:
    """Decide what the values are where nobody says it, and say what else is not as asked."""
    options, record = plan.options, require_format(plan.location)
    asked: dict[str, object] = {
        "voxel_size": options.voxel_size,
        "offset": None if options.offset is None else ",".join(map(str, options.offset)),
        "kind": options.kind,
        "chunks": options.chunks,
    }
    notices = tuple(unkept_notes(record, asked))
    has_levels = bool(plan.factors)
    if plan.declared_kind is not None or plan.is_lossy:
        return replace(plan, notices=notices)
    dtype = plan.recoding(None).dtype
    if not are_unstated_labels(plan.source, dtype=dtype, has_levels=has_levels, record=record):
        return replace(plan, notices=notices)
    note = label_note(plan.source.uri, has_levels=has_levels)
    return replace(plan, declared_kind=Kind.LABELS, notices=(note, *notices))


def _serves_threads(source: Volume) -> bool:
    if isinstance(source, DerivedVolume):
        return True
    try:
        return serves_threads(parse_location(source.uri))
    except FloodemError:
        return False  # an open volume that is in no file


def _declared_kind(source: Volume, options: ConversionOptions) -> Kind | None:
    kind = options.kind or source.kind
    if options.relabel:
        if options.kind is Kind.IMAGE or options.window is not None:
            raise OptionError(
                "labels are numbered anew, images are not: leave out "
                + ("--window" if options.window is not None else "--kind image")
                + " or --relabel"
            )
        require_labels(np.zeros(0, source.dtype), what=source.uri)
        return Kind.LABELS
    if options.window is not None and (kind or likely_kind(source.dtype)) is Kind.LABELS:
        raise OptionError(
            f"a window is for images, and {source.uri} holds labels ({source.dtype}): leave out "
            "--window, or say --kind image"
        )
    return Kind.IMAGE if options.window is not None else kind


def _factors(
    options: ConversionOptions, shape: Zyx, voxel_size: VoxelSize | None
) -> tuple[Zyx, ...]:
    if options.pyramid is None:
        return ()
    count = None if options.pyramid == AUTOMATIC else options.pyramid
    return level_factors(shape, voxel_size, count=count)


def _identity(
    source: Volume,
    options: ConversionOptions,
    *,
    factors: tuple[Zyx, ...],
    origin: dict[str, Any],
) -> dict[str, Any]:
    def text(value: object) -> str | None:
        return None if value is None else str(value)

    size = options.voxel_size

    def triple(value: Zyx | None) -> list[int] | None:
        return None if value is None else list(value)

    return {
        "source": {"uri": _absolute(source.uri), **origin, **fingerprint(source)},
        "options": {
            "box": text(options.box),
            "voxel_size": None if size is None else list(size.zyx_nm),
            "offset": triple(options.offset),
            "dtype": None if options.dtype is None else number_dtype(options.dtype).name,
            "window": text(options.window),
            "relabel": options.relabel,
            "chunks": triple(options.chunks),
            "shards": triple(options.shards),
            "encoding": options.encoding,
            "pyramid": [list(level) for level in factors],
            "kind": text(options.kind),
        },
    }


def _absolute(uri: str) -> str:
    """Return an address that means the same from every folder, without passwords in it."""
    try:
        location = parse_location(uri)
    except FloodemError:
        return uri
    if location.is_remote:
        return without_secrets(uri)
    dataset = f"@{location.dataset}" if location.dataset else ""
    return f"{os.path.abspath(location.local)}{dataset}"
