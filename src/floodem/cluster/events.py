"""What comes back from whoever does tasks: done, failed, or on its way; plain data only.

Errors travel as their class's name, their message and their traceback's text, never
as pickled objects: an exception of a plugin may not survive pickling, and what comes
over a network is not to be run.
"""

from __future__ import annotations

import builtins
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from floodem import errors
from floodem.errors import FloodemError, ResourceError
from floodem.volumes.servers.addresses import without_secrets

_TOO_LITTLE_MEMORY = (
    "there was too little memory: run the same command again with fewer workers, or with "
    "smaller blocks"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A task has its receipt.

    Attributes
    ----------
    key
        The task's.
    result
        What its receipt holds: JSON values, also where the function returned tuples.
    """

    key: str
    result: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """A task told how far it is (`floodem.cluster.context.TaskContext.report`)."""

    key: str
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A task has no receipt and gets none.

    Attributes
    ----------
    key
        The task's.
    kind
        Name of the error's class.
    message
        The error's sentence.
    trace
        Where a bug came from; empty for a `FloodemError`, whose sentence says it all.
    original
        The error itself, for who raises it in the very process; it does not travel.
    """

    key: str
    kind: str
    message: str
    trace: str = ""
    original: Exception | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, key: str, error: Exception | SystemExit) -> Failed:
        """Describe what a task raised; secrets in addresses are cut out."""
        if isinstance(error, FloodemError):
            names = [kind.__name__ for kind in type(error).__mro__]
            known = next(name for name in names if hasattr(errors, name))
            return cls(key=key, kind=known, message=_sentence(error), original=error)
        if isinstance(error, MemoryError):
            return cls(key=key, kind=ResourceError.__name__, message=_TOO_LITTLE_MEMORY)
        return cls(
            key=key,
            kind=type(error).__name__,
            message=_sentence(error),
            trace=without_secrets("".join(traceback.format_exception(error))),
            original=error if isinstance(error, Exception) else None,
        )

    def __getstate__(self) -> tuple[str, str, str, str]:
        """Return what travels to another process: text."""
        return (self.key, self.kind, self.message, self.trace)

    def __setstate__(self, state: tuple[str, str, str, str]) -> None:
        for name, value in zip(("key", "kind", "message", "trace"), state, strict=True):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "original", None)

    @property
    def error(self) -> Exception:
        """Return an error to be raised, of the same class where that is floodem's or Python's."""
        if self.original is not None:
            return self.original
        found = _error_class(self.kind)(self.message)
        if self.trace:
            found.add_note(f"task {self.key}, where it was done:\n{self.trace.rstrip()}")
        return found


def _error_class(name: str) -> Callable[[str], Exception]:
    """Return a class of floodem's or of Python's, or one that names a foreign class."""
    kind = getattr(errors, name, getattr(builtins, name, None))
    if not isinstance(kind, type) or not issubclass(kind, Exception):
        return lambda message: RuntimeError(f"{name}: {message}")
    if issubclass(kind, UnicodeError | BaseExceptionGroup):  # these want more than a message
        return lambda message: RuntimeError(f"{name}: {message}")
    return kind


def _sentence(error: BaseException) -> str:
    """Return an error's text; an exception of a plugin may have none."""
    try:
        return without_secrets(str(error))
    except Exception:  # noqa: BLE001 - foreign code
        return f"a {type(error).__name__} that cannot be put in words"


Event = Done | Failed | Reported
