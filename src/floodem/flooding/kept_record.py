"""What stands beside kept floods: which there are, and which voxels each of them has written.

In and out: plain values and masks. The folder ``DST.floodem`` holds

kept.json       every kept flood in order, and the step that is being done
voxels/N.bits   the voxels that flood N has written: one bit each, packed, compressed (zlib)
origins.json    where each object began, as beside the result of `floodem segment`
lock            held by who may write

Each file is replaced in one piece. What is being done is written down before it is done,
so that it can be finished after a crash (floodem.flooding.kept).
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
from jaxtyping import Bool

from floodem.errors import FloodemError, RunConflictError
from floodem.files import replacing, storage_error, write_text
from floodem.flooding.results import ORIGINS_VERSION
from floodem.flooding.run_folder import ORIGINS
from floodem.geometry import Box, Zyx

RECORD = "kept.json"
RECORD_VERSION = 1
VOXELS = "voxels"
_BITS_SUFFIX = ".bits"
_LARGEST_RECORD = 2**28
"""Of kept.json in bytes: a flood takes about 700, so that half a million fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptFlood:
    """A flood that was kept.

    Attributes
    ----------
    label
        The id of its object; a flood that went on from an object has that one's.
    seed
        Where it began, z, y, x in the volume.
    box
        The smallest that holds the voxels it has written.
    voxels
        How many it has written.
    calls, seconds
        Network calls and wall time.
    end
        Why it ended, or None where the user stopped it.
    model
        SHA-256 of the network.
    options
        As in the record of a run.
    image
        Address.
    kept_at
        Time, UTC, ISO 8601.
    bits_sha256
        Of the file that says which voxels.
    """

    label: int
    seed: Zyx
    box: Box
    voxels: int
    calls: int
    seconds: float
    end: str | None
    model: str
    options: Mapping[str, Any]
    image: str
    kept_at: str
    bits_sha256: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        values = asdict(self)
        values["seed_zyx"] = list(values.pop("seed"))
        return {**values, "box": str(self.box)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> KeptFlood:
        """Make one of plain values.

        Raises
        ------
        KeyError, TypeError, ValueError
            When they are not those of a flood.
        """
        given = dict(values)
        z, y, x = (int(at) for at in given.pop("seed_zyx"))
        box = Box.parse(given.pop("box"))
        flood = cls(seed=(z, y, x), box=box, **given)
        whole = (flood.label, flood.voxels, flood.calls)
        if not all(type(one) is int for one in whole) or min(flood.label, flood.voxels) < 1:
            raise ValueError(f"flood {flood.label!r} has {flood.voxels!r} voxels")
        if not isinstance(flood.bits_sha256, str):
            raise TypeError("a digest is text")
        return flood


@dataclass(frozen=True, slots=True)
class Step:
    """A step that is being done.

    Attributes
    ----------
    action
        Whether `flood` is being written, or taken back.
    """

    action: Literal["keep", "undo"]
    flood: KeptFlood


class KeptRecord:
    """Reads and writes the folder beside kept floods; its lock is held by the caller.

    Attributes
    ----------
    about
        What belongs to all floods: image, box and voxel size.
    floods
        Those that are in the volume, in the order they were kept.
    step
        What is being done, or None.
    """

    def __init__(self, folder: Path, *, destination: str, about: Mapping[str, Any]) -> None:
        self.folder = folder
        self.destination = destination
        self.about = dict(about)
        self.floods: tuple[KeptFlood, ...] = ()
        self.step: Step | None = None

    @property
    def path(self) -> Path:
        """Where the record is."""
        return self.folder / RECORD

    def load(self) -> None:
        """Read what is there.

        Raises
        ------
        RunConflictError
            When it is damaged or of another version.
        StorageError
            When the file system refuses.
        """
        try:
            if self.path.stat().st_size > _LARGEST_RECORD:
                self._damaged(f"it is larger than {_LARGEST_RECORD} bytes")
            values = json.loads(self.path.read_text(encoding="utf-8"))
        except OSError as error:
            raise storage_error("read", self.path, error) from error
        except (ValueError, RecursionError) as error:
            self._damaged(str(error))
        match values:
            case {"version": version} if version != RECORD_VERSION:
                raise RunConflictError(
                    f"{self.path} has version {version!r}; this floodem reads {RECORD_VERSION}: "
                    "use the floodem that made it, or keep floods elsewhere"
                )
            case {"about": dict() as about, "floods": list() as floods, "step": step}:
                pass
            case _:
                self._damaged("it lists no floods")
        try:
            self.floods = tuple(KeptFlood.from_json(flood) for flood in floods)
            self.step = None if step is None else _step(step)
        except (FloodemError, AttributeError, KeyError, TypeError, ValueError) as error:
            self._damaged(str(error))
        self.about = about

    def begin(self, step: Step) -> None:
        """Write down what will be done."""
        self._save(self.floods, step)

    def finish(self) -> None:
        """Write down that it was done."""
        assert self.step is not None
        is_kept = self.step.action == "keep"
        floods = (*self.floods, self.step.flood) if is_kept else self.floods[:-1]
        write_text(self.folder / ORIGINS, json.dumps(_origins(floods), indent=1) + "\n")
        self._save(floods, None)

    def abandon(self) -> None:
        """Write down that it will not be done."""
        self._save(self.floods, None)

    def write_bits(self, number: int, mask: Bool[np.ndarray, "z y x"]) -> str:
        """Write which voxels flood `number` (from 1) will write; return the file's digest."""
        data = zlib.compress(np.packbits(mask).tobytes())
        path = self._bits(number)
        try:
            path.parent.mkdir(exist_ok=True)
            with replacing(path) as partial:
                partial.write_bytes(data)
        except OSError as error:
            raise storage_error("write", path, error) from error
        return hashlib.sha256(data).hexdigest()

    def read_bits(self, number: int, flood: KeptFlood) -> Bool[np.ndarray, "z y x"]:
        """Return which voxels of `flood.box` flood `number` has written.

        Raises
        ------
        RunConflictError
            When the file is damaged.
        StorageError
            When it cannot be read.
        """
        path = self._bits(number)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise storage_error("read", path, error) from error
        size = -(-flood.box.size // 8)
        if hashlib.sha256(data).hexdigest() != flood.bits_sha256:
            self._damaged(f"{path.name} is not the file it names")
        try:
            packed = zlib.decompressobj().decompress(data, size + 1)
        except zlib.error as error:
            self._damaged(f"{path.name}: {error}")
        if len(packed) != size:
            self._damaged(f"{path.name} does not have the size of box {flood.box}")
        bits = np.unpackbits(np.frombuffer(packed, np.uint8), count=flood.box.size)
        return bits.reshape(flood.box.shape).astype(bool)

    def remove_bits(self, number: int) -> None:
        """Forget which voxels flood `number` has written, if that is known."""
        self._bits(number).unlink(missing_ok=True)

    def _bits(self, number: int) -> Path:
        return self.folder / VOXELS / f"{number}{_BITS_SUFFIX}"

    def _save(self, floods: tuple[KeptFlood, ...], step: Step | None) -> None:
        values = {
            "version": RECORD_VERSION,
            "about": self.about,
            "floods": [flood.to_json() for flood in floods],
            "step": None if step is None else {"action": step.action, **step.flood.to_json()},
        }
        write_text(self.path, json.dumps(values, indent=1) + "\n")
        self.floods, self.step = floods, step

    def _damaged(self, reason: str) -> NoReturn:
        raise RunConflictError(
            f"{self.path} is damaged ({reason}): keep floods elsewhere, or repair it from a copy"
        )


def _step(values: Mapping[str, Any]) -> Step:
    given = dict(values)
    action = given.pop("action")
    if action not in {"keep", "undo"}:
        raise ValueError(f"no step is called {action!r}")
    return Step(action, KeptFlood.from_json(given))


def _origins(floods: tuple[KeptFlood, ...]) -> dict[str, Any]:
    """Return where each object began, with the counts of all its floods together."""
    origins: dict[int, dict[str, Any]] = {}
    for flood in floods:
        earlier = origins.get(flood.label, {"iters": 0, "seconds": 0.0, "voxels": 0})
        origins[flood.label] = {
            "start_zyx": earlier.get("start_zyx", list(flood.seed)),
            "iters": earlier["iters"] + flood.calls,
            "seconds": round(earlier["seconds"] + flood.seconds, 3),
            "voxels": earlier["voxels"] + flood.voxels,
            "end": flood.end or "stopped",
        }
    return {"version": ORIGINS_VERSION, "origins": origins}
