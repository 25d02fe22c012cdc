"""As much of a DVID server as the viewer asks: an image and labels in one repository.

https://github.com/janelia-flyem/dvid; the client's datasource/dvid.
"""

from __future__ import annotations

import gzip
import json
import re

import numpy as np
import tensorstore as ts

from servers.base import Answer, Asked
from servers.pages import OpenServer, jpeg, part

UUID = "3f8c2a7be1d94f60"
_BLOCK = re.compile(rf"/api/node/{UUID}/(gray|bodies)/raw/0_1_2/([\d_]+)/([\d_]+)(/jpeg)?")


class DvidServer(OpenServer):
    """`image` (uint8) is served as ``gray``, `labels` (uint64) as ``bodies``."""

    def __init__(self, image: np.ndarray, labels: np.ndarray, *, voxel_size_xyz) -> None:
        super().__init__()
        self.image, self.labels, self.voxel_size_xyz = image, labels, list(voxel_size_xyz)

    def tell(self, asked: Asked) -> Answer:
        if asked.path == "/api/repos/info":
            return Answer(body=json.dumps({UUID: self._repository()}).encode())
        match = _BLOCK.fullmatch(asked.path)
        if match is None:
            return Answer(404, b"no such thing")
        shape, start = (
            tuple(int(edge) for edge in reversed(text.split("_"))) for text in match.group(2, 3)
        )
        if match[1] == "gray":
            block = part(self.image, start, shape)
            return Answer(body=jpeg(block.reshape(-1, shape[2])))
        if asked.query.get("compression") != "googlegzip":
            return Answer(400, b"only compressed")
        step = 2 ** int(asked.query["scale"])
        block = part(self.labels[::step, ::step, ::step], start, shape)
        packed = gzip.compress(compressed_segmentation(block))
        return Answer(body=packed, headers={"Content-Encoding": "gzip"}, ranges=False)

    def _repository(self) -> dict[str, object]:
        extended = {
            "VoxelSize": self.voxel_size_xyz,
            "BlockSize": [64, 64, 64],
            "MinPoint": [0, 0, 0],
            "MaxPoint": [edge - 1 for edge in self.image.shape[::-1]],
        }
        values = {"gray": [{"DataType": "uint8"}], "bodies": [{"DataType": "uint64"}]}
        types = {"gray": "uint8blk", "bodies": "labelmap"}
        instances = {
            name: {
                "Base": {"TypeName": types[name], "Compression": "none"},
                "Extended": extended | {"Values": values[name]} | {"MaxDownresLevel": 1},
            }
            for name in types
        }
        return {
            "Alias": "stand-in",
            "Description": "",
            "DataInstances": instances,
            "DAG": {"Nodes": {UUID: {}}},
        }


def compressed_segmentation(block: np.ndarray) -> bytes:
    """One chunk (z, y, x) of blocks of 8 x 8 x 8, by tensorstore."""
    volume = ts.open(
        {
            "driver": "neuroglancer_precomputed",
            "kvstore": {"driver": "memory"},
            "multiscale_metadata": {
                "type": "segmentation",
                "data_type": "uint64",
                "num_channels": 1,
            },
            "scale_metadata": {
                "key": "1",
                "size": list(block.shape[::-1]),
                "resolution": [1, 1, 1],
                "chunk_size": list(block.shape[::-1]),
                "encoding": "compressed_segmentation",
                "compressed_segmentation_block_size": [8, 8, 8],
            },
            "create": True,
            "store_data_equal_to_fill_value": True,
        }
    ).result()
    volume[...] = block.T[..., np.newaxis]
    (key,) = [key for key in volume.kvstore.list().result() if key.startswith(b"1/")]
    return bytes(volume.kvstore.read(key).result().value)
