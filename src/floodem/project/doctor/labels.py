"""What is wrong with labels: a survey of their objects in, findings out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from floodem.counting import counted
from floodem.geometry import VoxelSize
from floodem.project.doctor.findings import Finding, Level
from floodem.project.doctor.objects import MEASURED, ObjectSurvey
from floodem.volumes.inspection.pairs import mismatches
from floodem.volumes.volume import Volume

PART = "labels"

MOST_BACKGROUND = 0.9
"""Share of voxels without an object; FIB-25 has 0.00, SNEMI3D 0.21."""

MOST_APART = 0.05
"""Share of the objects that may have a second piece of a thousand voxels: of more, floods can
fill only one piece and learn that the other is background."""

TINY = 100
"""Voxels of objects that hardly are any; floods of fewer than a thousand are dropped."""

MOST_TINY = 0.2
"""Share of the objects that may be tiny."""

THIN = 3.0
"""Voxels across; what is thinner is hardly to be told from membrane."""

ADVISED_VOXELS = 150_000_000
"""Labelled voxels of one's own data (google/ffn manual)."""

FEWEST_VOXELS = 5_000_000
"""Labelled voxels below which no published network was trained; SNEMI3D's sample has 15.6 M."""


def look_at_pair(image: Volume, labels: Volume) -> Iterator[Finding]:
    """Yield what does not match between what two files declare."""
    sentences = list(mismatches(image, labels))
    if sorted(image.shape) == sorted(labels.shape) and image.shape != labels.shape:
        yield _finding(
            Level.PROBLEM,
            "axes",
            f"the image has {_times(image)} voxels (z,y,x) and the labels {_times(labels)}: "
            "axes of one of both are swapped",
            value={"image": list(image.shape), "labels": list(labels.shape)},
            advice="turn one round: floodem convert SRC DST --axes xyz (or zxy, yzx, ...)",
        )
        return
    for sentence in sentences:
        yield _finding(Level.PROBLEM, "fit", sentence)
    if not sentences:
        is_sized = None not in (image.voxel_size, labels.voxel_size)
        compared = "shape, place and voxel size" if is_sized else "shape and place"
        yield _finding(Level.OK, "fit", f"{compared} match the image's ({_times(labels)})")


def _times(volume: Volume) -> str:
    return "x".join(map(str, volume.shape))


def _finding(
    level: Level, what: str, says: str, *, value: object = None, reason: str = "", advice: str = ""
) -> Finding:
    return Finding(
        level=level, part=PART, what=what, says=says, value=value, reason=reason, advice=advice
    )


def look_at_objects(
    found: ObjectSurvey, *, dtype: np.dtype[Any], voxel_size: VoxelSize | None, is_taught: bool
) -> Iterator[Finding]:
    """Yield what is found about objects.

    Parameters
    ----------
    is_taught
        Whether a network is to learn from them; otherwise it does not matter how many there are.
    """
    if not found.voxels_of:
        yield _finding(
            Level.PROBLEM,
            "objects",
            "there is no object: every voxel that was looked at is 0",
            value=0,
            advice="check the address",
        )
        return
    yield from _ids(found, dtype=dtype)
    yield _background(found)
    yield _amount(found, is_taught=is_taught)
    yield from _apart(found)
    yield _tiny(found)
    yield from _shape(found, voxel_size=voxel_size)


def _ids(found: ObjectSurvey, *, dtype: np.dtype[Any]) -> Iterator[Finding]:
    ids = found.voxels_of
    largest = max(ids)
    seen = "" if found.is_all else " in what was looked at"
    if len(ids) == 1 and largest in {1, 255}:
        yield _finding(
            Level.PROBLEM,
            "ids",
            f"all objects{seen} have the id {largest}: this is a mask",
            value=1,
            reason="a network learns to keep objects apart, so each needs an id of its own",
            advice="label its connected pieces, and look whether touching objects became one",
        )
    elif dtype.itemsize == 1 and largest == np.iinfo(dtype).max:
        yield _finding(
            Level.WARNING,
            "ids",
            f"{counted(len(ids), 'object')}{seen}, ids up to {largest}, the largest of {dtype}",
            value=len(ids),
            reason="ids that did not fit may have begun again at 0, and objects share ids",
            advice="export them again with 16 bits or more",
        )
    else:
        yield _finding(
            Level.OK,
            "ids",
            f"{counted(len(ids), 'object')}{seen}, ids up to {largest} ({dtype})",
            value=len(ids),
        )


def _background(found: ObjectSurvey) -> Finding:
    share = 1 - found.labelled / found.voxels
    level = Level.WARNING if share > MOST_BACKGROUND else Level.OK
    return _finding(
        level,
        "background",
        f"{share:.0%} of the voxels belong to no object",
        value=share,
        reason="" if level is Level.OK else "a network learns that what is not labelled is outside",
        advice=""
        if level is Level.OK
        else "where label 0 means not looked at, train with --volume.unlabelled unknown",
    )


