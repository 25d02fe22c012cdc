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
    from floodem.volumes.conversion.convert import convert as convert
    from floodem.volumes.conversion.verification import verify as verify
    from floodem.volumes.grey.equalisation import clahe as clahe
    from floodem.volumes.grey.equalisation import clahe_section as clahe_section
    from floodem.volumes.grey.intensity import normalise as normalise
    from floodem.volumes.grey.statistics import statistics as statistics
    from floodem.volumes.inspection.info import inspect as inspect
    from floodem.volumes.volume import Volume as Volume

_HOMES = {
    "Volume": "floodem.volumes.volume",
    "clahe": "floodem.volumes.grey.equalisation",
    "clahe_section": "floodem.volumes.grey.equalisation",
    "convert": "floodem.volumes.conversion.convert",
    "create_volume": "floodem.volumes.access",
    "inspect": "floodem.volumes.inspection.info",
    "normalise": "floodem.volumes.grey.intensity",
    "open_volume": "floodem.volumes.access",
    "statistics": "floodem.volumes.grey.statistics",
    "verify": "floodem.volumes.conversion.verification",
}

__all__ = [
    "Volume",
    "clahe",
    "clahe_section",
    "convert",
    "create_volume",
    "inspect",
    "normalise",
    "open_volume",
    "statistics",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
