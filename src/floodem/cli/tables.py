"""Tables as commands print them: names and numbers in, rich tables and short texts out."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from floodem.geometry import Zyx

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_WIDTH_IN_FILES = 120


def plain_console() -> Console:
    """Return a console that prints as wide as the terminal is, and 120 columns to files."""
    from rich.console import Console

    class PipedConsole(Console):
        def on_broken_pipe(self) -> None:
            # rich calls this where it has caught the error, and would exit with 1 itself.
            raise  # noqa: PLE0704

    return PipedConsole(markup=False, width=None if sys.stdout.isatty() else _WIDTH_IN_FILES)


def plain_table(left: str, *right: str) -> Table:
    """Return a table without lines; all columns but the first are to the right."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(left)
    for name in right:
        table.add_column(name, justify="right")
    return table


def place(number: int, position: Zyx | None) -> str:
    """Return an id and where it is."""
    if position is None:
        return str(number)
    return f"{number} at {','.join(str(index) for index in position)}"


def spread(low: float, high: float, *, digits: int) -> str:
    """Return a range."""
    return f"{low:.{digits}f}-{high:.{digits}f}"
