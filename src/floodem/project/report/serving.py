"""A report in the browser: a page and its scene on this machine come in, an address goes out."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from floodem.errors import VolumeFormatError
from floodem.project.report.scene import scene_folder
from floodem.project.report.writing import is_report
from floodem.viewer.serving import Site

PAGES = frozenset({".html", ".htm"})


def serve_report(site: Site, page: Path) -> str:
    """Serve a report with the scene beside it, and nothing else of its folder.

    Returns
    -------
    str
        The address of the page; its links open in the viewer.

    Raises
    ------
    VolumeFormatError
        When the page is no report of floodem.
    """
    if not is_report(page):
        raise VolumeFormatError(
            f"{page} is no report of floodem: floodem evaluate SEG TRUTH --report PAGE writes one"
        )
    only = frozenset({page.name, scene_folder(page).name})
    return f"{site.serve_folder(page.absolute().parent, only=only)}/{quote(page.name, safe='')}"
