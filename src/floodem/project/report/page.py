"""The page of a report: numbers, places and pictures in, one HTML text out.

It needs nothing but itself: no scripts, no network, pictures inside it. Every word from
files, names and addresses is escaped (floodem.project.report.text).
"""

from __future__ import annotations

import html
import time

import floodem
from floodem.counting import counted
from floodem.project.report.contents import Contents
from floodem.project.report.mistakes import mistakes_section
from floodem.project.report.style import POLICY, STYLE
from floodem.project.report.tables import changes_section, scores_section, skeletons_section
from floodem.project.report.text import address_shown, shown, visible

GENERATOR = "floodem report"
"""Says in the head of a page who wrote it."""


def report_page(contents: Contents) -> str:
    """Return the page."""
    title = html.escape(visible(contents.title))
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(POLICY)}">'
        f'<meta name="generator" content="{GENERATOR}">'
        '<meta name="referrer" content="no-referrer">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head><body>"
        f"<header><h1>{shown(contents.title)}</h1>{_about(contents)}</header>"
        f"{_remarks(contents)}{scores_section(contents)}{changes_section(contents)}{skeletons_section(contents)}"
        f"{mistakes_section(contents)}"
        f"<footer>floodem {html.escape(floodem.__version__)} · what the numbers mean in full: "
        "docs/scores.md · the same numbers as JSON: floodem evaluate --json</footer>"
        "</body></html>\n"
    )


def _about(contents: Contents) -> str:
    first = contents.evaluations[0]
    ignored = ", ".join(map(str, first.ignore)) or "none"
    border = first.cremi_border_nm
    apart = "" if border is None else f", over {border:g} nm from borders of the truth,"
    size = "not stated" if contents.voxel_size is None else f"{contents.voxel_size} nm (z,y,x)"
    rows = [
        *(
            (f"segmentation {shown(name)}", address_shown(address))
            for name, address in zip(contents.names, contents.addresses, strict=True)
        ),
        ("truth", address_shown(contents.truth)),
        ("image", "none given" if contents.image is None else address_shown(contents.image)),
    ]
    lines = "".join(f"<tr><th>{what}</th><td>{where}</td></tr>" for what, where in rows)
    return (
        f'<p class="when">scored at {time.strftime("%Y-%m-%d %H:%M:%S")} over '
        f"{counted(first.all_truth.voxels, 'voxel')} with truth{apart} in {first.box} (z,y,x); "
        f"truth ids that do not count: {ignored}; voxel size {size}</p>"
        f'<details><summary>files</summary><div class="wide"><table>{lines}</table></div></details>'
    )


def _remarks(contents: Contents) -> str:
    return "".join(
        f'<p class="note">{html.escape(visible(remark))}</p>' for remark in contents.remarks
    )
