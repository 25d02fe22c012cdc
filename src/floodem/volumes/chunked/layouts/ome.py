"""OME-Zarr 0.1 to 0.5: the attributes of a group in, the levels of a volume out, and back.

The same block ``multiscales`` lies in ``.zattrs`` of a zarr 2 group (up to 0.4)
and under ``attributes.ome`` of a zarr 3 group (0.5). Its scales and translations
count from voxel centres: a voxel at position ``i`` has its centre at
``i * scale``, and a coarser level's first centre lies ``(factor - 1) / 2`` fine
voxels behind the first fine one it covers. References: the OME-NGFF
specification, versions 0.4 and 0.5, "multiscales" metadata.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from floodem.errors import VolumeFormatError
from floodem.volumes.axes import SPATIAL
from floodem.volumes.chunked.layouts.folder import Folder, require_inside
from floodem.volumes.chunked.layouts.layout import (
    Level,
    NewLevel,
    Pyramid,
    named_axes,
    new_axes,
)
from floodem.volumes.damage import reading
from floodem.volumes.declared import offset_from, voxel_size_from
from floodem.volumes.description import Description
from floodem.volumes.registry import CreateRequest
from floodem.volumes.units import in_nm, level_offset, nm_per
from floodem.volumes.volume import Kind

OME_ENDING = ".ome.zarr"
_KIND = "OME-Zarr metadata"
_LETTERS = {"channel": "c", "time": "t"}


def is_ome(request: CreateRequest) -> bool:
    """Tell whether a new zarr volume becomes an OME-Zarr group: it has levels, or asks by name."""
    path = request.location.path.rstrip("/\\").lower()
    return bool(request.levels) or (request.location.dataset is None and path.endswith(OME_ENDING))


def read_pyramid(attributes: Any, folder: Folder, *, uri: str) -> Pyramid | None:
    """Return the levels that OME-Zarr attributes declare, or None when they declare none.

    Raises
    ------
    VolumeFormatError
        When the attributes are damaged.
    UnsafeFileError
        When a level lies outside the group.
    """
    found = attributes.get("multiscales") if isinstance(attributes, dict) else None
    if not found:
        return None
    with reading(uri, kind=_KIND):
        multiscale = found[0]
        if not isinstance(multiscale, dict):
            raise TypeError(f"multiscales begins with {multiscale!r}, which is no object")
        axes, units = _axes(multiscale.get("axes"))
        datasets = multiscale["datasets"]
        kind = Kind.LABELS if "image-label" in attributes else None
        notices = _notices(found, axes, units, uri=uri)
        levels = tuple(
            Level(
                folder=folder.child(require_inside(dataset["path"], uri=uri)),
                axes=axes,
                describe=functools.partial(
                    _describe,
                    multiscale=multiscale,
                    at=at,
                    axes=axes,
                    units=units,
                    kind=kind,
                    uri=uri,
                ),
                notices=notices,
            )
            for at, dataset in enumerate(datasets)
        )
        if not levels:
            raise ValueError("it lists no arrays")
    return Pyramid(levels)


def _axes(declared: Any) -> tuple[str | None, list[Any]]:
    """Return the names of the axes as letters, and their units."""
    if declared is None:
        return None, []
    # Version 0.3 has names alone.
    axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in declared]
    letters = [_LETTERS.get(axis.get("type", ""), axis["name"]) for axis in axes]
    return named_axes(letters), [axis.get("unit") for axis in axes]


def _notices(found: Any, axes: str | None, units: list[Any], *, uri: str) -> tuple[str, ...]:
    notices = []
    if len(found) > 1:
        notices.append(f"{uri} holds {len(found)} multiscale images: the first one is read")
    unknown = [
        f"{letter}: {unit}"
        for letter, unit in zip(axes or "", units, strict=False)
        if letter in SPATIAL and nm_per(unit) is None
    ]
    if unknown:
        notices.append(
            f"{uri} states no unit of length that is known ({', '.join(unknown)}): its voxel size "
            "is taken as unknown"
        )
    return tuple(notices)


def _describe(
    notes: list[str],
    *,
    multiscale: dict[str, Any],
    at: int,
    axes: str | None,
    units: list[Any],
    kind: Kind | None,
    uri: str,
) -> Description:
    """Work out voxel size and offset of one level."""
    with reading(uri, kind=_KIND):
        if axes is None or not set(SPATIAL) <= set(axes):
            return Description(kind=kind)
        transforms = [
            _scale_and_place(multiscale, multiscale["datasets"][level], axes, uri=uri)
            for level in (0, at)
        ]
        (base, _), (scale, place) = transforms
        if scale is None or base is None:
            return Description(kind=kind)
        spatial = [axes.index(letter) for letter in SPATIAL]
        whole = level_offset(
            [place[i] for i in spatial],
            [scale[i] for i in spatial],
            base=[base[i] for i in spatial],
            notes=notes,
            uri=uri,
        )
        known = [nm_per(units[i]) for i in spatial]
        sizes = [
            in_nm(scale[i], unit_nm)
            for i, unit_nm in zip(spatial, known, strict=True)
            if unit_nm is not None
        ]
        return Description(
            voxel_size=voxel_size_from(sizes, uri=uri) if len(sizes) == len(SPATIAL) else None,
            offset=offset_from(whole, uri=uri),
            kind=kind,
        )


def _scale_and_place(
    multiscale: dict[str, Any], dataset: dict[str, Any], axes: str, *, uri: str
) -> tuple[list[float] | None, list[float]]:
    """Chain the transforms of a dataset and of its multiscale: scale and translation per axis."""
    steps = [
        *(dataset.get("coordinateTransformations") or []),
        *(multiscale.get("coordinateTransformations") or []),
    ]
    scale, place = [1.0] * len(axes), [0.0] * len(axes)
    for step in steps:
        if step["type"] == "identity":
            continue
        if step["type"] not in ("scale", "translation") or step["type"] not in step:
            raise VolumeFormatError(
                f"{uri} places its voxels by a transformation of type {step['type']!r} that is no "
                "list of numbers: only scale and translation are read; open the array itself, as "
                f"in {uri}@{dataset['path']}"
            )
        values = [float(value) for value in step[step["type"]]]
        if step["type"] == "scale":
            scale = [a * b for a, b in zip(scale, values, strict=True)]
            place = [a * b for a, b in zip(place, values, strict=True)]
        else:
            place = [a + b for a, b in zip(place, values, strict=True)]
    return (scale if steps else None), place


def multiscales(
    request: CreateRequest, levels: Sequence[NewLevel], *, version: str | None
) -> dict[str, Any]:
    """Return the attributes ``multiscales`` and ``image-label`` of a new group.

    `version` stands in every block up to 0.4; 0.5 has it once, outside.
    """
    stated = {} if version is None else {"version": version}
    # Without a voxel size the scales are multiples of the finest voxel, and of no unit.
    unit = {} if request.voxel_size is None else {"unit": "nanometer"}
    finest = request.voxel_size.zyx_nm if request.voxel_size else (1.0, 1.0, 1.0)
    axes = [
        {"name": letter, "type": "space", **unit}
        if letter in SPATIAL
        else {"name": letter, "type": "channel"}
        for letter in new_axes(request)
    ]
    datasets = []
    for number, level in enumerate(levels):
        scale = [size * factor for size, factor in zip(finest, level.factors, strict=True)]
        place = [
            start * step + (step - size) / 2
            for start, step, size in zip(level.box.start, scale, finest, strict=True)
        ]
        if len(axes) > len(SPATIAL):
            scale, place = [1.0, *scale], [0.0, *place]
        datasets.append(
            {
                "path": str(number),
                "coordinateTransformations": [
                    {"type": "scale", "scale": scale},
                    {"type": "translation", "translation": place},
                ],
            }
        )
    block: dict[str, Any] = {
        "multiscales": [
            {
                **stated,
                "name": _name(request),
                "axes": axes,
                "datasets": datasets,
            }
        ]
    }
    if request.kind is Kind.LABELS:
        block["image-label"] = dict(stated)
    return block


def _name(request: CreateRequest) -> str:
    inner = request.location.dataset or request.location.path
    name = PurePosixPath(inner.replace("\\", "/").rstrip("/")).name
    return name.removesuffix(OME_ENDING).removesuffix(".zarr")
