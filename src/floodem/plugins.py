"""Parts that other packages add: a name or ``package:attribute`` comes in, the thing goes out.

Networks, losses, samplers and seed policies are found in three places: among
those floodem has itself, among the entry points of installed packages, and, only
where the user wrote it in a configuration or on the command line, as
``package.module:attribute``. What a data file names is never imported: `find`
knows the first two places alone.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import entry_points
from typing import Any

from floodem.errors import DependencyError, OptionError

_WRITTEN = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


def is_written_out(name: str) -> bool:
    """Tell whether a name has the form ``package.module:attribute``."""
    return _WRITTEN.fullmatch(name) is not None


def names(known: Iterable[str], *, group: str) -> list[str]:
    """Return all names of one kind, floodem's own and those of installed packages, sorted."""
    return sorted({*known, *(point.name for point in entry_points(group=group))})


def find(
    name: str, *, known: Mapping[str, Callable[..., Any]], group: str
) -> Callable[..., Any] | None:
    """Return what is registered under a name, or None.

    Parameters
    ----------
    name
        It may come from a file: nothing is imported that is not installed under this name.
    known
        What floodem has itself.
    group
        Entry point group, for example ``floodem.networks``.

    Raises
    ------
    DependencyError
        When the package that provides it cannot be imported.
    """
    if name in known:
        return known[name]
    for point in entry_points(group=group):
        if point.name == name:
            try:
                return _callable(point.load(), name=name)
            except (ImportError, AttributeError) as error:
                raise DependencyError(
                    f"{name!r} of entry point group {group} cannot be loaded ({error}): repair or "
                    "remove the package that provides it"
                ) from error
    return None


def resolve(
    spec: str, *, known: Mapping[str, Callable[..., Any]], group: str, what: str
) -> Callable[..., Any]:
    """Return the thing that the user named, importing it where it is written out.

    Parameters
    ----------
    spec
        A name, or ``package.module:attribute``. It must come from a configuration
        or a command line, never from a data file.
    known, group
        See `find`.
    what
        What it is, for messages: "network".

    Raises
    ------
    OptionError
        When nothing has this name, or it is nothing that can be called.
    DependencyError
        When the module cannot be imported.
    """
    if is_written_out(spec):
        return _import(spec, what=what)
    found = find(spec, known=known, group=group)
    if found is not None:
        return found
    choices = names(known, group=group)
    nearest = (difflib.get_close_matches(spec, choices, n=1) or choices)[0]
    raise OptionError(
        f"no {what} is called {spec!r} (nearest: {nearest}): choose from {', '.join(choices)}, or "
        "write package:attribute of your own"
    )


def _import(spec: str, *, what: str) -> Callable[..., Any]:
    module_name, _, attribute = spec.partition(":")
    top = module_name.partition(".")[0]
    if top not in sys.modules and importlib.util.find_spec(top) is None:
        # Installed commands do not look where they are started, and there plug-ins begin their
        # lives. It stays, because processes that this one starts have to find it as well.
        sys.path.append(os.getcwd())
        importlib.invalidate_caches()
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise DependencyError(
            f"{what} {spec!r} cannot be imported ({error}): install its package, or start floodem "
            "in the folder that holds it"
        ) from error
    try:
        return _callable(getattr(module, attribute), name=spec)
    except AttributeError:
        public = [name for name in vars(module) if not name.startswith("_")]
        nearest = difflib.get_close_matches(attribute, public, n=1)
        hint = f" (nearest: {nearest[0]})" if nearest else ""
        raise OptionError(
            f"{what} {spec!r}: {module_name} has no {attribute!r}{hint}; check the name behind the "
            "colon"
        ) from None


def _callable(value: Any, *, name: str) -> Callable[..., Any]:
    if not callable(value):
        raise OptionError(
            f"{name!r} is {type(value).__name__}, not something to call: name a class or a function"
        )
    made: Callable[..., Any] = value
    return made
