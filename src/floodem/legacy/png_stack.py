"""Segmentations as PNG images: a label volume in, one image for each section out.

Ids stay as they are where 8 or 16 bit hold the largest of them. Else, or where one wants
to see objects rather than read ids, each object gets a colour of its own, and a table
beside the images tells which. Rows are y and columns x, as in the image that was
segmented.

    largest id --> 8 bit | 16 bit | colours + table --> 0000.png, 0001.png, ...
"""

from __future__ import annotations

import enum
import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8, UInt64

from floodem.errors import DestinationExistsError, LabelError
from floodem.files import making_folders, replacing, write_text
from floodem.geometry import Box
from floodem.progress import Progress, ProgressListener
from floodem.volumes.description import Description
from floodem.volumes.inspection.ids import id_sizes
from floodem.volumes.sections import png
from floodem.volumes.volume import Kind, Volume

COLOUR_TABLE = "colours.csv"

_LARGEST_GREY = 2**16 - 1
_COLOURS = 2**24
_COLOUR_STEP = 0x9E3779
"""Odd, so that multiples of it are all different, and near 2**24 divided by the golden
ratio, so that objects with neighbouring ids look different (Knuth, The Art of Computer
Programming 3, section 6.4)."""

_COMPRESS_LEVEL = 1

Array = np.ndarray[Any, np.dtype[Any]]


class Pixels(enum.StrEnum):
    """What the pixels of the images are."""

    GREY_8 = "8-bit grey"
    GREY_16 = "16-bit grey"
    COLOUR = "colour"


@dataclass(frozen=True, slots=True, kw_only=True)
class PngStack:
    """What was written.

    Attributes
    ----------
    folder, names
        Where, and the images from the first section to the last.
    pixels
        What was chosen.
    objects, largest_id
        How many objects there are, and the largest of their ids; 0 where there are none.
    older
        Names of images in the folder that look like further sections of an earlier stack.
    """

    folder: Path
    names: tuple[str, ...]
    pixels: Pixels
    objects: int
    largest_id: int
    older: tuple[str, ...]

    @property
    def reason(self) -> str:
        """Why these pixels: a sentence."""
        if self.pixels is Pixels.COLOUR:
            why = "" if self.largest_id <= _LARGEST_GREY else " because 16 bit do not hold the ids"
            return (
                f"every object has a colour of its own{why}; {COLOUR_TABLE} says which, and the "
                f"largest id is {self.largest_id}"
            )
        return f"pixels are the ids, of which the largest is {self.largest_id}"


def write_png_stack(
    labels: Volume,
    folder: Path,
    *,
    prefix: str = "",
    colours: bool = False,
    overwrite: bool = False,
    progress: ProgressListener | None = None,
) -> PngStack:
    """Write each section (z) of a label volume as a PNG image (rows y, columns x).

    Parameters
    ----------
    labels
        An open volume.
    folder
        Made if it is not there.
    prefix
        What names begin with: ``prefix0000.png`` and so on.
    colours
        Write colours even where ids fit 16 bit.
    overwrite
        Replace images of the same names.
    progress
        Called after each section.

    Raises
    ------
    DestinationExistsError
        When an image of one of the names is there and `overwrite` is not set.
    LabelError
        When the volume holds no labels, or more objects than there are colours.
    StorageError
        When the file system refuses.
    """
    names = tuple(f"{prefix}{index:04d}.png" for index in range(labels.shape[0]))
    _require_free(folder, (*names, COLOUR_TABLE) if colours else names, overwrite=overwrite)
    found, _ = id_sizes(labels, progress=progress)
    ids = found[found != 0]
    largest = int(ids[-1]) if len(ids) else 0
    pixels = Pixels.COLOUR if colours else _fitting(largest)
    if pixels is Pixels.COLOUR:
        _require_free(folder, (COLOUR_TABLE,), overwrite=overwrite)
    with making_folders(folder):
        older = _further_images(folder, names, prefix=prefix)
        write = _grey_writer(pixels) if pixels is not Pixels.COLOUR else _colour_writer(ids)
        _write_sections(labels, folder, names=names, write=write, progress=progress)
        if pixels is Pixels.COLOUR:
            write_text(folder / COLOUR_TABLE, _table(ids))
    return PngStack(
        folder=folder,
        names=names,
        pixels=pixels,
        objects=len(ids),
        largest_id=largest,
        older=older,
    )


