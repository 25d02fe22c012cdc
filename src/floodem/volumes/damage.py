"""Damaged files: whatever a reader stumbles over comes in, one sentence goes out."""

from __future__ import annotations

import contextlib
import struct
import textwrap
import tokenize
import zipfile
import zlib
from collections.abc import Iterator

from floodem.errors import FloodemError, VolumeFormatError

_MAX_REASON_LENGTH = 200

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
    return VolumeFormatError(
        f"{uri} cannot be read as {kind}: {in_one_line(reason)}; "
        "it is damaged, cut short or something else"
    )


def in_one_line(reason: object) -> str:
    """Return a reader's reason as one printable line; some quote half of the damaged file."""
    words = " ".join(str(reason).split())
    printable = "".join(char if char.isprintable() else "?" for char in words)
    return textwrap.shorten(printable, _MAX_REASON_LENGTH, placeholder="...")


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
