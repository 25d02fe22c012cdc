"""Labels in whatever form they are given: addresses, open volumes or arrays in, volumes out."""

from __future__ import annotations

import contextlib
import os
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from floodem.cluster.crew import Crew
from floodem.errors import OptionError
from floodem.labels.runs import Labels
from floodem.shapes.source import LabelSource
from floodem.volumes.in_memory import ArrayVolume
from floodem.volumes.servers.addresses import is_remote
from floodem.volumes.volume import Volume

Labelled = Volume | Labels | LabelSource | str | Path
"""Labels in memory, open, or by their address."""


def label_source(labels: Labelled) -> LabelSource | None:
    """Return where labels are, None where they are open or in memory."""
    if isinstance(labels, str | Path):
        return LabelSource(uri=str(labels))
    return labels if isinstance(labels, LabelSource) else None


def opening(labels: Labelled, *, name: str) -> AbstractContextManager[Volume]:
    """Open an address, to be closed again; what is open already stays open."""
    source = label_source(labels)
    if source is not None:
        return source.open()
    if isinstance(labels, Volume):
        return contextlib.nullcontext(labels)
    assert isinstance(labels, np.ndarray)
    return contextlib.nullcontext(ArrayVolume(labels, uri=name))


def require_work(crew: Crew, work: str | Path | None) -> None:
    """Refuse shards and clusters without a folder for what they count.

    Raises
    ------
    OptionError
        When there is none.
    """
    if (crew.shard is not None or crew.cluster is not None) and work is None:
        raise OptionError(
            "shards and clusters leave what they count in a folder that all of them see: name it "
            "with --work (work)"
        )


def absolute(work: str | Path) -> str:
    """Return an address that means the same to workers elsewhere."""
    return str(work) if is_remote(str(work)) else os.path.abspath(work)