def _amount(found: ObjectSurvey, *, is_taught: bool) -> Finding:
    """Say how much there is to learn from; of samples the whole is extrapolated."""
    voxels = found.labelled
    if not found.is_all:
        return _finding(
            Level.OK,
            "amount",
            f"{voxels:,} labelled voxels in {counted(len(found.boxes), 'box', many='boxes')}",
            value=voxels,
        )
    level = Level.NOTE if voxels >= FEWEST_VOXELS else Level.WARNING
    if voxels >= ADVISED_VOXELS or not is_taught:
        level = Level.OK
    return _finding(
        level,
        "amount",
        f"{voxels / 1e6:.3g} million labelled voxels",
        value=voxels,
        reason=f"{ADVISED_VOXELS // 10**6} million are advised (google/ffn); SNEMI3D's sample has "
        "15.6 million"
        if level is not Level.OK
        else "",
        advice="train, segment, correct, train again; hold some of it back for validation"
        if level is not Level.OK
        else "",
    )


def _apart(found: ObjectSurvey) -> Iterator[Finding]:
    total = len(found.voxels_of)
    large = {one: second for one, (_, second) in found.apart.items() if second >= MEASURED}
    if not found.apart:
        yield _finding(Level.OK, "pieces", "every object hangs together", value={"objects": 0})
        return
    worst = max(found.apart, key=lambda one: found.apart[one][1])
    pieces, second = found.apart[worst]
    many = len(large) > MOST_APART * total
    yield _finding(
        Level.WARNING if many else Level.NOTE if large else Level.OK,
        "pieces",
        f"{len(found.apart):,} of {counted(total, 'object')} "
        f"{'is' if len(found.apart) == 1 else 'are'} in several pieces; the largest second piece "
        f"has {counted(second, 'voxel')} (object {worst}, {pieces} pieces)",
        value={"objects": len(found.apart), "large": len(large), "second": second, "id": worst},
        reason=f"{len(large):,} of them have a second piece of {MEASURED:,} voxels or more"
        + (f", more than {MOST_APART:.0%}" if many else "")
        + ("" if found.is_all else "; pieces that a box cuts count as one"),
        advice="give pieces ids of their own where they do not meet outside of the volume"
        if large
        else "",
    )


def _tiny(found: ObjectSurvey) -> Finding:
    tiny = sum(voxels < TINY for voxels in found.voxels_of.values())
    share = tiny / len(found.voxels_of)
    is_many = share > MOST_TINY and found.is_all
    return _finding(
        Level.NOTE if is_many else Level.OK,
        "tiny objects",
        f"{tiny:,} of {counted(len(found.voxels_of), 'object')} have fewer than {TINY} voxels",
        value=tiny,
        reason=f"more than {MOST_TINY:.0%}: crumbs of a segmentation, or ids of single voxels"
        if is_many
        else "",
        advice="they are left out of training (--sampling.min-size)" if is_many else "",
    )


def _shape(found: ObjectSurvey, *, voxel_size: VoxelSize | None) -> Iterator[Finding]:
    if not found.thickness_nm:
        return
    unit = "voxels" if voxel_size is None else "nm"
    thin, middle, thick = np.quantile(found.thickness_nm, (0.1, 0.5, 0.9))
    across = min(voxel_size.y_nm, voxel_size.x_nm) if voxel_size else 1.0
    is_thin = thin < THIN * across
    yield _finding(
        Level.NOTE if is_thin else Level.OK,
        "thickness",
        f"objects are {middle:.3g} {unit} thick (a tenth below {thin:.3g}, a tenth above "
        f"{thick:.3g})",
        value={"p10": float(thin), "p50": float(middle), "p90": float(thick), "unit": unit},
        reason=f"thinner ones have fewer than {THIN:g} voxels across" if is_thin else "",
        advice="finer voxels would show them better" if is_thin else "",
    )
    if found.extent_nm:
        middle, longest = np.quantile(found.extent_nm, (0.5, 1.0))
        yield _finding(
            Level.OK,
            "length",
            f"objects reach {middle:.3g} {unit} far, the longest {longest:.3g} (diagonals of their "
            "boxes)",
            value={"p50": float(middle), "longest": float(longest), "unit": unit},
        )
    if voxel_size is not None:
        cubic = np.prod(voxel_size.zyx_nm) * found.voxels / 1e9
        yield _finding(
            Level.OK,
            "density",
            f"{len(found.voxels_of) / cubic:.3g} objects in a cubic micrometre",
            value=float(len(found.voxels_of) / cubic),
        )
