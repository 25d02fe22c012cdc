"""``floodem view REPORT.html``: a report comes in, an address where its links work goes out."""

from __future__ import annotations

from pathlib import Path

from floodem.cli.staying import open_and_stay


def is_page(text: str) -> bool:
    """Tell whether what the user named is a page, not a volume."""
    return text.lower().endswith((".html", ".htm")) and Path(text).is_file()


def show_report(page: Path, *, host: str, port: int, opens_browser: bool) -> None:
    """Serve a report until Ctrl-C, and open it."""
    from floodem.project.report.serving import serve_report
    from floodem.viewer.serving import Site

    with Site.start(host=host, port=port) as site:
        open_and_stay(serve_report(site, page), opens_browser=opens_browser)
