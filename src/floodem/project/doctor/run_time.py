"""How a run will be cut and how long it will take: a network and an image in, a finding out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from floodem.assembly.estimate import CallTime, estimate, time_calls
from floodem.assembly.proposals import USUAL_CHUNKS, propose_plan
from floodem.counting import counted
from floodem.errors import ResourceError
from floodem.project.doctor.findings import Finding, Level
from floodem.volumes.volume import Volume

if TYPE_CHECKING:
    from floodem.network.model_file import Model

PART = "model"
CPU = "cpu"

TIMED_S = 2.0
"""Seconds for which network calls are tried."""

LONG_HOURS = 100.0
"""Four days on one device: worth a card, several, or a cluster."""


def look_at_time(model: Model, image: Volume, *, memory: int | None) -> Iterator[Finding]:
    """Yield how long segmenting an image takes on this machine's best device."""
    about = model.description
    if any(edge < view for edge, view in zip(image.shape, about.fov, strict=True)):
        return
    try:
        plan = propose_plan(image.box, fov=about.fov, memory_bytes=memory)
    except ResourceError as error:
        yield Finding(level=Level.PROBLEM, part=PART, what="time", says=str(error))
        return
    timed = time_calls(model, seconds=TIMED_S)
    found = estimate(
        plan,
        fov=about.fov,
        deltas=about.deltas,
        image_bytes=image.dtype.itemsize,
        chunks=USUAL_CHUNKS,
        timed=timed,
    )
    hours = found.device_hours or 0.0
    is_long = hours > LONG_HOURS
    yield Finding(
        level=Level.NOTE if is_long else Level.OK,
        part=PART,
        what="time",
        says=f"about {found.hours_in_words} for {found.network_calls:,} network calls of "
        f"{_short(timed.seconds)} in {counted(len(plan), 'block')}, as timed now {_where(timed)}",
        value={
            "hours": hours,
            "calls": found.network_calls,
            "seconds_per_call": timed.seconds,
            "blocks": len(plan),
            "device": timed.device,
            "dtype": timed.dtype,
        },
        reason=found.basis,
        advice="spread it over cards or machines (--workers, --cluster, --shard)"
        if is_long
        else "",
    )


def _short(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"


def _where(timed: CallTime) -> str:
    if timed.device != CPU:
        return f"on {timed.device} ({timed.dtype})"
    from torch import get_num_threads

    return f"with {counted(get_num_threads(), 'thread')} of the CPU ({timed.dtype})"
