"""A block half flooded, on disk: what `BlockFlooder` needs to go on as if nothing happened.

One npz file with a version, plain arrays and one JSON text; nothing in it is
executed. It is replaced in one piece, so that a process killed while writing
leaves the one before.
"""

from __future__ import annotations

import dataclasses
import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from floodem.errors import RunConflictError
from floodem.files import replacing, storage_error
from floodem.flooding.block import BlockFlooder, Origin
from floodem.flooding.flood import Flood, FloodEnd
from floodem.geometry import Box

CHECKPOINT_VERSION = 1

_Arrays = dict[str, np.ndarray[Any, np.dtype[Any]]]

_DAMAGE = (
    *(AttributeError, IndexError, KeyError, TypeError, ValueError),  # other values than we wrote
    *(EOFError, NotImplementedError, RecursionError, zipfile.BadZipFile, zlib.error),
)
"""What reading a file raises that is not as `save_checkpoint` made it."""


def save_checkpoint(
    path: Path, flooder: BlockFlooder, *, made_from: str = "", seconds: float = 0.0
) -> None:
    """Write the state of a block between two steps.

    Parameters
    ----------
    made_from
        Digest of image, model and options, for where nothing beside the file says it.
    seconds
        How long it was flooded so far.

    Raises
    ------
    StorageError
        When the file system refuses; the last checkpoint is still there.
    """
    canvas, flood = flooder.canvas, flooder.flood
    state = {
        "version": CHECKPOINT_VERSION,
        "made_from": made_from,
        "seconds": seconds,
        "next_seed": flooder.next_seed,
        "largest_id": flooder.largest_id,
        "counters": dict(flooder.counters),
        "origins": {i: dataclasses.asdict(origin) for i, origin in flooder.origins.items()},
        "overlaps": flooder.overlaps,
        "flood": None if flood is None else flood.state(canvas),
    }
    reach = Box((0, 0, 0), (0, 0, 0)) if flood is None else flood.reach(canvas)
    with replacing(path) as partial, open(partial, "wb") as file:
        np.savez(
            file,
            state=np.frombuffer(json.dumps(state).encode(), np.uint8),
            segmentation=canvas.segmentation,
            probability=canvas.probability,
            logits=canvas.logits[reach.slices()],
            seeds=flooder.seeds,
            outcomes=flooder.outcomes,
        )


def load_checkpoint(path: Path, flooder: BlockFlooder, *, made_from: str = "") -> float:
    """Bring a new flooder to the saved state.

    Parameters
    ----------
    made_from
        As it was saved with.

    Returns
    -------
    float
        How many seconds it was flooded before.

    Raises
    ------
    RunConflictError
        When the file is damaged, of another version or made from something else; the
        flooder is of no use then.
    StorageError
        When it cannot be read.
    """
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is no npz archive")
        with np.load(path, allow_pickle=False) as saved:
            state = json.loads(saved["state"].tobytes())
            if state["version"] != CHECKPOINT_VERSION:
                raise RunConflictError(
                    f"{path} has checkpoint version {state['version']}; this floodem reads "
                    f"{CHECKPOINT_VERSION}: finish the run with the floodem that began it, or "
                    "begin again with --overwrite"
                )
            if state.get("made_from", "") != made_from:
                raise RunConflictError(
                    f"{path} was made from another image, model or options: begin again with "
                    "--overwrite"
                )
            arrays = {name: saved[name] for name in saved.files if name != "state"}
        _require_fitting(flooder, state, arrays)
        _restore(flooder, state, arrays)
        return float(state.get("seconds", 0.0))
    except OSError as error:
        raise storage_error("read", path, error) from error
    except _DAMAGE as error:
        raise RunConflictError(
            f"{path} is damaged ({error}): begin again with --overwrite"
        ) from error


def _require_fitting(flooder: BlockFlooder, state: dict[str, Any], arrays: _Arrays) -> None:
    """Refuse arrays that are not the block's, before any of them is used.

    Raises
    ------
    ValueError
        Naming the first that does not fit.
    """
    block, seeds = flooder.canvas.shape, len(arrays["seeds"])
    expected = {
        "segmentation": (flooder.canvas.segmentation.dtype, block),
        "probability": (flooder.canvas.probability.dtype, block),
        "seeds": (flooder.seeds.dtype, (seeds, 3)),
        "outcomes": (flooder.outcomes.dtype, (seeds,)),
    }
    for name, (dtype, shape) in expected.items():
        if arrays[name].dtype != dtype or arrays[name].shape != shape:
            raise ValueError(
                f"{name} is {arrays[name].dtype} {arrays[name].shape}, not {dtype} {shape}"
            )
    if not 0 <= state["next_seed"] <= seeds:
        raise ValueError(f"it is at seed {state['next_seed']} of {seeds}")


def _restore(flooder: BlockFlooder, state: dict[str, Any], arrays: _Arrays) -> None:
    canvas = flooder.canvas
    canvas.segmentation[...] = arrays["segmentation"]
    canvas.probability[...] = arrays["probability"]
    flooder.seeds, flooder.outcomes = arrays["seeds"], arrays["outcomes"]
    flooder.next_seed = int(state["next_seed"])
    flooder.largest_id = int(state["largest_id"])
    flooder.counters.update(state["counters"])
    for name, values in state["origins"].items():
        z, y, x = values["start"]
        flooder.origins[int(name)] = Origin(
            **{**values, "start": (z, y, x), "end": FloodEnd(values["end"])}
        )
    flooder.overlaps.update(
        {
            int(name): {int(other): count for other, count in counts.items()}
            for name, counts in state["overlaps"].items()
        }
    )
    if state["flood"] is not None:
        flooder.flood = Flood.restore(canvas, state["flood"])
        canvas.logits[flooder.flood.reach(canvas).slices()] = arrays["logits"]
