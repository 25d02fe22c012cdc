"""Attributes of HDF5 datasets that are not ours: those of open volumes in, arrays out, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from floodem.errors import VolumeFormatError
from floodem.volumes.damage import reading
from floodem.volumes.hdf5.reading import HDF5_FILE, Hdf5Volume
from floodem.volumes.volume import Array, Volume


def read_attributes(volume: Volume, *, prefix: str = "") -> dict[str, Array]:
    """Return the attributes of a volume's dataset whose names begin so, by name.

    A volume of another format has none.

    Raises
    ------
    VolumeFormatError
        When the file is damaged.
    """
    if not isinstance(volume, Hdf5Volume):
        return {}
    with reading(volume.uri, kind=HDF5_FILE):
        attributes = volume.dataset.attrs
        return {
            name: np.asarray(attributes[name]) for name in attributes if name.startswith(prefix)
        }


def write_attributes(volume: Volume, values: Mapping[str, Array | None]) -> None:
    """Set attributes of a dataset that is being made; None removes one.

    Raises
    ------
    VolumeFormatError
        When the file cannot hold one of them.
    """
    assert isinstance(volume, Hdf5Volume)
    attributes: Any = volume.dataset.attrs
    for name, value in values.items():
        try:
            if value is not None:
                attributes[name] = value
            elif name in attributes:
                del attributes[name]
        except (OSError, RuntimeError, ValueError) as error:
            raise VolumeFormatError(
                f"{volume.uri} cannot hold the attribute {name!r}: {error}; choose another format"
            ) from error
