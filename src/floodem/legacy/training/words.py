"""A configuration as a command line: plain values in, the words of ``floodem train`` out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from floodem.training.configuration.tables import NONE

_VOLUME = "volume"
_SHORT = {"volume.image": "--image", "volume.labels": "--labels", "network.init": "--init"}


def train_words(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the command that trains with these values.

    Parameters
    ----------
    values
        As `floodem.training.configuration.making.make_options` takes them.
    """
    words = ["floodem", "train"]
    for name, value in values.items():
        if name == _VOLUME:
            # Each key is given once for each volume, in their order.
            keys = dict.fromkeys(key for volume in value for key in volume)
            for volume in value:
                for key in keys:
                    words += [_flag(f"{_VOLUME}.{key}"), _written(volume.get(key))]
        elif isinstance(value, Mapping):
            for key, entry in value.items():
                words += [_flag(f"{name}.{key}"), _written(entry)]
        else:
            words += [_flag(name), _written(value)]
    return tuple(words)


def _flag(path: str) -> str:
    return _SHORT.get(path, f"--{path.replace('_', '-')}")


def _written(value: Any) -> str:
    if value is None:
        return NONE
    if isinstance(value, Mapping):
        return ",".join(f"{name}={_written(entry)}" for name, entry in value.items())
    if isinstance(value, list | tuple):
        return ",".join(_written(entry) for entry in value)
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return str(value)
