"""Synthetic volumes into files: options and addresses in, image, labels and skeletons out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from floodem.errors import DestinationExistsError, OptionError
from floodem.geometry import Zyx
from floodem.progress import ProgressListener
from floodem.volumes.conversion.convert import convert
from floodem.volumes.conversion.result import Conversion
from floodem.volumes.synthetic.options import SyntheticOptions
from floodem.volumes.synthetic.skeletons import skeletons, write_swc
from floodem.volumes.synthetic.volume import SyntheticVolume


def write_synthetic(
    options: SyntheticOptions,
    *,
    image: str | Path,
    labels: str | Path,
    skeleton_file: Path | None = None,
    chunks: Zyx | None = None,
    pyramid: int | Literal["auto"] | None = None,
    threads: int | None = None,
    overwrite: bool = False,
    progress: ProgressListener | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[Conversion, Conversion]:
    """Compute a synthetic volume block by block and write its image and its labels.

    Both are written as `floodem.volumes.convert` writes copies: with receipts, read
    back and compared, and after a stop the same call goes on.

    Parameters
    ----------
    image, labels
        Addresses; ending or prefix tell the format.
    skeleton_file
        Where the skeletons go, as SWC (see `write_swc`). Those of the whole volume
        are in memory at once, about a kilobyte for a million voxels.
    chunks, pyramid, threads, overwrite, progress, should_stop
        As for `convert`.

    Raises
    ------
    OptionError
        When image and labels have the same address.
    DestinationExistsError
        When something is there already and `overwrite` is not set.
    FloodemError
        Whatever `convert` refuses.
    """
    if str(image) == str(labels):
        raise OptionError(f"image and labels are both to become {image}: give two addresses")
    if skeleton_file is not None and skeleton_file.exists() and not overwrite:
        raise DestinationExistsError(
            f"{skeleton_file} exists already: choose another name, or overwrite it"
        )
    wanted: dict[str, Any] = {
        "chunks": chunks,
        "pyramid": pyramid,
        "threads": threads,
        "overwrite": overwrite,
        "progress": progress,
        "should_stop": should_stop,
    }
    with SyntheticVolume(options, part="image") as source:
        made_image = convert(source, image, **wanted)
    with SyntheticVolume(options, part="labels") as source:
        made_labels = convert(source, labels, **wanted)
    if skeleton_file is not None:
        write_swc(skeleton_file, skeletons(options), overwrite=overwrite)
    return made_image, made_labels
