"""Damaged files: whatever a reader stumbles over comes in, one sentence goes out."""

from __future__ import annotations

import contextlib
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator

from floodem.errors import FloodemError, VolumeFormatError

# What h5py, numpy, zipfile, Pillow and tifffile raise for files with wrong bytes in them.
_STUMBLES = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    RuntimeError,
    ArithmeticError,
    EOFError,
    SyntaxError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


def damaged(uri: object, *, kind: str, reason: object) -> VolumeFormatError:
    """Say that a file cannot be read as what it should be."""
    in_one_line = " ".join(str(reason).split())
    return VolumeFormatError(
        f"{uri} cannot be read as {kind}: {in_one_line}; it is damaged, cut short or something else"
    )


@contextlib.contextmanager
def reading(uri: object, *, kind: str) -> Iterator[None]:
    """Turn what a file's reader raises in the body into one sentence.

    Raises
    ------
    VolumeFormatError
        When the reader stumbles. Our own errors pass.
    """
    try:
        yield
    except FloodemError:
        raise
    except _STUMBLES as error:
        raise damaged(uri, kind=kind, reason=error) from error
