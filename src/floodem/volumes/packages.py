"""Libraries behind single formats: a name in, the module out, or a sentence on what to install."""

from __future__ import annotations

import importlib
from types import ModuleType

from floodem.errors import DependencyError


def require_package(name: str, *, purpose: str, install: str) -> ModuleType:
    """Import a library that only some formats need.

    Raises
    ------
    DependencyError
        When it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DependencyError(
            f"{purpose} needs {install}, which is not installed here: pip install {install}"
        ) from error