def colours_of(count: int) -> UInt8[np.ndarray, "count 3"]:
    """Return red, green and blue of so many objects, all different and none black.

    Raises
    ------
    LabelError
        When there are not so many colours.
    """
    if count >= _COLOURS:
        raise LabelError(
            f"{count:,} objects are more than the {_COLOURS - 1:,} colours of an image: write a "
            "part, or convert to another format with floodem convert"
        )
    mixed = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_COLOUR_STEP) % np.uint64(_COLOURS)
    channels = [mixed >> np.uint64(shift) & np.uint64(0xFF) for shift in (16, 8, 0)]
    return np.stack(channels, axis=1).astype(np.uint8)


def _fitting(largest: int) -> Pixels:
    if largest <= np.iinfo(np.uint8).max:
        return Pixels.GREY_8
    return Pixels.GREY_16 if largest <= np.iinfo(np.uint16).max else Pixels.COLOUR


def _require_free(folder: Path, names: tuple[str, ...], *, overwrite: bool) -> None:
    there = [name for name in names if (folder / name).exists()]
    if there and not overwrite:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise DestinationExistsError(
            f"{folder / there[0]}{more} would be replaced and was left as it is: move it away, run "
            "in another folder, or add --overwrite"
        )


def _further_images(folder: Path, names: tuple[str, ...], *, prefix: str) -> tuple[str, ...]:
    """Return images whose names go on where ours end."""
    numbered = re.compile(rf"{re.escape(prefix)}(\d{{4,}})\.png")
    matches = [numbered.fullmatch(entry.name) for entry in folder.iterdir()]
    return tuple(sorted(one[0] for one in matches if one and int(one[1]) >= len(names)))


def _write_sections(
    labels: Volume,
    folder: Path,
    *,
    names: tuple[str, ...],
    write: Callable[[Path, Array, str], None],
    progress: ProgressListener | None,
) -> None:
    report = progress or (lambda _: None)
    (z0, y0, x0), (_, y1, x1) = labels.box.start, labels.box.stop
    for index, name in enumerate(names):
        section = labels.read(Box((z0 + index, y0, x0), (z0 + index + 1, y1, x1)))[0]
        text = Description(
            voxel_size=labels.voxel_size, offset=(z0 + index, y0, x0), kind=Kind.LABELS
        ).text()
        with replacing(folder / name) as partial:
            write(partial, section, text)
        report(Progress(stage="images", done=index + 1, total=len(names), unit="sections"))


def _grey_writer(pixels: Pixels) -> Callable[[Path, Array, str], None]:
    dtype = np.uint8 if pixels is Pixels.GREY_8 else np.uint16
    return lambda path, section, text: png.write(path, section.astype(dtype), text)


def _colour_writer(ids: UInt64[np.ndarray, "n"]) -> Callable[[Path, Array, str], None]:
    black = np.zeros((1, 3), np.uint8)
    return functools.partial(
        _write_colours,
        ids=np.concatenate([np.zeros(1, np.uint64), ids]),
        colours=np.concatenate([black, colours_of(len(ids))]),
    )


def _write_colours(
    path: Path,
    section: Array,
    text: str,
    *,
    ids: UInt64[np.ndarray, "n"],
    colours: UInt8[np.ndarray, "n 3"],
) -> None:
    # Where it lies is of no use in a picture that is no volume of labels.
    from PIL import Image

    rows = np.searchsorted(ids, section.astype(np.uint64))
    Image.fromarray(colours[rows]).save(path, format="PNG", compress_level=_COMPRESS_LEVEL)


def _table(ids: UInt64[np.ndarray, "n"]) -> str:
    rows = zip(ids.tolist(), colours_of(len(ids)).tolist(), strict=True)
    lines = [f"{one},{red},{green},{blue}" for one, (red, green, blue) in rows]
    return "\n".join(["id,red,green,blue", *lines, ""])
