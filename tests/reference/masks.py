"""Masks written the slow and obvious way: one voxel after another, in plain Python."""

from __future__ import annotations

import numpy as np


def selected(value, selection):
    """Whether one value is selected."""
    value = value.item()
    if selection.values:
        chosen = value in selection.values
    elif selection.minimum is None and selection.maximum is None:
        chosen = value != 0
    else:
        chosen = (selection.minimum is None or value >= selection.minimum) and (
            selection.maximum is None or value <= selection.maximum
        )
    return chosen != selection.invert


def holds(text, z, y, x):
    """Whether a condition that this test wrote itself holds at one voxel."""
    return bool(eval(text, {"__builtins__": {}}, {"z": z, "y": y, "x": x}))


def voxel_masked(rule, *, position, image_value, volume, ratio):
    """Whether one rule masks one voxel; `volume` is an open volume or None."""
    kind = rule.to_json()["kind"]
    if kind == "where":
        inside = holds(rule.expression, *position)
    else:
        value = image_value
        if kind == "volume":
            coarse = tuple(p // r for p, r in zip(position, ratio, strict=True))
            value = np.zeros((), volume.dtype)
            if volume.box.contains_point(coarse):
                local = tuple(c - o for c, o in zip(coarse, volume.box.start, strict=True))
                value = volume.read()[local]
        inside = any(selected(value, selection) for selection in rule.selections)
    return inside != rule.invert


def mask(rules, *, box, image, volume, ratio):
    """Return where any rule masks the voxels of a box."""
    found = np.zeros(box.shape, bool)
    for local in np.ndindex(box.shape):
        position = tuple(a + b for a, b in zip(local, box.start, strict=True))
        found[local] = any(
            voxel_masked(
                rule, position=position, image_value=image[local], volume=volume, ratio=ratio
            )
            for rule in rules
        )
    return found
