"""Whether a segmentation still is what `segment` wrote: an address in, the verdict out.

The receipt in ``DST.floodem`` holds the SHA-256 of the labels as the canvas had
them (uint32, C order); the volume is read section by section and held against it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from floodem.errors import LabelError, RunConflictError, StorageError, VolumeFormatError
from floodem.flooding.run_folder import RunFolder, RunStatus
from floodem.flooding.segment import state_folder
from floodem.geometry import Box, tiles
from floodem.progress import Progress, ProgressListener
from floodem.volumes import open_volume
from floodem.volumes.volume import Volume, as_dtype

CANVAS_DTYPE = np.dtype(np.uint32)
_READ_BYTES = 64 * 2**20
_STAGE = "verify"


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentationCheck:
    """What checking a segmentation has found.

    Attributes
    ----------
    damages
        What is wrong, a sentence each; empty when all labels are as they were written.
    """

    uri: str
    record: str
    box: Box
    segments: int
    damages: tuple[str, ...]

    @property
    def is_whole(self) -> bool:
        """Whether all labels are as they were written."""
        return not self.damages

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "uri": self.uri,
            "record": self.record,
            "box": str(self.box),
            "segments": self.segments,
            "is_whole": self.is_whole,
            "damages": list(self.damages),
        }


def written_ns(uri: str | Path) -> int | None:
    """Return when a run of `segment` last stated how far it is, or None without a run."""
    run = state_folder(str(uri)) / "run.json"
    return run.stat().st_mtime_ns if run.is_file() else None


def verify_segmentation(
    uri: str | Path, *, progress: ProgressListener | None = None
) -> SegmentationCheck:
    """Hold a segmentation against the receipt of its run.

    Raises
    ------
    RunConflictError
        When the run is not finished, or its record is damaged.
    VolumeFormatError
        When the volume there is not the one of the record.
    FloodemError
        When the volume cannot be read at all.
    """
    address = str(uri)
    folder = RunFolder(state_folder(address), destination=address)
    if folder.read_run().get("status") != RunStatus.DONE:
        raise RunConflictError(
            f"the segmentation {address} was stopped before it was written: run the same "
            "`floodem segment` again"
        )
    with open_volume(address) as volume:
        receipt = folder.read_receipt(volume.box)
        if receipt is None:
            raise VolumeFormatError(
                f"{address} holds {volume.box} (z,y,x), for which there is no receipt in "
                f"{folder.path}: it was replaced, or the record is damaged"
            )
        digest, damages = _digest(volume, progress=progress)
        if not damages and digest != receipt["summary"].get("labels_sha256"):
            damages.append("its labels are not those that were written (their SHA-256 differs)")
        return SegmentationCheck(
            uri=address,
            record=str(folder.path),
            box=volume.box,
            segments=receipt["summary"]["segments"],
            damages=tuple(damages),
        )


def _digest(volume: Volume, *, progress: ProgressListener | None) -> tuple[str, list[str]]:
    """Return the SHA-256 of the labels as the canvas had them, and what could not be read."""
    found = hashlib.sha256()
    damages: list[str] = []
    done = 0
    section_bytes = volume.shape[1] * volume.shape[2] * volume.dtype.itemsize
    layers = max(1, _READ_BYTES // section_bytes)
    for tile in tiles(volume.box, core=(layers, *volume.shape[1:])):
        try:
            found.update(as_dtype(volume.read(tile.core), CANVAS_DTYPE).data)
        except (LabelError, VolumeFormatError, StorageError) as error:
            damages.append(f"box {tile.core} (z,y,x): {error}")
        done += tile.core.size
        if progress is not None:
            progress(Progress(stage=_STAGE, done=done, total=volume.box.size, unit="voxels"))
    return found.hexdigest(), damages
