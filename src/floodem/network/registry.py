"""Networks by name, so that a model file can say which one its weights belong to.

A network is a `torch.nn.Module` that maps (b, 2, z, y, x), image and seed
logits, to the update (b, 1, z, y, x) of the logits. Other packages add theirs
through the entry point group ``floodem.networks``, or the user names one as
``package:factory`` (`register_network`); a model file can only name what is
registered, never import anything.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping

from torch import nn

from floodem import plugins
from floodem.errors import ModelError
from floodem.network.conv_stack import ConvStack

ENTRY_POINT_GROUP = "floodem.networks"

_NETWORKS: dict[str, Callable[..., nn.Module]] = {"conv_stack": ConvStack}


def network_names() -> list[str]:
    """Return the names of all networks that can be built, sorted."""
    return plugins.names(_NETWORKS, group=ENTRY_POINT_GROUP)


def register_network(spec: str) -> None:
    """Make a network known that the user named, so that model files may name it too.

    Parameters
    ----------
    spec
        A known name, or ``package.module:factory``, which is imported: it must come
        from a configuration or a command line, never from a data file.

    Raises
    ------
    OptionError
        When nothing has this name.
    DependencyError
        When the package cannot be imported.
    """
    _NETWORKS[spec] = plugins.resolve(
        spec, known=_NETWORKS, group=ENTRY_POINT_GROUP, what="network"
    )


def _find(name: str) -> Callable[..., nn.Module]:
    if not isinstance(name, str):  # it may come out of a file
        raise ModelError(f"network {name!r} is no name: copy the model file again")
    found = plugins.find(name, known=_NETWORKS, group=ENTRY_POINT_GROUP)
    if found is not None:
        _NETWORKS[name] = found
        return found
    if plugins.is_written_out(name):
        raise ModelError(
            f"network {name!r} is code of another package, which a file cannot load by itself: if "
            f"you trust that package, pass --network {name} as well"
        )
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
