"""Voxel sizes that do not go together: options and open volumes in, sentences for the user out.

Nothing is refused: sizes in files are wrong as often as volumes are.
"""

from __future__ import annotations

from collections.abc import Iterator

from floodem.flooding.job import VOXEL_SIZE_TOLERANCE
from floodem.geometry import UNKNOWN_VOXEL_SIZE, VoxelSize
from floodem.network.model_file import load_model
from floodem.training.configuration.options import TrainOptions
from floodem.training.examples.sources import TrainingData
from floodem.volumes import open_volume


def voxel_size_notices(
    options: TrainOptions, data: TrainingData, *, goes_on: bool = False
) -> Iterator[str]:
    """Yield what a user should know before hours of training, a sentence for each volume or model.

    Sizes that nobody says are not held against others.

    Parameters
    ----------
    goes_on
        Whether a checkpoint brings the weights: the model to begin with may have gone.

    Raises
    ------
    FloodemError
        When the model to begin with, or the image of the validation, cannot be opened.
    """
    size = data.voxel_size
    if size is None:
        return
    for volume in data.volumes.values():
        if _differ(volume.voxel_size, size):
            yield (
                f"{volume.image.uri} has voxels of {volume.voxel_size} nm (z,y,x), and the model "
                f"file will say {size} nm: bring all volumes to one size, or train one network for "
                "each"
            )
    if options.network.init is not None and not goes_on:
        before = load_model(options.network.init).description.voxel_size
        if before != UNKNOWN_VOXEL_SIZE and _differ(before, size):
            yield (
                f"{options.network.init} was trained on voxels of {before} nm (z,y,x), and the "
                f"volumes have {size} nm: expect to train longer, or bring them to that size"
            )
    if options.validation.image is not None:
        with open_volume(options.validation.image) as image:
            if _differ(image.voxel_size, size):
                yield (
                    f"validation.image {image.uri} has voxels of {image.voxel_size} nm (z,y,x), "
                    f"and the network learns {size} nm: expect poor scores, or bring it to "
                    "that size"
                )


def _differ(one: VoxelSize | None, other: VoxelSize) -> bool:
    if one is None:
        return False
    return any(
        abs(ours / theirs - 1) > VOXEL_SIZE_TOLERANCE
        for ours, theirs in zip(one.zyx_nm, other.zyx_nm, strict=True)
    )
