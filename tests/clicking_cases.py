"""Tubes to click on, a network that finds them at a pace, and a screen that writes down."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import numpy as np

from array_volume import ArrayVolume
from bright import bright_model, bright_tubes
from floodem.flooding.flooder import Flooder
from floodem.flooding.request import SegmentRequest
from floodem.geometry import VoxelSize
from floodem.viewer.clicking.flood_line import FloodLine
from floodem.viewer.clicking.pace import Pace

OFFSET = (100, 200, 300)
SIZE = VoxelSize(30, 6, 6)
TUBE, SECOND_TUBE = (105, 206, 320), (105, 220, 340)
"""On the axes of two tubes of the image."""

DARK = (112, 213, 320)
ON_CPU = SegmentRequest(device="cpu")
WITHIN_S = 20.0


def tubes(shape=(24, 40, 64)):
    return ArrayVolume(bright_tubes(shape)[0], offset=OFFSET, voxel_size=SIZE)


def until(condition, *, within_s=WITHIN_S):
    """Wait for what another thread does."""
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


class Gate:
    """Lets a flood make so many network calls, and then more."""

    def __init__(self, calls=0):
        self._left = threading.Semaphore(calls)

    def open(self, calls=10_000):
        self._left.release(calls)

    def before_call(self):
        assert self._left.acquire(timeout=WITHIN_S)


@dataclass
class FakeScreen:
    """What a user would have seen, in order."""

    said: list = field(default_factory=list)
    shown: list = field(default_factory=list)
    asked: list = field(default_factory=list)
    kept: int = 0
    pauses: int = 0
    pace: Pace = field(default_factory=Pace)

    def show(self, snapshot, *, text, is_growing=False):
        self.shown.append(snapshot)
        self.pace.has_shown()
        if text:
            self.said.append(text)

    def is_due(self):
        return self.pace.is_due()

    def let_pages_draw(self):
        self.pauses += 1

    def show_kept(self):
        self.kept += 1

    def say(self, text):
        self.said.append(text)

    def ask_for_decision(self, *, is_asked):
        self.asked.append(is_asked)

    @property
    def now(self):
        return self.said[-1] if self.said else ""

    def has_said(self, text):
        return any(text in one for one in self.said)


def line_of(volume, *, kept, screen, obstacles=(), gate=None, reach=128):
    """A line that floods; with a gate its network waits before each call."""
    flooder = Flooder(volume, model=bright_model(), request=ON_CPU, reach=reach)
    if gate is not None:
        predict = flooder._predictor.predict

        def gated(corner, seed_logits):
            gate.before_call()
            return predict(corner, seed_logits)

        flooder._predictor.predict = gated
        gate.open(1)  # for the warm-up
    return FloodLine(
        flooder,
        kept=kept,
        obstacles=obstacles,
        screen=screen,
        model_digest="d" * 64,
        options={"segment_threshold": 0.6},
    )


def painted(volume, snapshot):
    """A snapshot as a mask of the whole volume."""
    whole = np.zeros(volume.shape, bool)
    if snapshot is not None:
        whole[snapshot.box.slices(origin=volume.offset)] = snapshot.mask
    return whole
