"""``floodem verify DST``: what convert or segment has made in, damages out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from floodem.counting import counted
from floodem.errors import EXIT_INPUT_REFUSED

if TYPE_CHECKING:
    from floodem.flooding.verification import SegmentationCheck
    from floodem.volumes.conversion.verification_result import Verification

_SHOWN = 10
"""Damages named; --json names all."""


def verify(
    destination: Annotated[
        str, typer.Argument(metavar="DST", help="What convert or segment wrote.")
    ],
    *,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Blocks read at once; default: one a core.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Check a volume against the receipts of its making.

    Reads all of DST, every level, and compares it with what DST.floodem says was
    written: missing chunks, changed bytes and truncated files are named by level
    and box (z,y,x). Of a conversion that was stopped, what is written so far is
    checked. Ends with 3 when something is wrong.
    """
    from floodem.assembly.verification import is_cut_run, verify_cut_run
    from floodem.cli.progress import progress_bar
    from floodem.volumes.conversion.verification import verify as verify_conversion

    found: SegmentationCheck | Verification
    with progress_bar() as progress:
        if is_cut_run(destination):
            found = verify_cut_run(destination, progress=progress)
            text = _about_segmentation(found)
        elif _is_segmentation(destination):
            from floodem.flooding.verification import verify_segmentation

            found = verify_segmentation(destination, progress=progress)
            text = _about_segmentation(found)
        else:
            found = verify_conversion(destination, threads=threads, progress=progress)
            text = _about_conversion(found)
    print(json.dumps(found.to_json()) if as_json else text)
    if not found.is_whole:
        raise typer.Exit(EXIT_INPUT_REFUSED)


def _is_segmentation(destination: str) -> bool:
    """Tell whether the last record that was written is that of a segmentation."""
    from floodem.flooding.verification import written_ns as segmented_ns
    from floodem.volumes.conversion.verification import written_ns as converted_ns
    from floodem.volumes.location import parse_location

    if parse_location(destination).is_remote:
        return False
    # Asked first, as it refuses addresses that no volume can have.
    converted = converted_ns(destination) or 0
    return (segmented_ns(destination) or 0) > converted


def _about_segmentation(found: SegmentationCheck) -> str:
    verdict = "all labels are as they were written" if found.is_whole else "DAMAGED"
    lines = [f"{found.uri}: {counted(found.segments, 'segment')} in box {found.box}: {verdict}"]
    return "\n".join([*lines, *found.damages])


def _about_conversion(found: Verification) -> str:
    what = "conversion" if found.is_finished else "stopped conversion, what is written so far"
    lossy = ", lossy" if found.is_lossy else ""
    verdict = "all blocks are as they were written" if found.is_whole else "DAMAGED"
    lines = [
        f"{found.uri} ({what}{lossy}): {verdict}",
        f"{'level':>5} {'blocks':>8} {'written':>8} {'damaged':>8}",
    ]
    lines += (
        f"{one.level:>5} {one.blocks:>8} {one.receipts:>8} {one.damaged:>8}" for one in found.levels
    )
    lines += (
        f"level {one.level}, box {one.box} (z,y,x): {one.reason}" for one in found.damages[:_SHOWN]
    )
    if len(found.damages) > _SHOWN:
        more = counted(len(found.damages) - _SHOWN, "more place")
        lines.append(f"and {more} (--json names all)")
    return "\n".join(lines)
