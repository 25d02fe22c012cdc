"""What the ``info`` of a folder of meshes or skeletons says: values in, JSON out, and back.

Formats: neuroglancer_multilod_draco, neuroglancer_legacy_mesh, neuroglancer_skeletons
(google/neuroglancer, src/datasource/precomputed/meshes.md and skeletons.md).
`floodem.shapes.precomputed.folders` reads and writes the files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from floodem.errors import OptionError, VolumeFormatError
from floodem.shapes.precomputed.multiresolution import QuantizationBits
from floodem.shapes.precomputed.sharding import ShardingSpec
from floodem.volumes.damage import damaged

Transform = tuple[float, ...]

IDENTITY: Transform = (1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0)
"""Stored positions are nanometres in the frame of the volume already."""

ATTRIBUTE_TYPES = ("float32", "int8", "uint8", "int16", "uint16", "int32", "uint32")
"""What a number at a vertex of a skeleton may be."""

_MAX_COMPONENTS = 256
_MAX_ATTRIBUTES = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshInfo:
    """A folder of multi-resolution meshes.

    Attributes
    ----------
    quantization_bits
        As the meshes were encoded with.
    sharding
        None: two files for each object.
    transform
        Three rows of four numbers: from stored positions (x, y, z) to nanometres.
    lod_scale_multiplier
        What the scales of manifests are multiplied with.
    segment_properties
        Path of a folder of segment properties, relative to this folder, or None.
    """

    TYPE: ClassVar[str] = "neuroglancer_multilod_draco"

    quantization_bits: QuantizationBits = 16
    sharding: ShardingSpec | None = None
    transform: Transform = IDENTITY
    lod_scale_multiplier: float = 1.0
    segment_properties: str | None = None

    def __post_init__(self) -> None:
        if self.quantization_bits not in {10, 16}:
            raise OptionError(
                f"{self.quantization_bits!r} bits for positions of meshes: use 10 or 16"
            )
        if not (math.isfinite(self.lod_scale_multiplier) and self.lod_scale_multiplier > 0):
            raise OptionError(
                f"lod_scale_multiplier is {self.lod_scale_multiplier!r}: give a positive number"
            )
        _check_transform(self.transform)

    def to_json(self) -> dict[str, Any]:
        """Return the content of the info file."""
        values = {
            "@type": self.TYPE,
            "vertex_quantization_bits": self.quantization_bits,
            "transform": list(self.transform),
            "lod_scale_multiplier": self.lod_scale_multiplier,
        }
        return _with_links(values, self.sharding, self.segment_properties)


@dataclass(frozen=True, slots=True, kw_only=True)
class LegacyMeshInfo:
    """A folder of single-resolution meshes: the older format, which every version reads."""

    TYPE: ClassVar[str] = "neuroglancer_legacy_mesh"

    segment_properties: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the content of the info file."""
        return _with_links({"@type": self.TYPE}, None, self.segment_properties)


@dataclass(frozen=True, slots=True, kw_only=True)
class VertexAttribute:
    """Numbers that a skeleton has at each vertex: a name, a type, how many."""

    name: str
    data_type: str = "float32"
    components: int = 1

    def __post_init__(self) -> None:
        if not self.name or self.data_type not in ATTRIBUTE_TYPES:
            raise OptionError(
                f"vertex attribute {self.name!r} of type {self.data_type!r}: give a name, and a "
                f"type out of {', '.join(ATTRIBUTE_TYPES)}"
            )
        if type(self.components) is not int or not 1 <= self.components <= _MAX_COMPONENTS:
            raise OptionError(
                f"vertex attribute {self.name!r} has {self.components!r} components: "
                f"give 1 to {_MAX_COMPONENTS}"
            )


