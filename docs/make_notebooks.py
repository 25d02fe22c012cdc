"""Make the notebooks from docs/notebooks/*.py: python docs/make_notebooks.py [--execute FOLDER].

The sources are Python with cells (jupytext's percent format), which can be read,
compared and checked; the notebooks have the names that people know, lie where the old
programs lie, and have no outputs. With ``--execute`` nothing is made: the notebooks are
run, and copies with their outputs go to FOLDER.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCES = REPOSITORY / "docs" / "notebooks"
PLACES = (REPOSITORY / "legacy", REPOSITORY / "src/floodem/legacy/layout/files")
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
LONGEST_CELL_S = 300


def notebooks() -> Iterator[tuple[str, Any]]:
    """Give each notebook with the name of its file."""
    import jupytext

    for source in sorted(SOURCES.glob("*.py")):
        made = jupytext.read(source, fmt="py:percent")
        made.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
        for number, cell in enumerate(made.cells):
            cell.id = f"{source.stem}-{number}"  # the same each time
            cell.metadata = {}
        yield f"{source.stem}.ipynb", made


def text_of(notebook: Any) -> str:
    """Return what is in the file of a notebook."""
    import nbformat

    nbformat.validate(notebook)
    return f"{nbformat.writes(notebook, indent=1).rstrip()}\n"


def execute(notebook: Any, folder: Path, *, name: str) -> Path:
    """Run a notebook in a folder, and write it there with its outputs."""
    import nbformat
    from nbclient import NotebookClient

    client = NotebookClient(
        notebook, timeout=LONGEST_CELL_S, resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    path = folder / name
    nbformat.write(notebook, path)
    return path


def say(path: Path) -> None:
    """Name a file that was written."""
    sys.stdout.write(f"{path}\n")


def main(arguments: list[str]) -> int:
    """Make the notebooks, or run them."""
    if arguments and (len(arguments) != 2 or arguments[0] != "--execute"):
        sys.stderr.write("usage: python docs/make_notebooks.py [--execute FOLDER]\n")
        return 2
    for name, notebook in notebooks():
        if arguments:
            say(execute(notebook, Path(arguments[1]), name=name))
            continue
        for place in PLACES:
            (place / name).write_text(text_of(notebook), encoding="utf-8", newline="\n")
            say(place / name)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
