"""One flood after the other, and what the user wants with each: wishes in, floods out.

Wishes come from the server's threads and are only put in line there. One thread of its own
floods, keeps and takes back; between two network calls it looks for wishes. A flood that has
ended is pending until the user has decided about it, and the next seed waits as long, so that
it sees what was kept::

    seed --> waiting --> growing --> pending --> kept --> (undo)
                            |           |
                            +-----------+--> taken back
"""

from __future__ import annotations

import enum
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool

from floodem.errors import FloodemError
from floodem.flooding.flooder import FloodedObject, Flooder, FloodStep
from floodem.flooding.kept import KeptFloods
from floodem.flooding.sampling import within_its_box
from floodem.geometry import Box, Zyx
from floodem.viewer.clicking import sentences
from floodem.viewer.clicking.drawing import Snapshot
from floodem.volumes.volume import Array, Volume

READ_FOR_S = 3.0
"""How long an answer stays before a growing flood says again how far it is."""

MOST_WAITING = 100

_LOG = logging.getLogger(__name__)


class Wish(enum.Enum):
    """What the user wants with a flood."""

    STOP = "stop"
    KEEP = "keep"
    TAKE_BACK = "take back"
    UNDO = "undo"
    END = "end"
    """The viewer closes."""


class Screen(Protocol):
    """What the user sees; called by the thread that floods."""

    def show(self, snapshot: Snapshot | None, *, text: str, is_growing: bool = False) -> None:
        """Show what a flood has filled, or nothing, and say something, or leave what is said."""

    def is_due(self) -> bool:
        """Tell whether what grows may be shown again: not more often than pages can draw it."""

    def let_pages_draw(self) -> None:
        """Wait, not for long, until what is shown is likely seen."""

    def show_kept(self) -> None:
        """Show that other objects are kept than before."""

    def say(self, text: str) -> None:
        """Say something."""

    def ask_for_decision(self, *, is_asked: bool) -> None:
        """Listen to the keys that decide about a flood, or leave them to the page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """A segmentation that floods go around.

    Attributes
    ----------
    name
        What the user knows it by.
    volume
        With the voxels of the image.
    """

    name: str
    volume: Volume


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pending:
    """A flood about which nothing is decided yet."""

    made: FloodedObject
    label: int | None
    """Of the kept object that it goes on from."""


class FloodLine:
    """Floods what it is told to, in a thread of its own, until `close`.

    Parameters
    ----------
    flooder
        Used by that thread alone from `start` on.
    kept
        Where floods are kept; written by that thread alone.
    obstacles
        What else is there already.
    screen
        Told of everything.
    model_digest, options
        Of the floods, for their record.

    Attributes
    ----------
    quiet_until
        Until when (`time.monotonic`) an answer to the user is not written over.
    """

    quiet_until: float

    def __init__(
        self,
        flooder: Flooder,
        *,
        kept: KeptFloods,
        obstacles: Sequence[Obstacle],
        screen: Screen,
        model_digest: str,
        options: Mapping[str, Any],
    ) -> None:
        self._flooder = flooder
        self._kept = kept
        self._obstacles = tuple(obstacles)
        self._screen = screen
        self._facts: dict[str, Any] = {"model": model_digest, "options": options}
        self._wishes: queue.SimpleQueue[Wish | Zyx] = queue.SimpleQueue()
        self._waiting: deque[Zyx] = deque()
        self._pending: _Pending | None = None
        self._decision: Wish | None = None
        self.quiet_until = 0.0
        self._thread = threading.Thread(target=self._work, name="floodem-floods", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def wish(self, what: Wish | Zyx) -> None:
        """Put a wish, or a voxel to flood from, in line; any thread may."""
        self._wishes.put(what)

    def close(self) -> None:
        """Stop after the network call that is under way; what is pending is not kept."""
        if self._thread.is_alive():
            self._wishes.put(Wish.END)
            self._thread.join()

    def _work(self) -> None:
        self._screen.say("getting the network ready")
        self._attempt(self._flooder.warm_up)
        self._attempt(self._rest)
        while (wish := self._wishes.get()) is not Wish.END:
            self._attempt(partial(self._grant, wish))
            while self._pending is None and self._waiting:
                self._attempt(partial(self._flood, self._waiting.popleft()))

    def _attempt(self, work: Callable[[], None]) -> None:
        """Do something, and say what went wrong: a page must not wait for a thread that ended."""
        try:
            work()
        except FloodemError as error:
            self._screen.say(str(error))
        except Exception:  # noqa: BLE001 - any bug, which is logged with its trace
            _LOG.exception("a flood failed")
            self._screen.say("this went wrong in floodem itself: see where it was started")

    def _grant(self, wish: Wish | Zyx) -> None:
        """Do what was wished for while nothing grows."""
        if isinstance(wish, tuple):
            self._enqueue(wish)
        elif wish is Wish.KEEP and self._pending is not None:
            self._keep(self._pending)
        elif wish is Wish.TAKE_BACK and self._pending is not None:
            self._drop(f"taken back; {self._resting()}")
        elif wish is Wish.UNDO:
            self._undo()

    def _enqueue(self, seed: Zyx) -> None:
        if len(self._waiting) >= MOST_WAITING:
            self._screen.say(f"{MOST_WAITING} places wait already: decide about some first")
            return
        self._waiting.append(seed)
        if self._pending is not None:
            self._screen.say(self._finished(self._pending))

    def _flood(self, seed: Zyx) -> None:
        box = self._flooder.box_around(seed)
        if self._flooder.is_near_border(seed):
            self._screen.say(sentences.near_border(seed, half_fov=self._flooder.half_fov))
            return
        for obstacle in self._obstacles:
            owner = _label_at(obstacle.volume, seed)
            if owner:
                self._screen.say(
                    f"{sentences.place(seed)} (z,y,x) is in object {owner} of {obstacle.name}, "
                    "which floods go around: point beside it"
                )
                return
        label = self._kept.label_at(seed) or None
        taken, own = self._kept_in(box, label=label)
        self._decision = None
        self._screen.ask_for_decision(is_asked=True)
        growth = _Growth(self, seed, own=own)
        try:
            made = self._flooder.flood(
                seed,
                box=box,
                obstacles=[*taken, *(obstacle.volume for obstacle in self._obstacles)],
                continue_from=own,
                on_step=growth.look,
                should_stop=lambda: self._decision is not None,
            )
        except BaseException:
            self._drop("")
            raise
        self._settle(made, own=own, label=label)

    def _kept_in(
        self, box: Box, *, label: int | None
    ) -> tuple[list[Array], Bool[np.ndarray, "z y x"] | None]:
        """Return what is kept in a box as obstacles, and the object that is gone on with."""
        if self._kept.is_free(box):
            return [], None
        there = self._kept.read(box)
        if label is None:
            return [there != 0], None
        own = there == label
        return [(there != 0) & ~own], own

    def _settle(
        self, made: FloodedObject, *, own: Bool[np.ndarray, "z y x"] | None, label: int | None
    ) -> None:
        """Show what a flood has come to, and do what was wished meanwhile."""
        new = made if own is None else replace(made, mask=made.mask & ~own)
        decision, self._decision = self._decision, None
        if decision is Wish.END:
            self._wishes.put(Wish.END)
        if decision is Wish.TAKE_BACK:
            self._drop(f"taken back; {self._resting()}")
            return
        mask, box = within_its_box(new.mask, new.box)
        if box is None:
            self._drop(sentences.nothing_found(new))
            return
        self._pending = _Pending(made=new, label=label)
        self._screen.show(Snapshot(box, mask), text=self._finished(self._pending))
        if decision is Wish.KEEP:
            self._keep(self._pending)

    def _keep(self, pending: _Pending) -> None:
        flood = self._kept.keep(pending.made, label=pending.label, **self._facts)
        self._screen.show_kept()
        if flood is None:
            self._drop(f"nothing of it was free any more; {self._resting()}")
        else:
            self._drop(f"kept as {flood.label}; {self._resting()}")

    def _undo(self) -> None:
        if self._pending is not None:
            self._screen.say(sentences.DECIDE_FIRST)
            return
        flood = self._kept.undo()
        self._screen.show_kept()
        if flood is None:
            self._screen.say(f"there is nothing to take back; {self._resting()}")
        else:
            self._screen.say(f"took back the last flood of {flood.label}; {self._resting()}")

    def _drop(self, text: str) -> None:
        """Show no flood any more."""
        self._pending = None
        self._screen.ask_for_decision(is_asked=False)
        self._screen.show(None, text=text)

    def listen(self) -> None:
        """Take the wishes that came while a flood was growing."""
        while self._decision is None:
            try:
                wish = self._wishes.get_nowait()
            except queue.Empty:
                return
            if isinstance(wish, tuple):
                self._enqueue(wish)
            elif wish is Wish.UNDO:
                self._screen.say(sentences.DECIDE_FIRST)
                self.quiet_until = time.monotonic() + READ_FOR_S
            else:
                self._decision = wish

    @property
    def waiting(self) -> int:
        """How many seeds are in line."""
        return len(self._waiting)

    @property
    def shares_cores(self) -> bool:
        """Whether the network computes where a page on this machine does."""
        return self._flooder.device_type == "cpu"

    @property
    def screen(self) -> Screen:
        """What is told of everything."""
        return self._screen

    def _finished(self, pending: _Pending) -> str:
        label = self._kept.next_label if pending.label is None else pending.label
        return sentences.finished(
            pending.made, label=label, new=pending.made.voxels, waiting=self.waiting
        )

    def _resting(self) -> str:
        return sentences.resting(kept=len(self._kept.floods), destination=self._kept.uri)

    def _rest(self) -> None:
        self._screen.say(self._resting())


class _Growth:
    """Shows one flood while it grows.

    Parameters
    ----------
    own
        What the object had before, in the flood's box.
    """

    def __init__(
        self, line: FloodLine, seed: Zyx, *, own: Bool[np.ndarray, "z y x"] | None
    ) -> None:
        self._line, self._seed, self._own = line, seed, own
        self._before = 0 if own is None else int(np.count_nonzero(own))
        self._began = time.monotonic()
        self._is_shown = False

    def look(self, step: FloodStep) -> None:
        """Listen, and show how far the flood is when it is time."""
        self._line.listen()
        screen = self._line.screen
        if self._is_shown and not screen.is_due():
            return
        self._is_shown = True
        now = time.monotonic()
        mask = step.mask()
        if self._own is not None:
            mask &= ~self._own[step.reach.slices(origin=step.box.start)]
        text = sentences.growing(
            self._seed,
            voxels=max(0, step.voxels - self._before),
            calls=step.calls,
            seconds=now - self._began,
            waiting=self._line.waiting,
        )
        if now < self._line.quiet_until:
            text = ""
        screen.show(Snapshot(step.reach, mask), text=text, is_growing=True)
        if step.calls == 1 and self._line.shares_cores:
            # Else the next network call would take them from a page on this machine, and the
            # user would not see for a second or two that anything happens.
            screen.let_pages_draw()


def _label_at(volume: Volume, position: Zyx) -> int:
    """Return the id of a voxel, 0 outside of the volume."""
    if not volume.box.contains_point(position):
        return 0
    return int(volume.read(Box.from_shape((1, 1, 1), start=position))[0, 0, 0])
