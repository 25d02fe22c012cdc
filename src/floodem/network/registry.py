"""Networks by name, so that a model file can say which one its weights belong to.

A network is a `torch.nn.Module` that maps (b, 2, z, y, x), image and seed
logits, to the update (b, 1, z, y, x) of the logits. Other packages add theirs
through the entry point group ``floodem.networks``; a model file can only name
what is registered, never import anything.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points

from torch import nn

from floodem.errors import ModelError
from floodem.network.conv_stack import ConvStack

ENTRY_POINT_GROUP = "floodem.networks"

_NETWORKS: dict[str, Callable[..., nn.Module]] = {"conv_stack": ConvStack}


def network_names() -> list[str]:
    """Return the names of all networks that can be built, sorted."""
    return sorted({*_NETWORKS, *(point.name for point in entry_points(group=ENTRY_POINT_GROUP))})


def _find(name: str) -> Callable[..., nn.Module]:
    if not isinstance(name, str):  # it may come out of a file
        raise ModelError(f"network {name!r} is no name: copy the model file again")
    if name in _NETWORKS:
        return _NETWORKS[name]
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.name == name:
            _NETWORKS[name] = point.load()
            return _NETWORKS[name]
    known = network_names()
    nearest = (difflib.get_close_matches(name, known, n=1) or known)[0]
    raise ModelError(
        f"no network is called {name!r} (nearest: {nearest}): install the package that provides "
        f"it, or use one of {', '.join(known)}"
    )


def build_network(name: str, arguments: Mapping[str, object]) -> nn.Module:
    """Build an untrained network.

    Raises
    ------
    ModelError
        When the name is unknown or the arguments do not fit.
    """
    factory = _find(name)
    try:
        inspect.signature(factory).bind(**arguments)
        return factory(**arguments)
    except (RuntimeError, TypeError, ValueError) as error:  # RuntimeError: torch, of absurd sizes
        raise ModelError(
            f"network {name!r} cannot be built from {dict(arguments)}: {error}"
        ) from error
