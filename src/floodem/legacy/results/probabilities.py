"""Probabilities as the older programs keep them, ``seg-X_Y_Z.prob``.

An npz with one member ``qprob``, uint8, z, y, x: 0 was never segmented, q stands for a
probability of about (q - 0.5) / 255.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, UInt8

from floodem.errors import VolumeFormatError
from floodem.geometry import Zyx
from floodem.legacy.results.archive import Archive, open_archive, write_archive
from floodem.legacy.results.subvolume import require_free

PROBABILITY_KEY = "qprob"
_AXES = 3
_LEVELS = 255


def quantise(probabilities: Float[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """Return probabilities in bytes: ``digitize(p, linspace(0, 1, 255))``, NaN as 0."""
    edges = np.linspace(0.0, 1.0, _LEVELS)
    quantised: UInt8[np.ndarray, "*shape"] = np.digitize(probabilities, edges).astype(np.uint8)
    quantised[np.isnan(probabilities)] = 0
    return quantised


def dequantise(quantised: UInt8[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
    """Return the probabilities that bytes stand for, NaN where nothing was segmented."""
    probabilities = ((quantised.astype(np.float64) - 0.5) / _LEVELS).astype(np.float32)
    probabilities[quantised == 0] = np.nan
    return probabilities


def read_probabilities(path: Path) -> UInt8[np.ndarray, "z y x"]:
    """Return what a ``.prob`` file holds, in bytes.

    Raises
    ------
    VolumeNotFoundError
        When there is no such file.
    VolumeFormatError, UnsafeFileError
        When it is damaged or something else.
    ResourceError
        When it does not fit in memory.
    """
    with open_archive(path) as archive:
        return read_quantised(archive)


def read_quantised(archive: Archive) -> UInt8[np.ndarray, "z y x"]:
    """Return the member ``qprob``.

    Raises
    ------
    VolumeFormatError, UnsafeFileError
        When it is damaged or something else.
    """
    probability_shape(archive)
    return archive.numbers(PROBABILITY_KEY)


def probability_shape(archive: Archive) -> Zyx:
    """Return the shape of the member ``qprob`` without reading it.

    Raises
    ------
    VolumeFormatError, UnsafeFileError
        When it is no 3-D array of bytes.
    """
    header = archive.header(PROBABILITY_KEY)
    if header.dtype != np.uint8 or len(header.shape) != _AXES or not math.prod(header.shape):
        raise VolumeFormatError(
            f"{archive.path} holds {header.dtype} of shape {header.shape} as {PROBABILITY_KEY}: "
            "expected uint8, z, y, x"
        )
    z, y, x = header.shape
    return (z, y, x)


def write_probabilities(
    path: Path, *, quantised: UInt8[np.ndarray, "z y x"], overwrite: bool
) -> None:
    """Write a ``.prob`` file in one piece.

    Parameters
    ----------
    path
        See `floodem.legacy.results.paths.subvolume_path`. Missing folders are made.
    quantised
        See `quantise`; what `floodem segment --probabilities` writes.
    overwrite
        Replace an existing file.

    Raises
    ------
    DestinationExistsError
        When there is a file and `overwrite` is not set.
    StorageError
        When the file system refuses; what was there before is still there.
    """
    require_free(path, overwrite=overwrite)
    write_archive(path, {PROBABILITY_KEY: np.ascontiguousarray(quantised, dtype=np.uint8)})
