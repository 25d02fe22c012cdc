"""Requests as a command line gives them: text or the path of a file comes in, a message goes out.

A file holds text, protobuf's binary form, or a result (``seg-X_Y_Z.npz``), which carries the
request that made it; for a result the box that it fills comes out as well.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from floodem.errors import UsageError, VolumeFormatError
from floodem.files import storage_error
from floodem.geometry import Box
from floodem.legacy.requests.message import Message
from floodem.legacy.requests.others import parse_inference_request
from floodem.legacy.requests.tokens import LONGEST_TEXT
from floodem.legacy.requests.wire import decode
from floodem.legacy.results.paths import SEGMENTATION
from floodem.legacy.results.subvolume import read_subvolume

_LONGEST_PATH = 4096
# One word with an ending and without what every request has: a colon behind a name, or a brace.
_LOOKS_LIKE_FILE = re.compile(r"(?:[A-Za-z]:[\\/])?[^\s:{}<>\"']+\.[A-Za-z]+")
# Keys of binary fields are such characters, and text has none; lines end with those left out.
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenRequest:
    """An InferenceRequest that somebody gave.

    Attributes
    ----------
    message
        The request.
    box
        What the result fills (voxels, z, y, x) where it came with a result whose name tells
        its corner, else None.
    """

    message: Message
    box: Box | None = None


def given_request(text: str, *, source: str) -> GivenRequest:
    """Read an InferenceRequest that is given as its text or as the path of its file.

    Parameters
    ----------
    source
        What messages call the text: a flag. A file goes by its own name.

    Raises
    ------
    FloodemError
        As `read_request_file`, and when the text is no InferenceRequest.
    """
    path = _file_named(text, source=source)
    if path is not None:
        return read_request_file(path)
    return GivenRequest(message=parse_inference_request(text, source=source))


def read_request_file(path: Path) -> GivenRequest:
    """Read an InferenceRequest from a file: text, binary, or a result that carries it.

    Raises
    ------
    UsageError
        When there is no such file, it is larger than any request, or no InferenceRequest.
    StorageError
        When it cannot be read.
    FloodemError
        When a result is damaged or unsafe.
    """
    if path.suffix.lower() == SEGMENTATION:
        return _of_result(path)
    data = _read(path)
    text = None if _CONTROL.search(data) else _decoded(data)
    if text is not None:
        return GivenRequest(message=parse_inference_request(text, source=str(path)))
    return GivenRequest(message=_binary(data, path=path))


def text_or_file(text: str, *, source: str) -> tuple[str, str]:
    """Return the text of a message that is given as itself or by its file, and its name.

    Parameters
    ----------
    source
        What messages call the text: a flag. A file goes by its own name.

    Raises
    ------
    UsageError
        When a file is larger than any request, or no text.
    StorageError
        When it cannot be read.
    """
    path = _file_named(text, source=source)
    if path is None:
        return text, source
    found = _decoded(_read(path))
    if found is None:
        raise UsageError(f"{path} is no text in UTF-8: save it as UTF-8")
    return found, str(path)


def _file_named(text: str, *, source: str) -> Path | None:
    """Return the file that a text names, or None where it is no name."""
    path = Path(text.strip())
    try:
        is_file = len(text) <= _LONGEST_PATH and path.is_file()
    except (OSError, ValueError):  # what is no file's name
        is_file = False
    if is_file:
        return path
    if _LOOKS_LIKE_FILE.fullmatch(text.strip()):
        raise UsageError(
            f"{source}: there is no file {text.strip()!r}: give the path of a request, or its text"
        )
    return None


def _read(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(LONGEST_TEXT + 1)
    except FileNotFoundError:
        raise UsageError(f"there is no request file {path}: check its path") from None
    except ValueError as error:  # a NUL in the name
        raise UsageError(f"{str(path)!r} is no file name: {error}") from None
    except OSError as error:
        raise storage_error("read", path, error) from error
    if len(data) > LONGEST_TEXT:
        raise UsageError(f"{path} is larger than {LONGEST_TEXT} bytes: is it a request?")
    return data


def _decoded(data: bytes) -> str | None:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None


def _binary(data: bytes, *, path: Path) -> Message:
    try:
        message = decode(data, message="InferenceRequest")
    except VolumeFormatError as error:
        raise UsageError(
            f"{path} is neither text in UTF-8 nor a binary InferenceRequest ({error}): save the "
            "request as UTF-8"
        ) from error
    if not message.values:
        raise UsageError(
            f"{path} is no text in UTF-8, and as a binary InferenceRequest it holds no known "
            "field: save the request as UTF-8"
        )
    return message


def _of_result(path: Path) -> GivenRequest:
    """Return the request that a result carries, and what the result fills."""
    result = read_subvolume(path)
    if not result.request:
        raise UsageError(f"{path} carries no request: give the file of the request that made it")
    shape, corner = result.segmentation.shape, result.corner
    box = None if corner is None else Box.from_shape(shape, start=corner)
    return GivenRequest(message=_binary(result.request, path=path), box=box)