RADIUS = VertexAttribute(name="radius")
"""Distance to the surface in nanometres: the name that CloudVolume and Neuroglancer know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SkeletonInfo:
    """A folder of skeletons.

    Attributes
    ----------
    vertex_attributes
        What follows the edges in each skeleton's file, in this order.
    sharding, transform, segment_properties
        As `MeshInfo`.
    """

    TYPE: ClassVar[str] = "neuroglancer_skeletons"

    vertex_attributes: tuple[VertexAttribute, ...] = (RADIUS,)
    sharding: ShardingSpec | None = None
    transform: Transform = IDENTITY
    segment_properties: str | None = None

    def __post_init__(self) -> None:
        names = [attribute.name for attribute in self.vertex_attributes]
        if len(set(names)) != len(names) or len(names) > _MAX_ATTRIBUTES:
            raise OptionError(
                f"vertex attributes {', '.join(names[:10])}: give different names, at most "
                f"{_MAX_ATTRIBUTES}"
            )
        _check_transform(self.transform)

    def to_json(self) -> dict[str, Any]:
        """Return the content of the info file."""
        attributes = [
            {"id": one.name, "data_type": one.data_type, "num_components": one.components}
            for one in self.vertex_attributes
        ]
        values = {
            "@type": self.TYPE,
            "transform": list(self.transform),
            "vertex_attributes": attributes,
        }
        return _with_links(values, self.sharding, self.segment_properties)


Info = MeshInfo | LegacyMeshInfo | SkeletonInfo


def info_from_json(values: Any, *, uri: object) -> Info:
    """Read the content of the info file of meshes or skeletons.

    Members that floodem does not know are passed over: other programs add theirs.

    Raises
    ------
    VolumeFormatError
        When it is not one of the three formats, or says impossible things.
    """
    kind = values.get("@type") if isinstance(values, Mapping) else None
    readers = {
        MeshInfo.TYPE: _mesh_info,
        LegacyMeshInfo.TYPE: _legacy_info,
        SkeletonInfo.TYPE: _skeleton_info,
    }
    if kind not in readers:
        raise _damaged(uri, f"its @type is {kind!r}, none of {', '.join(readers)}")
    try:
        return readers[kind](values, uri)
    except (OptionError, TypeError, ValueError) as error:
        if isinstance(error, VolumeFormatError):
            raise
        raise _damaged(uri, error) from error


def _mesh_info(values: Mapping[str, Any], uri: object) -> Info:
    return MeshInfo(
        quantization_bits=values.get("vertex_quantization_bits", 0),
        sharding=_sharding(values, uri),
        transform=_transform(values),
        lod_scale_multiplier=float(values.get("lod_scale_multiplier", 0)),
        segment_properties=_link(values),
    )


def _legacy_info(values: Mapping[str, Any], uri: object) -> Info:
    return LegacyMeshInfo(segment_properties=_link(values))


def _skeleton_info(values: Mapping[str, Any], uri: object) -> Info:
    listed = values.get("vertex_attributes") or []
    if not isinstance(listed, list) or not all(isinstance(one, Mapping) for one in listed):
        raise _damaged(uri, "its vertex_attributes are no list of attributes")
    attributes = tuple(
        VertexAttribute(
            name=str(one.get("id", "")),
            data_type=str(one.get("data_type", "")),
            components=one.get("num_components", 0),
        )
        for one in listed
    )
    return SkeletonInfo(
        vertex_attributes=attributes,
        sharding=_sharding(values, uri),
        transform=_transform(values),
        segment_properties=_link(values),
    )


def _sharding(values: Mapping[str, Any], uri: object) -> ShardingSpec | None:
    # CloudVolume writes null where there is none.
    written = values.get("sharding")
    return None if written is None else ShardingSpec.from_json(written, uri=uri)


def _transform(values: Mapping[str, Any]) -> Transform:
    written = values.get("transform")
    return IDENTITY if written is None else tuple(float(value) for value in written)


def _link(values: Mapping[str, Any]) -> str | None:
    link = values.get("segment_properties")
    if link is not None and not isinstance(link, str):
        raise OptionError(f"segment_properties is {link!r}: give the name of a folder")
    return link


def _check_transform(transform: Transform) -> None:
    if len(transform) != len(IDENTITY) or not all(math.isfinite(value) for value in transform):
        raise OptionError(f"transform {transform[:20]} is not three rows of four finite numbers")


def _with_links(
    values: dict[str, Any], sharding: ShardingSpec | None, segment_properties: str | None
) -> dict[str, Any]:
    if sharding is not None:
        values["sharding"] = sharding.to_json()
    if segment_properties is not None:
        values["segment_properties"] = segment_properties
    return values


def _damaged(uri: object, reason: object) -> VolumeFormatError:
    return damaged(uri, kind="the info of meshes or skeletons", reason=reason)
