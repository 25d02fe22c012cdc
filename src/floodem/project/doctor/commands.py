"""Commands ready to copy: addresses and proposals in, lines for a shell out."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from floodem.project.doctor.findings import Proposal

_SEGMENT = ("min_boundary_dist", "min_segment_size", "block")
"""What is not the command's default anyway."""

_PREPARED = "em.zarr"
_EQUALISED = "em-clahe.zarr"
_SEGMENTATION = "seg.zarr"


def commands_for(
    image: str,
    *,
    labels: str | None,
    model: str | None,
    knows_voxel_size: bool,
    proposals: Sequence[Proposal],
) -> tuple[str, ...]:
    """Return what to type, in order.

    Parameters
    ----------
    image, labels, model
        Addresses as given.
    knows_voxel_size
        Whether the image's file states it.
    proposals
        Options to write down.
    """
    values = {one.option: one.value for one in proposals}
    lines = list(_lines(image, labels, model, values=values, knows=knows_voxel_size))
    return tuple(lines)


def _lines(
    image: str,
    labels: str | None,
    model: str | None,
    *,
    values: dict[str, Any],
    knows: bool,
) -> Iterator[str]:
    here = image
    if not knows:
        yield f"floodem convert {shlex.quote(here)} {_PREPARED} --voxel-size Z,Y,X"
        here = _PREPARED
    if values.get("image.clahe"):
        yield f"floodem clahe {shlex.quote(here)} {_EQUALISED}"
        here = _EQUALISED
    network = model
    if model is None and labels is not None:
        words = ["floodem train", "--image", shlex.quote(here), "--labels", shlex.quote(labels)]
        for option, value in values.items():
            # The grey values change with CLAHE: they are measured again.
            is_stale = here == _EQUALISED and option.startswith("train.volume.")
            if option.startswith("train.") and not is_stale:
                name = option.removeprefix("train.").replace("_", "-")
                words += [f"--{name}", option_text(value)]
        yield " ".join(words)
        network = "training-run/latest.safetensors"
    if network is None:
        network = "MODEL"
    words = [f"floodem segment {shlex.quote(here)} {_SEGMENTATION} --model {shlex.quote(network)}"]
    for name in _SEGMENT:
        value = values.get(f"segment.{name}")
        if value is not None:
            words += [f"--{name.replace('_', '-')}", option_text(value)]
    yield " ".join(words)
    if labels is not None:
        yield f"floodem evaluate {_SEGMENTATION} {shlex.quote(labels)}"


def option_text(value: object) -> str:
    """Write a value as an option takes it."""
    if isinstance(value, dict):
        return ",".join(f"{name}={option_text(part)}" for name, part in value.items())
    if isinstance(value, list):
        return ",".join(option_text(part) for part in value)
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.10g}" if isinstance(value, float) else str(value)
