"""Skeletons made of the truth: labels by address in, ids and skeletons out.

They are made as ``floodem skeletonize`` makes them, with its defaults, into the work folder::

    WORK/skeletons-of-truth             a folder of precomputed skeletons
    WORK/skeletons-of-truth.floodem     the record of that run

Whoever scores again with the same work folder finds them there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from floodem.errors import OptionError
from floodem.evaluation.skeletons.nodes import NumberedSkeleton
from floodem.evaluation.skeletons.reading import read_skeletons
from floodem.evaluation.skeletons.scoring import Working
from floodem.geometry import VoxelSize
from floodem.shapes.skeletons.job import skeletonize
from floodem.shapes.skeletons.request import SkeletonRequest
from floodem.shapes.source import LabelSource
from floodem.volumes.servers.addresses import is_remote

FROM_TRUTH = "from-truth"
"""Stands for skeletons that are yet to be made of the truth."""

_FOLDER = "skeletons-of-truth"


def truth_skeletons(
    truth: LabelSource, *, voxel_size: VoxelSize, leave_out: Collection[int], how: Working
) -> Iterator[NumberedSkeleton]:
    """Make the skeletons of truth, and yield them with their ids.

    Parameters
    ----------
    leave_out
        Ids that do not count.
    how
        Who makes them, and the folder for them.

    Raises
    ------
    OptionError
        When the work folder is on a server.
    FloodemError
        See `floodem.shapes.skeletons.job.skeletonize`.
    """
    if how.work is None or is_remote(how.work):
        raise OptionError(
            f"skeletons of the truth are made on a disk, and {how.work} is none: give a work "
            "folder on one, or make them first (floodem skeletonize)"
        )
    folder = Path(how.work) / _FOLDER
    made = skeletonize(
        truth,
        folder,
        request=SkeletonRequest(voxel_size=voxel_size),
        crew=how.crew,
        takes_rest=how.takes_rest,
        progress=how.progress,
        should_stop=how.should_stop,
    )
    if not len(made.ids):
        raise OptionError(
            f"no object of {truth.uri} is large enough for a skeleton: give skeletons "
            "(floodem skeletonize --min-voxels makes those of smaller objects)"
        )
    left_out = set(leave_out)
    return ((number, one) for number, one in read_skeletons(folder) if number not in left_out)
