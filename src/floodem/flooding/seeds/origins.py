"""Seeds from an earlier result: where its segments began, in the opposite order.

In: the folder beside a segmentation, with its origins.json. Out: the origins in
this block's array, highest segment id first.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from floodem.errors import OptionError, VolumeFormatError, VolumeNotFoundError
from floodem.files import storage_error
from floodem.flooding.seeds.context import SeedContext
from floodem.flooding.seeds.registry import seed_policy
from floodem.geometry import FARTHEST_POSITION, Zyx

ORIGINS_FILE = "origins.json"
ORIGINS_VERSION = 1
SIDECAR_SUFFIX = ".floodem"
_ID = re.compile(r"[0-9]{1,20}")
OLD_RESULT_PATTERNS = ("seg-*.npz", "*/*/seg-*.npz")


@seed_policy("PolicyInvertOrigins", "PolicyInverseOrigins")
@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyInvertOrigins:
    """The origins of an earlier segmentation, highest id first.

    Parameters
    ----------
    segmentation_dir
        The earlier segmentation, the folder ``.floodem`` beside it, or the
        origins.json in there.
    corner
        Only for results of the older program, which kept origins relative to a
        block's corner; ours are positions in the volume.
    """

    segmentation_dir: Any
    corner: Any = None

    def __post_init__(self) -> None:
        where = self.segmentation_dir
        if not isinstance(where, str) or not where or "\0" in where:
            raise OptionError(
                f"PolicyInvertOrigins segmentation_dir is {where!r}: "
                "give the path of an earlier segmentation"
            )
        if self.corner is not None:
            raise OptionError(
                f"PolicyInvertOrigins corner is {self.corner!r}: leave it out, "
                f"{ORIGINS_FILE} holds positions in the volume"
            )

    def __call__(self, context: SeedContext) -> Int64[np.ndarray, "n 3"]:
        """Return the origins in this block's array, those outside of it included."""
        origins = read_origins(find_origins(Path(self.segmentation_dir)))
        positions = [origins[segment] for segment in sorted(origins, reverse=True)]
        seeds = np.asarray(positions, dtype=np.int64).reshape(-1, 3)
        seeds -= np.asarray(context.corner, dtype=np.int64)
        return seeds


def find_origins(path: Path) -> Path:
    """Return the origins.json that belongs to a segmentation, its folder or itself.

    Raises
    ------
    VolumeNotFoundError
        When there is none.
    OptionError
        When there are results of the older program instead.
    """
    beside = Path(f"{path}{SIDECAR_SUFFIX}") / ORIGINS_FILE
    for candidate in (path, path / ORIGINS_FILE, beside):
        if candidate.suffix == ".json" and candidate.is_file():
            return candidate
    if any(next(path.glob(pattern), None) for pattern in OLD_RESULT_PATTERNS):
        raise OptionError(
            f"{path} holds results of the older program (seg-*.npz), whose origins cannot be used "
            f"as seeds: give a segmentation with {ORIGINS_FILE} beside it"
        )
    raise VolumeNotFoundError(
        f"no {ORIGINS_FILE} for {path}, nor at {beside}: give the path of an earlier segmentation"
    )


def read_origins(path: Path) -> dict[int, Zyx]:
    """Return where each segment began: id to position z, y, x in the volume.

    Raises
    ------
    VolumeFormatError
        When the file is not what its name says, or of a later version.
    StorageError
        When it cannot be read.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise storage_error("read", path, error) from error
    except (ValueError, RecursionError) as error:
        raise VolumeFormatError(f"{path} is not JSON ({error}): choose another result") from error
    match content:
        case {"version": version, "origins": dict() as origins} if version == ORIGINS_VERSION:
            return dict(_origin(path, segment, record) for segment, record in origins.items())
    raise VolumeFormatError(
        f"{path} holds no origins of version {ORIGINS_VERSION}: make it again with this program"
    )


def _origin(path: Path, segment: str, record: Any) -> tuple[int, Zyx]:
    match record:
        case {"start_zyx": [int() as z, int() as y, int() as x]} if (
            _ID.fullmatch(segment) and max(abs(z), abs(y), abs(x)) <= FARTHEST_POSITION
        ):
            return int(segment), (z, y, x)
    raise VolumeFormatError(
        f"{path} says of segment {segment!r}: {record!r}, which gives no start_zyx of three "
        "integers: make it again"
    )
