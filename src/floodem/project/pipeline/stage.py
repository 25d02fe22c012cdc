"""A stage of a project: what it is made from, what it makes, and the function that does it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from floodem.cluster import ALONE, Crew
from floodem.progress import ProgressListener
from floodem.project.pipeline.configuration import Project


def _ignore(sentence: str) -> None:
    """Listen to nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a stage's function is given.

    Attributes
    ----------
    project
        What the user wants.
    overwrite
        Replace what an earlier run of this stage has left.
    crew
        Who does tasks.
    """

    project: Project
    overwrite: bool = False
    crew: Crew = ALONE
    progress: ProgressListener | None = None
    notice: Callable[[str], None] = _ignore
    should_stop: Callable[[], bool] = lambda: False

    @property
    def flooding_crew(self) -> Crew:
        """Who floods: one process, which uses all cores, unless the file says otherwise."""
        asked = self.project.cluster
        return ALONE if asked.workers is None and asked.cluster is None else self.crew

    def path(self, name: str) -> Path:
        """Return the path of a result by its name in the project's folder."""
        return self.project.folder / name


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A file or folder that a stage makes.

    Attributes
    ----------
    name
        In the project's folder.
    kind
        How its contents are compared, see `floodem.project.pipeline.contents`.
    is_told
        Whether later stages depend on its contents.
    """

    name: str
    kind: str
    is_told: bool = True


def _never(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One step from the image to the scene.

    Attributes
    ----------
    name
        Of its row and its record.
    table
        Of the project file, whose line is named where the stage fails.
    options
        What decides the result, by the dotted key in the file; plain values.
    files
        What is read that no stage makes: for each a function that gives plain values by
        which a changed one is known.
    needs
        Stages whose results it is made from.
    outputs
        What it makes; empty where there is nothing to do.
    traces
        What else of it lies in the folder, to be removed when it begins again.
    make
        Does the work, or goes on with it; gives the numbers of the stage's row.
    goes_on
        Tells from the parts of the earlier and this run whether what is there can be gone on
        with although they differ.
    skipped
        Why it is not run, or "".
    """

    name: str
    table: str
    options: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Callable[[], Any]] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    outputs: tuple[Output, ...] = ()
    traces: tuple[str, ...] = ()
    make: Callable[[Work], Mapping[str, Any]] = lambda work: {}
    goes_on: Callable[[Mapping[str, Any], Mapping[str, Any]], bool] = _never
    skipped: str = ""
