"""n5: arrays stored (x, y, z) or (x, y, z, c), alone or as levels ``s0``, ``s1``, ... of a group.

Where an array lies is said in one of several ways, and the first one found is taken:

- the block ``floodem`` {version, offset_zyx, voxel_size_nm_zyx, kind} of an array;
- ``resolution`` in ``units`` and ``offset`` in the same units (all x, y, z);
- ``transform`` {axes, scale, translate, units}, which names its axes;
- ``pixelResolution`` {dimensions, unit} of the finest level and ``downsamplingFactors``.

A group says the same for its levels, with ``scales`` or ``downsamplingFactors``
for all of them, or a list ``multiscales`` with a ``transform`` for each.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from floodem.geometry import Zyx
from floodem.volumes.axes import SPATIAL
from floodem.volumes.chunked.layouts.folder import Folder, require_inside
from floodem.volumes.chunked.layouts.layout import (
    Documents,
    Layout,
    Level,
    Meaning,
    NewLevel,
    Pyramid,
    named_axes,
    new_levels,
)
from floodem.volumes.damage import reading
from floodem.volumes.declared import BLOCK_KEY, offset_from, voxel_size_from
from floodem.volumes.description import Description, read_block
from floodem.volumes.registry import CreateRequest
from floodem.volumes.units import in_nm, level_offset, nearest_voxels, nm_per

if TYPE_CHECKING:
    import tensorstore

_METADATA = "attributes.json"
_KIND = "n5 metadata"
_VERSION = "2.0.0"
_FIRST_LEVEL = "s0"
# More halvings than a position has bits; a server that answers every name is not asked for ever.
_MAX_LEVELS = 64
_AXES_XYZ = ["x", "y", "z"]


class N5(Layout):
    """Arrays and groups with ``attributes.json``; groups may go without."""

    name = "n5"
    driver = "n5"
    metadata = _METADATA
    usual_axes = {3: "xyz", 4: "xyzc", 5: "xyzct"}  # noqa: RUF012 - never changed

    def is_array(self, folder: Folder) -> bool:
        """Tell whether a folder is an array of this format, be it damaged."""
        metadata = folder.json(_METADATA)
        return metadata is None or "dataType" in metadata

    def is_group(self, folder: Folder) -> bool:
        """Tell whether a folder is a group of this format, which may hold arrays."""
        metadata = folder.json(_METADATA)
        return metadata is not None and "n5" in metadata

    def may_hold_arrays(self, folder: Folder) -> bool:
        """Tell whether to look for arrays in a folder below a group."""
        # Groups below the first need no attributes.
        return not self.is_array(folder)

    def pyramid(self, folder: Folder, *, uri: str) -> Pyramid | None:
        """Return the levels of a group: those it lists, or ``s0``, ``s1``, ... as there are."""
        metadata = folder.json(_METADATA)
        if metadata is None or "dataType" in metadata:
            return None
        with reading(uri, kind=_KIND):
            listed = metadata.get("multiscales")
            if listed:
                datasets = listed[0]["datasets"]
                return Pyramid(
                    tuple(
                        _level(folder, dataset["path"], at, metadata=metadata, uri=uri)
                        for at, dataset in enumerate(datasets)
                    )
                )
            if not self.is_array(folder.child(_FIRST_LEVEL)):
                return None
            names = (f"s{number}" for number in range(_MAX_LEVELS))
            there = itertools.takewhile(lambda name: self.is_array(folder.child(name)), names)
            return Pyramid(
                tuple(
                    _level(folder, name, at, metadata=metadata, uri=uri)
                    for at, name in enumerate(there)
                )
            )

    def meaning(self, store: tensorstore.TensorStore, folder: Folder, *, uri: str) -> Meaning:
        """Read the block ``floodem`` or what other programs wrote."""
        metadata = store.spec().to_json()["metadata"]
        notes: list[str] = []
        description = _own_description(metadata, notes=notes, uri=uri)
        return Meaning(
            axes=named_axes(metadata.get("axes")) or self.usual_axes.get(store.rank),
            description=description,
            notices=tuple(notes),
        )

    def documents(self, request: CreateRequest) -> Documents:
        """Return the metadata file of an array, or those of a group with its levels."""
        self.require_dtype(request)
        levels = new_levels(request)
        if len(levels) == 1:
            place = _place_xyz(request) if request.voxel_size is not None else {}
            return {_METADATA: _array(request, levels[0]) | place}
        found: Documents = {}
        base = _base_xyz(request)
        for number, level in enumerate(levels):
            factors_xyz = list(level.factors[::-1])
            found[f"s{number}/{_METADATA}"] = (
                _array(request, level) | base | {"downsamplingFactors": factors_xyz}
            )
        scales_xyz = [list(level.factors[::-1]) for level in levels]
        found[_METADATA] = {
            "n5": _VERSION,
            "multiScale": True,
            "scales": scales_xyz,
            "downsamplingFactors": scales_xyz,
            "axes": _AXES_XYZ,
            **base,
            **(_place_xyz(request) if request.voxel_size is not None else {}),
        }
        return found


def _array(request: CreateRequest, level: NewLevel) -> dict[str, Any]:
    return {
        "dimensions": list(level.box.shape[::-1]),
        "blockSize": list(level.chunks[::-1]),
        "dataType": request.dtype.name,
        "compression": {"type": "gzip", "level": -1, "useZlib": False},
        "axes": _AXES_XYZ,
        BLOCK_KEY: level.description.block(),
    }


def _place_xyz(request: CreateRequest) -> dict[str, Any]:
    """Say where a volume lies, as other n5 tools do."""
    assert request.voxel_size is not None
    size_xyz = request.voxel_size.zyx_nm[::-1]
    offset_xyz = request.offset[::-1]
    return {
        "units": ["nm", "nm", "nm"],
        "resolution": list(size_xyz),
        "offset": [o * s for o, s in zip(offset_xyz, size_xyz, strict=True)],
    }


def _base_xyz(request: CreateRequest) -> dict[str, Any]:
    """Say how large the finest voxels are; levels state their factors beside it."""
    if request.voxel_size is None:
        return {}
    size_xyz = list(request.voxel_size.zyx_nm[::-1])
    return {"pixelResolution": {"dimensions": size_xyz, "unit": "nm"}}


def _level(folder: Folder, path: Any, at: int, *, metadata: dict[str, Any], uri: str) -> Level:
    inner = require_inside(path, uri=uri)
    child = folder.child(inner)
    return Level(
        folder=child,
        describe=functools.partial(_describe, metadata=metadata, child=child, at=at, uri=uri),
    )


def _describe(
    notes: list[str], *, metadata: dict[str, Any], child: Folder, at: int, uri: str
) -> Description:
    """Work out voxel size and offset of a level from what its group says."""
    with reading(uri, kind=_KIND):
        listed = metadata.get("multiscales")
        if listed:
            datasets = listed[0]["datasets"]
            base = datasets[0].get("transform")
            return _from_transform(datasets[at].get("transform"), base=base, notes=notes, uri=uri)
        position: dict[str, Any] = {
            key: metadata[key]
            for key in ("resolution", "units", "offset", "pixelResolution")
            if key in metadata
        }
        factors_xyz = (child.json(_METADATA) or {}).get("downsamplingFactors")
        for key in ("scales", "downsamplingFactors"):
            if factors_xyz is None and isinstance(metadata.get(key), list):
                factors_xyz = metadata[key][at]
        return _from_resolution(position, factors_xyz, notes=notes, uri=uri) or Description()


def _own_description(metadata: dict[str, Any], *, notes: list[str], uri: str) -> Description | None:
    if BLOCK_KEY in metadata:
        return read_block(metadata[BLOCK_KEY], uri=uri)
    with reading(uri, kind=_KIND):
        if "resolution" in metadata:
            return _from_resolution(metadata, None, notes=notes, uri=uri)
        if "transform" in metadata:
            return _from_transform(metadata["transform"], base=None, notes=notes, uri=uri)
        factors_xyz = metadata.get("downsamplingFactors")
        return _from_resolution(metadata, factors_xyz, notes=notes, uri=uri)


def _from_resolution(
    metadata: dict[str, Any],
    factors_xyz: Sequence[float] | None,
    *,
    notes: list[str],
    uri: str,
) -> Description | None:
    """Read ``resolution`` or ``pixelResolution`` (x, y, z, in units that default to nm)."""
    resolution_xyz, units_xyz = metadata.get("resolution"), metadata.get("units") or ["nm"] * 3
    pixel = metadata.get("pixelResolution")
    if resolution_xyz is None and isinstance(pixel, dict):
        resolution_xyz, units_xyz = pixel.get("dimensions"), [pixel.get("unit")] * 3
    scale_xyz = [nm_per(unit) for unit in units_xyz[:3]]
    if resolution_xyz is None or len(resolution_xyz) < len("xyz") or len(scale_xyz) < len("xyz"):
        return None
    unit_xyz = [unit for unit in scale_xyz if unit is not None]
    if len(unit_xyz) < len("xyz"):
        return None
    factor_xyz = list(factors_xyz or [1, 1, 1])[:3]
    size_xyz = [
        in_nm(float(r) * f, u)
        for r, f, u in zip(resolution_xyz[:3], factor_xyz, unit_xyz, strict=True)
    ]
    voxel_size = voxel_size_from(size_xyz[::-1], uri=uri)
    place_xyz = metadata.get("offset") or [0.0, 0.0, 0.0]
    voxels_xyz = [
        float(p) * u / size for p, u, size in zip(place_xyz[:3], unit_xyz, size_xyz, strict=True)
    ]
    whole_xyz = nearest_voxels(voxels_xyz, notes=notes, uri=uri, what="x,y,z")
    return Description(voxel_size=voxel_size, offset=offset_from(whole_xyz[::-1], uri=uri))


def _from_transform(transform: Any, *, base: Any, notes: list[str], uri: str) -> Description:
    """Read a ``transform``, whose lists are in the order of its own ``axes``."""
    if transform is None:
        return Description()
    scale, place, units = (_by_axis(transform, key) for key in ("scale", "translate", "units"))
    finest = _by_axis(base, "scale") if base else scale
    whole = level_offset(
        [float(place[letter]) for letter in SPATIAL],
        [float(scale[letter]) for letter in SPATIAL],
        base=[float(finest[letter]) for letter in SPATIAL],
        notes=notes,
        uri=uri,
    )
    known = [(float(scale[letter]), nm_per(units[letter])) for letter in SPATIAL]
    sizes = [in_nm(size, unit_nm) for size, unit_nm in known if unit_nm is not None]
    offset: Zyx = offset_from(whole, uri=uri)
    return Description(
        voxel_size=voxel_size_from(sizes, uri=uri) if len(sizes) == len(SPATIAL) else None,
        offset=offset,
    )


def _by_axis(transform: dict[str, Any], key: str) -> dict[str, Any]:
    letters = [str(name).lower() for name in transform["axes"]]
    missing = {"translate": 0.0, "units": None}
    if key not in transform and key in missing:
        return dict.fromkeys(letters, missing[key])
    return dict(zip(letters, transform[key], strict=True))
