"""The state of one block while it is flooded.

In: a normalised image and a predictor. Out: segments. The canvas holds the
logits of the current flood (NaN where it has not been), the segments accepted
so far and the probability with which each of their voxels was accepted.
Positions are z, y, x in the block's array.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float32, UInt8, UInt32

from floodem.flooding.options import FloodOptions, to_logit
from floodem.flooding.predictor import Predictor
from floodem.geometry import Box, Zyx

PROBABILITY_LEVELS = 255
"""Quantised probabilities: 0 never segmented, q stands for about (q - 0.5) / 255."""

UNDECIDED_LOGIT = 0.0
"""Of probability 0.5."""

AnswerListener = Callable[
    [Zyx, Float32[np.ndarray, "z y x"], Float32[np.ndarray, "z y x"]],
    None,
]
"""Takes a step's position, the logits before it (NaN: none), and what the network answered."""


def quantise_probability(logits: Float32[np.ndarray, "n"]) -> UInt8[np.ndarray, "n"]:
    """Return ``digitize(p, linspace(0, 1, 255))`` of the probabilities of these logits."""
    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
    edges = np.linspace(0.0, 1.0, PROBABILITY_LEVELS)
    return np.digitize(probabilities.astype(np.float32), edges).astype(np.uint8)


class Canvas:
    """Image, logits and segments of one block.

    Parameters
    ----------
    image
        Normalised intensities.
    predictor
        The network; it is given the image.
    options
        With pad value and move threshold filled in (`FloodOptions.completed`).
    deltas
        Step of the field of view.
    restricted
        True where the centre of a field of view may not go, or None.

    Attributes
    ----------
    on_answer
        Called in each step with what the network answered, before the rule of
        `FloodOptions.disco_seed_threshold` changes it; None: nobody listens.
    """

    def __init__(
        self,
        image: Float32[np.ndarray, "z y x"],
        predictor: Predictor,
        *,
        options: FloodOptions,
        deltas: Zyx,
        restricted: Bool[np.ndarray, "z y x"] | None = None,
    ) -> None:
        assert options.pad_value is not None
        assert options.move_threshold is not None
        self.image = image
        self.predictor = predictor
        self.fov = predictor.fov
        self.deltas = deltas
        self.restricted = restricted
        self.margin = (self.fov[0] // 2, self.fov[1] // 2, self.fov[2] // 2)
        z, y, x = image.shape
        self.shape: Zyx = (z, y, x)
        self.logits: Float32[np.ndarray, "z y x"] = np.full(self.shape, np.nan, np.float32)
        self.segmentation: UInt32[np.ndarray, "z y x"] = np.zeros(self.shape, np.uint32)
        self.probability: UInt8[np.ndarray, "z y x"] = np.zeros(self.shape, np.uint8)
        self.filled = 0
        """Voxels of the current flood at or above the segment threshold."""
        self.move_logit = to_logit(options.move_threshold)
        self.segment_logit = to_logit(options.segment_threshold)
        self._init_logit = to_logit(options.init_activation)
        self._pad_logit = to_logit(options.pad_value)
        self._disco_seed_threshold = options.disco_seed_threshold
        self.on_answer: AnswerListener | None = None
        predictor.load_image(image)

    def plant(self, seed: Zyx) -> None:
        """Begin a flood; the logits must be untouched everywhere."""
        self.logits[seed] = self._init_logit
        self.filled = int(self._init_logit >= self.segment_logit)

    def preset(self, mask: Bool[np.ndarray, "z y x"]) -> None:
        """Put voxels into the planted flood as its seed is: what an earlier one has filled."""
        self.logits[mask] = self._init_logit
        self.filled = int(np.count_nonzero(self.logits >= self.segment_logit))

    def erase(self, box: Box) -> None:
        """Forget the logits in a box, which must hold all that the flood has written."""
        self.logits[box.slices()] = np.nan

    def is_restricted(self, position: Zyx) -> bool:
        """Tell whether a mask keeps the field of view from being centred here."""
        return self.restricted is not None and bool(self.restricted[position])

    def is_open(self, position: Zyx) -> bool:
        """Tell whether the field of view fits here and the voxel is in no segment yet."""
        for p, margin, size in zip(position, self.margin, self.shape, strict=True):
            if p < margin or p + margin >= size:
                return False
        return not self.segmentation[position]

    def update(self, position: Zyx) -> Float32[np.ndarray, "z y x"]:
        """Ask the network about the field of view centred here and write its answer back.

        Voxels that the flood has visited and found outside (logit below 0) keep
        their logit where the new one is higher, once the network sees any of
        the object (`disco_seed_threshold`): a flood that has decided against a
        voxel does not come back for it, which would join two objects.

        Returns
        -------
        array of the field of view's shape
            The logits as written back.
        """
        corner = (
            position[0] - self.margin[0],
            position[1] - self.margin[1],
            position[2] - self.margin[2],
        )
        window = self.logits[Box.from_shape(self.fov, start=corner).slices()]
        before = window.copy()
        seed_logits = np.where(np.isnan(before), self._pad_logit, before)
        logits = self.predictor.predict(corner, seed_logits)
        if self.on_answer is not None:
            self.on_answer(position, before, logits)
        if self._disco_seed_threshold >= 0:
            inside = np.count_nonzero(logits >= self.move_logit) / logits.size
            if inside > self._disco_seed_threshold:
                # NaN compares false on both sides: untouched voxels are exempt.
                keeps = (before < UNDECIDED_LOGIT) & (logits > before)
                logits = np.where(keeps, before, logits)
        self.filled += int(np.count_nonzero(logits >= self.segment_logit))
        self.filled -= int(np.count_nonzero(before >= self.segment_logit))
        window[...] = logits
        return logits
