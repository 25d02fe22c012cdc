"""Whether a network fits an image: its description and a survey of the image in, findings out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from floodem.flooding.job import VOXEL_SIZE_TOLERANCE
from floodem.geometry import UNKNOWN_VOXEL_SIZE, VoxelSize
from floodem.project.doctor.findings import Finding, Level
from floodem.project.doctor.survey import Survey

if TYPE_CHECKING:
    from floodem.network.model_file import ModelDescription

PART = "model"

FAR_MEAN = 0.5
"""Standard deviations between the means of image and model from which it is a warning; the
published networks have 0.01 (SNEMI3D) to 0.21 (its other volume) on their data."""

FAR_SPREAD = 1.5
"""Ratio of the standard deviations, likewise; published: 1.01 to 1.07."""

OTHER_SCALE = 2.0
"""Ratio of voxel edges from which a network has never seen such objects."""


def look_at_model(
    model: ModelDescription,
    found: Survey,
    *,
    dtype: np.dtype[Any],
    voxel_size: VoxelSize | None,
) -> Iterator[Finding]:
    """Yield what is found about a network and the image it is to segment."""
    yield _finding(
        Level.OK,
        "network",
        f"{model.network}, field of view {','.join(map(str, model.fov))}, steps "
        f"{','.join(map(str, model.deltas))} (z,y,x), pad {model.pad_value:g}, moves from "
        f"{model.move_threshold:g}",
        value={"fov": list(model.fov), "deltas": list(model.deltas)},
    )
    yield from _grey(model, found, dtype=dtype)
    yield _scale(model, voxel_size=voxel_size)


def _finding(
    level: Level, what: str, says: str, *, value: object = None, reason: str = "", advice: str = ""
) -> Finding:
    return Finding(
        level=level, part=PART, what=what, says=says, value=value, reason=reason, advice=advice
    )


def _grey(model: ModelDescription, found: Survey, *, dtype: np.dtype[Any]) -> Iterator[Finding]:
    whole = found.whole()
    if not whole.count or not whole.stddev:
        return
    says = (
        f"the image has mean {whole.mean:.4g} and standard deviation {whole.stddev:.4g}, the model "
        f"{model.image_mean:g} and {model.image_stddev:g}"
    )
    value = {
        "image": [whole.mean, whole.stddev],
        "model": [model.image_mean, model.image_stddev],
    }
    far = abs(whole.mean - model.image_mean) / whole.stddev
    ratio = max(whole.stddev / model.image_stddev, model.image_stddev / whole.stddev)
    if far <= FAR_MEAN and ratio <= FAR_SPREAD:
        yield _finding(Level.OK, "grey values", says, value=value)
        return
    yield _finding(
        Level.WARNING,
        "grey values",
        says,
        value=value,
        reason=f"the means lie {far:.2f} standard deviations apart (up to {FAR_MEAN:g}), the "
        f"deviations differ {ratio:.2f} times (up to {FAR_SPREAD:g})",
        advice="bring the image to the model's grey values (floodem clahe, if that is how the "
        "training images were made)",
    )
    if dtype.kind != "u" or dtype.itemsize > 1:
        return
    mirrored = np.iinfo(dtype).max - whole.mean
    if far > FAR_MEAN and abs(mirrored - model.image_mean) < FAR_MEAN * whole.stddev:
        yield _finding(
            Level.WARNING,
            "contrast",
            f"inverted, the image would have mean {mirrored:.4g}, near the model's "
            f"{model.image_mean:g}",
            value=mirrored,
            advice="invert the image if membranes are bright in it",
        )


def _scale(model: ModelDescription, *, voxel_size: VoxelSize | None) -> Finding:
    trained = model.voxel_size
    if trained == UNKNOWN_VOXEL_SIZE or voxel_size is None:
        whose = "the model" if trained == UNKNOWN_VOXEL_SIZE else "the image"
        return _finding(
            Level.NOTE,
            "voxel size",
            f"{whose} does not say its voxel size: whether they match cannot be told",
            advice="a network sees voxels, not nanometres: give it voxels of the size that it "
            "was trained with",
        )
    ratios = [a / b for a, b in zip(voxel_size.zyx_nm, trained.zyx_nm, strict=True)]
    far = max(max(ratio, 1 / ratio) for ratio in ratios)
    says = f"voxels of {voxel_size} nm (z,y,x), the model was trained with {trained}"
    value = {"image": list(voxel_size.zyx_nm), "model": list(trained.zyx_nm)}
    if far <= 1 + VOXEL_SIZE_TOLERANCE:
        return _finding(Level.OK, "voxel size", says, value=value)
    is_other = far >= OTHER_SCALE
    return _finding(
        Level.PROBLEM if is_other else Level.WARNING,
        "voxel size",
        says,
        value=value,
        reason=f"{far:.2f} times another size along an axis; networks bear "
        f"{VOXEL_SIZE_TOLERANCE:.0%}",
        advice="take the level of the pyramid whose voxels match best (--level; floodem convert "
        "--pyramid makes levels), or another network",
    )
