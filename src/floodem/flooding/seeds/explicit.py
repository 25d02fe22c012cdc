"""Seeds that the user gives: positions in the volume, from a table or an array.

In: a CSV file with the columns z, y, x, or positions. Out: the same positions in
this block's array, in the order in which they were given.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, Integer

from floodem.errors import OptionError, VolumeFormatError, VolumeNotFoundError
from floodem.files import storage_error
from floodem.flooding.seeds.context import SeedContext
from floodem.flooding.seeds.registry import SeedPolicySpec, seed_policy
from floodem.geometry import FARTHEST_POSITION

EXPLICIT = "ExplicitSeeds"
"""Name of the policy whose seeds the user gives."""

CSV_COLUMNS = ("z", "y", "x")


@seed_policy(EXPLICIT)
class ExplicitSeeds:
    """Positions in the volume, z, y, x; those outside of a block are not its seeds.

    Parameters
    ----------
    positions
        Rows of three integers.
    path
        Or a CSV file with the columns z, y, x; further columns are ignored.
    sha256
        Digest that the file must have, so that a run goes on with the seeds it
        began with.
    """

    def __init__(
        self, *, positions: Any = None, path: str | None = None, sha256: str | None = None
    ) -> None:
        if (positions is None) == (path is None):
            raise OptionError("ExplicitSeeds needs either positions or path: give one of them")
        if path is None:
            self._positions = _checked(positions)
            return
        if not isinstance(path, str):
            raise OptionError(f"ExplicitSeeds path is {path!r}: give the path of a CSV file")
        content = _file_bytes(Path(path))
        if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
            raise OptionError(
                f"the seeds in {path} are not those this run began with: "
                "put the earlier file back, or begin a new run"
            )
        self._positions = _parse_csv(content, name=path)

    def __call__(self, context: SeedContext) -> Int64[np.ndarray, "n 3"]:
        """Return the positions in this block's array."""
        seeds = self._positions.copy()
        seeds -= np.asarray(context.corner, dtype=np.int64)
        return seeds


def explicit_seeds(positions: Integer[np.ndarray, "n 3"]) -> SeedPolicySpec:
    """Describe seeds at these positions in the volume, z, y, x, flooded in this order.

    Raises
    ------
    OptionError
        When they are not rows of three integers.
    """
    return SeedPolicySpec(EXPLICIT, {"positions": _checked(positions).tolist()})


def seeds_from_csv(path: Path) -> SeedPolicySpec:
    """Describe the seeds in a CSV file, held to what the file contains now.

    Raises
    ------
    VolumeNotFoundError, VolumeFormatError, StorageError
        When there is no such file, it holds something else, or cannot be read.
    """
    content = _file_bytes(path)
    _parse_csv(content, name=str(path))
    args: Mapping[str, Any] = {
        "path": str(path),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    return SeedPolicySpec("ExplicitSeeds", args)


def read_seed_positions(path: Path) -> Int64[np.ndarray, "n 3"]:
    """Return the positions z, y, x in a CSV file, in its order.

    Raises
    ------
    VolumeNotFoundError, VolumeFormatError, StorageError
        When there is no such file, it holds something else, or cannot be read.
    """
    return _parse_csv(_file_bytes(path), name=str(path))


def _file_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise VolumeNotFoundError(f"no file {path}: give a CSV file with seeds") from None
    except ValueError as error:  # a NUL or half a surrogate pair in the name
        raise VolumeNotFoundError(f"{str(path)!r} is no file name: {error}") from None
    except OSError as error:
        raise storage_error("read", path, error) from error


def _parse_csv(content: bytes, *, name: str) -> Int64[np.ndarray, "n 3"]:
    try:
        text = content.decode("utf-8-sig")  # spreadsheets begin a file with a byte order mark
    except UnicodeDecodeError:
        raise VolumeFormatError(f"{name} is not text: give a CSV file in UTF-8") from None
    rows = csv.reader(text.splitlines())
    header = [column.strip() for column in next(rows, [])]
    if any(header.count(column) != 1 for column in CSV_COLUMNS):
        raise VolumeFormatError(
            f"{name} begins with {','.join(header)!r}: its first line must name the columns z,y,x"
        )
    columns = [header.index(column) for column in CSV_COLUMNS]
    positions = []
    for row in rows:
        if not any(cell.strip() for cell in row):
            continue
        try:
            positions.append([int(row[column]) for column in columns])
        except (IndexError, ValueError):
            raise VolumeFormatError(
                f"{name}, line {rows.line_num}: {','.join(row)!r} has no integers z,y,x: "
                "give voxel positions in the volume"
            ) from None
    return _checked(positions)


def _checked(positions: Any) -> Int64[np.ndarray, "n 3"]:
    try:
        array = np.asarray(positions if len(positions) else np.empty((0, 3), dtype=np.int64))
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.ndim != 2 or array.shape[1] != 3 or array.dtype.kind not in "iu":
        raise OptionError("explicit seeds are not rows of three integers: give positions z,y,x")
    if array.size and max(abs(int(array.min())), abs(int(array.max()))) > FARTHEST_POSITION:
        raise OptionError(
            f"explicit seeds lie at {array.min()} to {array.max()}: give voxels of the volume"
        )
    return array.astype(np.int64)
