"""Arrays in files, by address: open, create, convert, verify, normalise.

What comes in is a URI (`floodem.volumes.location`); what goes out is a `Volume`
that reads and writes boxes (z, y, x). The formats stand in
`floodem.volumes.registry`. Importing this package loads none of the libraries
behind the formats, nor numpy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from floodem.volumes.access import create_volume as create_volume
    from floodem.volumes.access import open_volume as open_volume
    from floodem.volumes.conversion import convert as convert
    from floodem.volumes.intensity import normalise as normalise
    from floodem.volumes.verification import verify as verify
    from floodem.volumes.volume import Volume as Volume

_HOMES = {
    "Volume": "floodem.volumes.volume",
    "convert": "floodem.volumes.conversion",
    "create_volume": "floodem.volumes.access",
    "normalise": "floodem.volumes.intensity",
    "open_volume": "floodem.volumes.access",
    "verify": "floodem.volumes.verification",
}

__all__ = ["Volume", "convert", "create_volume", "normalise", "open_volume", "verify"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
