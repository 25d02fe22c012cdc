"""What the flooding thread shows, as a page has it: snapshots and sentences in, state out.

All of it goes through Neuroglancer's configuration state, which belongs to this side. The
viewer's own state (layers, position, zoom) belongs to the page once it is open: to change it
from here would make every page load all of its layers anew.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

from floodem.viewer.clicking.drawing import Growing, Snapshot
from floodem.viewer.clicking.pace import Pace

FLOOD, UNDO = "floodem-flood", "floodem-undo"
DRAWN = "floodem-drawn"
"""What the page's own script sends (``page/clicking.js``), with the seconds that it has drawn."""

STOP, KEEP, TAKE_BACK = "floodem-stop", "floodem-keep", "floodem-take-back"

ALWAYS: Mapping[str, str] = {"keyf": FLOOD, "shift+click0": FLOOD, "keyu": UNDO}
"""Where the mouse is over a panel. None of these means anything to the client itself."""

TO_DECIDE: Mapping[str, str] = {
    "escape": STOP,
    "enter": KEEP,
    "numpadenter": KEEP,
    "backspace": TAKE_BACK,
}
"""The same, while a flood is pending; else Enter and Backspace are the client's, for annotations.
Outside of the panels they are never ours: there they end what is typed."""

_STATUS = "floodem"

_LOADED_WITHIN_S, _DRAWN_WITHIN_S = 0.3, 0.1


class PageScreen:
    """Shows floods in the pages of a viewer.

    Parameters
    ----------
    client
        A ``neuroglancer.Viewer``.
    growing
        What `pending` volumes read.
    pending, kept
        The volumes (`live_labels`) that show the flood, slices and mesh, and the kept ones.
    """

    def __init__(
        self, client: Any, growing: Growing, *, pending: tuple[Any, Any], kept: tuple[Any, ...]
    ) -> None:
        self._client = client
        self._growing = growing
        self._pending, self._kept = pending, kept
        self._pace = Pace()
        self._lock = threading.Lock()
        self._bind(ALWAYS, is_bound=True)

    def show(self, snapshot: Snapshot | None, *, text: str, is_growing: bool = False) -> None:
        """Show what a flood has filled, or nothing, and say something.

        The mesh of what is growing is left as it was where drawing it again costs too much.
        """
        self._growing.show(snapshot)
        self._pace.has_shown()
        slices, meshes = self._pending
        has_mesh = not is_growing or self._pace.takes_mesh()
        self._tell((slices, meshes) if has_mesh else (slices,), text=text or None)

    def is_due(self) -> bool:
        """Tell whether what grows may be shown again: not more often than pages can draw it."""
        return self._pace.is_due()

    def hear(self, action_state: Any) -> None:
        """Take a page's word on how long it has drawn."""
        self._pace.has_drawn(action_state.to_json().get("drawnForS"))

    def let_pages_draw(self) -> None:
        """Wait, not for long, until what is shown was loaded by a page and is likely drawn."""
        if self._growing.wait_until_read(_LOADED_WITHIN_S):
            time.sleep(_DRAWN_WITHIN_S)

    def show_kept(self) -> None:
        """Show that other objects are kept than before."""
        self._tell(self._kept, text=None)

    def say(self, text: str) -> None:
        """Say something in the status line."""
        self._tell((), text=text)

    def ask_for_decision(self, *, is_asked: bool) -> None:
        """Take the keys that decide about a flood, or give them back to the client."""
        self._bind(TO_DECIDE, is_bound=is_asked)

    def close(self) -> None:
        """Take back all keys and the status line."""
        for bindings in (ALWAYS, TO_DECIDE):
            self._bind(bindings, is_bound=False)
        with self._lock, self._client.config_state.txn() as state:
            state.status_messages = _without(state.status_messages, {_STATUS})

    def _tell(self, changed: tuple[Any, ...], *, text: str | None) -> None:
        """Let pages read volumes again and say something, in one message to them."""
        manager = self._client.volume_manager
        with self._lock, self._client.config_state.txn() as state:
            for volume in changed:
                volume.change_count += 1
            state.source_generations = {
                manager.get_volume_key(volume): volume.change_count
                for volume in manager.volumes.values()
            }
            if text is not None:
                state.status_messages = {**dict(state.status_messages.items()), _STATUS: text}

    def _bind(self, bindings: Mapping[str, str], *, is_bound: bool) -> None:
        with self._lock, self._client.config_state.txn() as state:
            panels = state.input_event_bindings
            others = _without(panels.data_view, set(bindings))
            panels.data_view = {**others, **(bindings if is_bound else {})}


def _without(pairs: Any, keys: set[str]) -> dict[str, str]:
    return {key: value for key, value in pairs.items() if key not in keys}
