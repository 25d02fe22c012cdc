"""Score several segmentations of one truth, so that they compare: addresses in, evaluations out.

Each is scored over the voxels that all of them have, and along the same skeletons; those of the
truth are made once.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from floodem.cluster.crew import ALONE, Crew
from floodem.errors import GeometryError, OptionError
from floodem.evaluation.comparison import evaluate
from floodem.evaluation.opening import absolute
from floodem.evaluation.result import Evaluation
from floodem.evaluation.skeletons.from_truth import FROM_TRUTH, truth_skeletons
from floodem.evaluation.skeletons.scoring import Skeletons, Working
from floodem.geometry import Box, VoxelSize
from floodem.progress import ProgressListener
from floodem.shapes.skeletons.skeleton import Skeleton
from floodem.shapes.source import LabelSource, require_voxel_size

_DIGEST_LETTERS = 12


def evaluate_several(
    segmentations: Sequence[str],
    truth: str,
    *,
    box: Box | None = None,
    ignore: Sequence[int] = (0,),
    skeletons: Skeletons | None = None,
    voxel_size: VoxelSize | None = None,
    crew: Crew = ALONE,
    work: str | None = None,
    progress: ProgressListener | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    **more: Any,
) -> list[Evaluation]:
    """Compare segmentations with one truth, each over the voxels that all of them have.

    Parameters
    ----------
    segmentations, truth
        Their addresses.
    work
        Holds what was counted of the first one, and of each other one in a folder below it.
    box, ignore, skeletons, voxel_size, crew, progress, should_stop, more
        As `floodem.evaluation.evaluate` takes them.

    Raises
    ------
    OptionError
        When no segmentation is given, or a shard is to score several.
    GeometryError
        When they have no voxel in common.
    FloodemError
        See `floodem.evaluation.evaluate`.
    """
    if not segmentations:
        raise OptionError("no segmentation is given: name at least one")
    if len(segmentations) > 1 and crew.shard is not None:
        raise OptionError("a shard scores one segmentation: give one, or leave the shard out")
    how: dict[str, Any] = {"crew": crew, "progress": progress, "should_stop": should_stop}
    if len(segmentations) > 1:
        box = common_box([*segmentations, truth], region=box)
        if isinstance(skeletons, str) and skeletons == FROM_TRUTH:
            skeletons = _made_once(
                [truth, *segmentations],
                voxel_size=voxel_size,
                ignore=ignore,
                work=work,
                how=how,
            )
    return [
        evaluate(
            address,
            truth,
            box=box,
            ignore=ignore,
            skeletons=skeletons,
            voxel_size=voxel_size,
            work=work_of(work, address, number=number),
            **how,
            **more,
        )
        for number, address in enumerate(segmentations)
    ]


def common_box(addresses: Sequence[str], *, region: Box | None) -> Box | None:
    """Return the voxels that all volumes have; `region` where all have the same.

    Raises
    ------
    GeometryError
        When they have none in common.
    """
    boxes = []
    for address in addresses:
        with LabelSource(uri=address).open() as volume:
            boxes.append(volume.box)
    if len(set(boxes)) == 1:
        return region
    common = region or boxes[0]
    for box, address in zip(boxes, addresses, strict=True):
        found = common.intersection(box)
        if found is None:
            raise GeometryError(
                f"{address} holds {box} and shares no voxel with the others ({common}, z,y,x): "
                "compare segmentations of one volume"
            )
        common = found
    return common


def work_of(work: str | None, address: str, *, number: int) -> str | None:
    """Return where the counts of one of several segmentations are kept.

    The first one has the folder itself, as it would alone; the others have folders in it.
    """
    if work is None or number == 0:
        return work
    digest = hashlib.sha256(address.encode(errors="surrogateescape")).hexdigest()
    return f"{work.rstrip('/')}/compare-{digest[:_DIGEST_LETTERS]}"


def _made_once(
    addresses: Sequence[str],
    *,
    voxel_size: VoxelSize | None,
    ignore: Sequence[int],
    work: str | None,
    how: Mapping[str, Any],
) -> dict[int, Skeleton]:
    """Return skeletons of the truth, the first of the addresses."""
    with contextlib.ExitStack() as opened:
        folder = work
        if folder is None:
            folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="floodem-"))
        volumes = [opened.enter_context(LabelSource(uri=address).open()) for address in addresses]
        stating = next((one for one in volumes if one.voxel_size is not None), volumes[0])
        found = truth_skeletons(
            LabelSource(uri=addresses[0]),
            voxel_size=require_voxel_size(stating, voxel_size),
            leave_out=ignore,
            how=Working(work=absolute(folder), **how),
        )
        return dict(found)
