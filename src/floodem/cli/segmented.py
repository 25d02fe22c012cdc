"""What ``floodem segment`` prints: a plan or a finished segmentation in, a few lines out."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from floodem.cli.progress import duration, short
from floodem.counting import counted

if TYPE_CHECKING:
    from floodem.assembly.planning import Planned
    from floodem.flooding.request import Segmentation

_SECONDS_PER_HOUR = 3600.0
_IDS_SHOWN = 20


def print_plan(planned: Planned, *, as_json: bool) -> None:
    """Print how a volume would be cut and what that takes."""
    if as_json:
        print(json.dumps(planned.to_json()))
        return
    plan, found = planned.prepared.plan, planned.estimate
    for notice in planned.prepared.notices:
        print(f"note: {notice}", file=sys.stderr)
    if planned.is_cut:
        z, y, x = plan.grid
        print(
            f"{counted(found.blocks, 'block')} ({z} x {y} x {x}, z,y,x) of {found.block} voxels "
            f"with {found.halo} around them"
        )
        if found.masked_blocks:
            print(f"about {found.masked_blocks} of them are wholly masked and not opened")
        print(
            f"voxels: {short(found.voxels)}, with halos {short(found.voxels_with_halos)} "
            f"({found.halo_factor:.2f} times as many)"
        )
    else:
        print(f"one block of {plan.box.shape} voxels (z,y,x): it fits in memory")
    times = f", {found.calls_factor:.2f} times as many as uncut" if planned.is_cut else ""
    print(f"network calls: about {short(found.network_calls)}{times} ({found.basis})")
    if found.device_hours is not None and found.seconds_per_call is not None:
        each = f"{found.seconds_per_call * 1000:.3g} ms a call here"
        span = duration(found.device_hours * _SECONDS_PER_HOUR)
        print(f"flooding: {found.hours_in_words} ({span}; {each})")
    print(
        f"bytes: {short(found.bytes_read)} read, {short(found.label_bytes)} of labels before "
        f"compression, {short(found.work_bytes)} of records; about {short(found.files)} files"
    )
    print(
        f"memory: {short(found.memory_bytes)} bytes for each worker, beside some 400 M of "
        "Python and torch"
    )


def print_segmentation(made: Segmentation) -> None:
    """Print what a finished run has made."""
    if made.was_finished:
        print(f"{made.uri} was finished by an earlier run of this command; --overwrite repeats it")
    summary = made.summary
    blocks = f" in {counted(summary['blocks'], 'block')}" if "blocks" in summary else ""
    print(
        f"{made.uri}: {counted(made.segments, 'segment')} in box {made.box}, "
        f"{made.covered:.1%} of the voxels, "
        f"{counted(summary['counters']['network_calls'], 'network call')}{blocks}; "
        f"record in {made.folder}"
    )
    if "blocks" in summary:
        print(
            f"{counted(summary['joined'], 'pair')} of pieces joined between blocks, "
            f"{summary['refused']} refused (many for being tiny): {made.folder}/joins.csv says why"
        )
    if summary["cut_short"]:
        ids = ", ".join(str(label) for label in summary["cut_short"][:_IDS_SHOWN])
        more = len(summary["cut_short"]) - _IDS_SHOWN
        others = f" and {more} more" if more > 0 else ""
        print(f"note: floods that hit a limit, perhaps mergers: {ids}{others}", file=sys.stderr)
