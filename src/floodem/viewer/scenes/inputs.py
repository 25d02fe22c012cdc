"""What goes into a scene: addresses or open volumes in, named volumes as they are copied out.

Names become folders of the scene. All volumes share one physical frame, so that
each needs a voxel size; what types a viewer cannot draw are turned into those it can.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from floodem.errors import GeometryError, LabelError, OptionError
from floodem.geometry import Box, VoxelSize
from floodem.labels import label_dtype
from floodem.viewer.focus import in_voxels_of
from floodem.viewer.layers import Kind
from floodem.viewer.scenes.options import SceneOptions
from floodem.volumes import open_volume
from floodem.volumes.conversion.derived import DerivedVolume
from floodem.volumes.description import Description
from floodem.volumes.volume import Array, Volume

Source = str | Path | Volume
Sources = Mapping[str, Source] | Sequence[Source]
"""Volumes by name; or addresses, which may begin with ``NAME=``, and open volumes."""

NAME = r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}"
"""Of a volume: a folder on every system, and a part of an address as it stands."""

_NAMED = re.compile(rf"({NAME})=(.+)", re.DOTALL)
_TAKEN = frozenset({"v", "con", "prn", "aux", "nul"})
"""The client's folder, and what Windows reserves."""

_DRAWN_BYTES = 4
"""The viewer draws no wider whole numbers and no other floats as images."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Input:
    """A volume of a scene.

    Attributes
    ----------
    name
        Of its layer and its folder.
    kind
        How it is shown.
    volume
        Open; in a type that can be copied into `dtype`.
    box
        What of it is copied, in its own frame (z, y, x).
    voxel_size
        In nanometres.
    dtype
        Of the copy.
    is_stated
        Whether the volume or the user told the voxel size, not another volume.
    """

    name: str
    kind: Kind
    volume: Volume
    box: Box
    voxel_size: VoxelSize
    dtype: np.dtype[Any]
    is_stated: bool


def open_inputs(
    images: Sources, segmentations: Sources, *, options: SceneOptions, opened: ExitStack
) -> list[Input]:
    """Open what is given by address, to be closed by `opened`, and decide how it is copied.

    Raises
    ------
    OptionError
        When there is nothing to show, no voxel size is known, or a name is not possible.
    GeometryError
        When a volume has no voxel in the box.
    LabelError
        When a segmentation holds no whole numbers.
    FloodemError
        Whatever `open_volume` refuses.
    """
    named = [
        *((Kind.IMAGE, *pair) for pair in _named(images, usual="image")),
        *((Kind.SEGMENTATION, *pair) for pair in _named(segmentations, usual="segmentation")),
    ]
    _require_names([name for _, name, _ in named])
    options.require_names([name for kind, name, _ in named if kind is Kind.SEGMENTATION])
    volumes = [
        source if isinstance(source, Volume) else opened.enter_context(open_volume(source))
        for _, _, source in named
    ]
    stated = [options.voxel_size or volume.voxel_size for volume in volumes]
    usual = next((size for size in stated if size is not None), None)
    if usual is None:
        raise OptionError(
            "no volume states its voxel size, and a scene has one: give it as z,y,x in nanometres "
            "(--voxel-size)"
        )
    sizes = [size or usual for size in stated]
    boxes = _boxes(volumes, sizes, box=options.box)
    return [
        Input(
            name=name,
            kind=kind,
            volume=_drawable(volume, kind, opened),
            box=box,
            voxel_size=size,
            dtype=_dtype(volume, kind),
            is_stated=own is not None,
        )
        for (kind, name, _), volume, size, own, box in zip(
            named, volumes, sizes, stated, boxes, strict=True
        )
    ]


def split_name(text: str) -> tuple[str | None, str]:
    """Split ``NAME=ADDRESS``; without a name, or where a file has the whole text, it is None."""
    match = _NAMED.fullmatch(text)
    if match is None or Path(text).exists():
        return None, text
    return match[1], match[2]


def _named(sources: Sources, *, usual: str) -> Iterable[tuple[str, Source]]:
    if isinstance(sources, Mapping):
        yield from sources.items()
        return
    unnamed = 0
    for source in sources:
        name, address = (None, source) if isinstance(source, Volume) else split_name(str(source))
        if name is None:
            unnamed += 1
            name = usual if unnamed == 1 else f"{usual}-{unnamed}"
        yield name, address


def _require_names(names: list[str]) -> None:
    if not names:
        raise OptionError("there is nothing to show: give at least one image or segmentation")
    for at, name in enumerate(names):
        if re.fullmatch(NAME, name) is None or name.lower() in _TAKEN:
            raise OptionError(
                f"{name!r} cannot be the name of a layer: use letters, digits, - and _"
            )
        if name.lower() in {other.lower() for other in names[:at]}:
            raise OptionError(f"two volumes are called {name!r}: write NAME=ADDRESS for one")


def _boxes(volumes: Sequence[Volume], sizes: Sequence[VoxelSize], *, box: Box | None) -> list[Box]:
    if box is None:
        return [volume.box for volume in volumes]
    return [
        _inside(volume, in_voxels_of(size, box, sizes[0]))
        for volume, size in zip(volumes, sizes, strict=True)
    ]


def _inside(volume: Volume, box: Box) -> Box:
    part = box.intersection(volume.box)
    if part is None:
        raise GeometryError(
            f"box {box} holds nothing of {volume.uri}, which lies in {volume.box} (z,y,x): choose "
            "another --box"
        )
    return part


def _dtype(volume: Volume, kind: Kind) -> np.dtype[Any]:
    dtype = volume.dtype
    if kind is Kind.SEGMENTATION:
        if dtype.kind not in "ui":
            raise LabelError(
                f"{volume.uri} holds {dtype} values, which are no labels: give it as an image"
            )
        return label_dtype(int(np.iinfo(dtype).max))
    is_drawn = dtype.kind in "ui" and dtype.itemsize <= _DRAWN_BYTES
    return dtype if is_drawn else np.dtype(np.float32)


def _drawable(volume: Volume, kind: Kind, opened: ExitStack) -> Volume:
    is_exact = np.can_cast(volume.dtype, np.float32) or volume.dtype.kind != "f"
    return volume if is_exact else opened.enter_context(SingleVolume(volume))


class SingleVolume(DerivedVolume):
    """An image of 64-bit floats with its values rounded to 32 bits, which is what is drawn."""

    def __init__(self, source: Volume) -> None:
        super().__init__(
            uri=source.uri,
            shape=source.shape,
            dtype=np.dtype(np.float32),
            chunks=source.chunks,
            description=Description(
                voxel_size=source.voxel_size, offset=source.offset, kind=source.kind
            ),
            notices=source.notices,
        )
        self.recipe = {"dtype": "float32"}
        self._source = source
        self._lock = threading.Lock()

    def _read(self, box: Box) -> Array:
        with self._lock:
            return self._source.read(box).astype(np.float32)
