"""Which stages of a project are looked at: what the user asked for in, yes or no by name out."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from floodem.errors import OptionError
from floodem.project.pipeline.graph import STAGE_NAMES


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Part of a project's stages.

    Attributes
    ----------
    only
        This stage alone; None: all.
    since, until
        The first and the last stage that may be made.
    force
        Stages that are made although they are fresh.

    Raises
    ------
    OptionError
        When no stage has such a name, or two wishes exclude each other.
    """

    only: str | None = None
    since: str | None = None
    until: str | None = None
    force: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for option, name in self._named():
            if name not in STAGE_NAMES:
                near = difflib.get_close_matches(name, STAGE_NAMES, n=1)
                advice = f"did you mean {near[0]}?" if near else f"use {', '.join(STAGE_NAMES)}"
                raise OptionError(f"{option}: no stage is called {name!r}: {advice}")
        if self.only is not None and (self.since is not None or self.until is not None):
            raise OptionError("--only names one stage: leave --from and --until out")
        for name in self.force:
            if not self.asks(name):
                raise OptionError(f"--force {name} is not among the stages that are asked for")

    def asks(self, name: str) -> bool:
        """Tell whether a stage may be made."""
        if self.only is not None:
            return name == self.only
        at = STAGE_NAMES.index(name)
        first = 0 if self.since is None else STAGE_NAMES.index(self.since)
        last = len(STAGE_NAMES) if self.until is None else STAGE_NAMES.index(self.until)
        return first <= at <= last

    def forces(self, name: str) -> bool:
        """Tell whether a stage is made although it is fresh."""
        return name in self.force

    def require_active(self, skipped: Mapping[str, str]) -> None:
        """Refuse a wish for a stage that this project does not have.

        Raises
        ------
        OptionError
            Saying why it is skipped.
        """
        for option, name in self._named():
            if option in ("--only", "--force") and skipped.get(name):
                raise OptionError(f"{option} {name}: that stage is skipped ({skipped[name]})")

    def _named(self) -> list[tuple[str, str]]:
        pairs = [("--only", self.only), ("--from", self.since), ("--until", self.until)]
        found = [(option, name) for option, name in pairs if name is not None]
        return found + [("--force", name) for name in self.force]
