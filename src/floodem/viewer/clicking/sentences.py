"""What the status line says: numbers in, one sentence out."""

from __future__ import annotations

from floodem.counting import counted
from floodem.flooding.flood import FloodEnd
from floodem.flooding.flooder import FloodedObject
from floodem.geometry import Zyx

DECIDE_FIRST = "decide about this flood first: Enter keeps it, Backspace takes it back"
HOW_TO_BEGIN = "f or shift+click on a cell floods it"


def place(position: Zyx) -> str:
    """Return a position as it is typed elsewhere."""
    return ",".join(str(at) for at in position)


def near_border(seed: Zyx, *, half_fov: Zyx) -> str:
    """Say that what the network looks at around a seed would not be within the image."""
    return (
        f"{place(seed)} (z,y,x) is nearer to the image's border than half the field of view, "
        f"{place(half_fov)} voxels: point further inside"
    )


def resting(*, kept: int, destination: str) -> str:
    """Say what can be done while nothing is flooded."""
    if not kept:
        return f"{HOW_TO_BEGIN}; what you keep goes to {destination}"
    return f"{HOW_TO_BEGIN}, u takes the last one back; {counted(kept, 'flood')} in {destination}"


def growing(seed: Zyx, *, voxels: int, calls: int, seconds: float, waiting: int) -> str:
    """Say how far a flood is."""
    return (
        f"flooding from {place(seed)} (z,y,x): {_amount(voxels, calls, seconds)}{_queue(waiting)}"
        " — Escape stops it, Enter keeps it, Backspace takes it back"
    )


def finished(made: FloodedObject, *, label: int, new: int, waiting: int) -> str:
    """Say what became of a flood, and ask what to do with it."""
    if made.end is None:
        what = "stopped"
    elif made.end is FloodEnd.EXHAUSTED:
        what = "done"
    else:
        what = f"ended by {made.end.value}"
    edge = "; it reached the edge of its box: keep it and press f there to go on"
    return (
        f"{what}: {_amount(new, made.calls, made.seconds)}{edge if made.is_cut else ''}"
        f"{_queue(waiting)} — Enter keeps it as {label}, Backspace takes it back"
    )


def nothing_found(made: FloodedObject) -> str:
    """Say that there is nothing to decide about."""
    where = place(made.seed)
    if made.end is FloodEnd.WEAK_SEED:
        return f"the network sees no object at {where} (z,y,x): try another place"
    return f"nothing new was found from {where} (z,y,x), in {counted(made.calls, 'network call')}"


def _amount(voxels: int, calls: int, seconds: float) -> str:
    rate = f", {calls / seconds:.1f} a second" if seconds > 0 else ""
    return f"{counted(voxels, 'voxel')}, {counted(calls, 'network call')}{rate}"


def _queue(waiting: int) -> str:
    return f"; {waiting} more waiting" if waiting else ""
