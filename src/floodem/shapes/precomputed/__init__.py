"""Neuroglancer's precomputed formats for shapes: meshes, their shards, segment properties.

Meshes and tables come in; folders go out that Neuroglancer and CloudVolume read.
"""

from floodem.shapes.precomputed.folders import (
    link_to_segmentation,
    read_info,
    write_info,
    write_legacy_mesh,
    write_mesh,
)
from floodem.shapes.precomputed.infos import (
    LegacyMeshInfo,
    MeshInfo,
    SkeletonInfo,
    VertexAttribute,
)
from floodem.shapes.precomputed.legacy import decode_legacy_fragment, encode_legacy_fragment
from floodem.shapes.precomputed.multiresolution import EncodedMesh, encode_multiresolution
from floodem.shapes.precomputed.properties import (
    SegmentProperties,
    read_segment_properties,
    write_segment_properties,
)
from floodem.shapes.precomputed.reading import MeshFolder
from floodem.shapes.precomputed.sharding import ShardingSpec, choose_sharding
from floodem.shapes.precomputed.shards import ShardReader, ShardWriter, writing_shard

__all__ = [
    "EncodedMesh",
    "LegacyMeshInfo",
    "MeshFolder",
    "MeshInfo",
    "SegmentProperties",
    "ShardReader",
    "ShardWriter",
    "ShardingSpec",
    "SkeletonInfo",
    "VertexAttribute",
    "choose_sharding",
    "decode_legacy_fragment",
    "encode_legacy_fragment",
    "encode_multiresolution",
    "link_to_segmentation",
    "read_info",
    "read_segment_properties",
    "write_info",
    "write_legacy_mesh",
    "write_mesh",
    "write_segment_properties",
    "writing_shard",
]
