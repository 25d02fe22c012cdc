"""What is held out of training: checked addresses in, and how much they can say about a network.

A score means little on three objects, and less when calling everything one segment
would score as well. Both are known before the first step, so a user is told then.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from floodem.counting import counted
from floodem.errors import LabelError
from floodem.evaluation.scores import scores
from floodem.geometry import Box, Zyx, tiles
from floodem.labels import OverlapCounter, contingency, require_labels
from floodem.volumes.volume import Volume

FEW_OBJECTS = 10
"""With fewer, one object more or less moves the adapted Rand error by a tenth or so."""

_READ_AT_ONCE: Zyx = (64, 256, 256)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """What is flooded and scored again and again.

    Attributes
    ----------
    image, labels
        Addresses.
    box
        Voxels to segment, in the frame of both.
    border
        Voxels at each face of `box` that are not scored, z, y, x.
    voxels, objects
        With a label, among those that are scored.
    one_segment_error
        Adapted Rand error of one segment over all of them: what no network needs to
        be trained for.
    """

    image: str
    labels: str
    box: Box
    border: Zyx
    voxels: int
    objects: int
    one_segment_error: float

    @property
    def scored(self) -> Box:
        """The box without its border."""
        return _without(self.box, self.border)

    @property
    def sentence(self) -> str:
        """What the scores are worth."""
        advice = (
            "; so few say little about a network: hold out a larger box"
            if self.objects < FEW_OBJECTS
            else ""
        )
        return (
            f"validation scores {self.voxels:,} labelled voxels of "
            f"{counted(self.objects, 'object')} in {self.scored} (z,y,x) of {self.labels}, where "
            f"one segment over everything has an adapted Rand error of "
            f"{self.one_segment_error:.3f}{advice}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {
            **dataclasses.asdict(self),
            "box": str(self.box),
            "border": list(self.border),
            "scored": str(self.scored),
        }


def measure(image: str, labels: Volume, *, address: str, box: Box, border: Zyx) -> HeldOut:
    """Read the truth once and say what it can tell.

    Parameters
    ----------
    image, address
        Addresses of image and labels, as the user gave them.
    box, border
        Voxels to segment, and how many at each face (z, y, x) are not scored.

    Raises
    ------
    LabelError
        When the volume holds no labels, or none where it is scored.
    """
    scored = _without(box, border)
    counter = OverlapCounter()
    for tile in tiles(scored, core=_READ_AT_ONCE):
        truth = labels.read(tile.core)
        require_labels(truth, what=labels.uri)
        counter.add(contingency(np.ones_like(truth), truth))
    table = counter.table()
    labelled = table.select(table.ids_b != 0)
    if not len(labelled):
        raise LabelError(
            f"{labels.uri} has no label in {scored} (z,y,x), which validation.box {box} less its "
            "border leaves to score against: give a labelled box"
        )
    found = scores(labelled)
    return HeldOut(
        image=image,
        labels=address,
        box=box,
        border=border,
        voxels=found.voxels,
        objects=found.objects,
        one_segment_error=found.adapted_rand_error,
    )


def _without(box: Box, border: Zyx) -> Box:
    return box.grow((-border[0], -border[1], -border[2]))
