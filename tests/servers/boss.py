"""As much of a BossDB server as the viewer asks: one image and its labels.

https://github.com/jhuapl-boss/boss; the client's datasource/boss.
"""

from __future__ import annotations

import io
import json
import re
import zlib

import numpy as np

from servers.base import Answer, Asked
from servers.pages import OpenServer, jpeg

_CUTOUT = re.compile(r"/latest/cutout/c/e/(em|cells)/0/(\d+):(\d+)/(\d+):(\d+)/(\d+):(\d+)/")


class BossServer(OpenServer):
    """Collection ``c``, experiment ``e``: `image` (uint8) is ``em``, `labels` are ``cells``."""

    def __init__(self, image: np.ndarray, labels: np.ndarray, *, voxel_size_xyz) -> None:
        super().__init__()
        self.arrays = {"em": image, "cells": labels.astype(np.uint64)}
        self.voxel_size_xyz = list(voxel_size_xyz)

    def tell(self, asked: Asked) -> Answer:
        match = _CUTOUT.fullmatch(asked.path)
        if match is not None:
            x0, x1, y0, y1, z0, z1 = (int(edge) for edge in match.groups()[1:])
            block = self.arrays[match[1]][z0:z1, y0:y1, x0:x1]
            if asked.headers["accept"] == "image/jpeg":
                return Answer(body=jpeg(block.reshape(-1, x1 - x0)))
            stream = io.BytesIO()
            np.save(stream, np.ascontiguousarray(block))
            return Answer(body=zlib.compress(stream.getvalue()), ranges=False)
        told = self._descriptions().get(asked.path.rstrip("/"))
        return Answer(404, b"none") if told is None else Answer(body=json.dumps(told).encode())

    def _descriptions(self) -> dict[str, object]:
        shape_xyz = self.arrays["em"].shape[::-1]
        frame: dict[str, object] = {"voxel_unit": "nanometers"}
        for axis, edge, stop in zip("xyz", self.voxel_size_xyz, shape_xyz, strict=True):
            frame |= {f"{axis}_voxel_size": edge, f"{axis}_start": 0, f"{axis}_stop": stop}
        experiment = "/latest/collection/c/experiment/e"
        told: dict[str, object] = {
            experiment: {
                "channels": list(self.arrays),
                "num_hierarchy_levels": 1,
                "coord_frame": "frame",
                "name": "e",
                "collection": "c",
            },
            "/latest/coord/frame": frame,
        }
        kinds = {"em": "image", "cells": "annotation"}
        for name, array in self.arrays.items():
            told[f"{experiment}/channel/{name}"] = {
                "type": kinds[name],
                "description": "",
                "datatype": array.dtype.name,
                "name": name,
                "base_resolution": 0,
                "downsample_status": "NOT DOWNSAMPLED",
            }
            told[f"/latest/downsample/c/e/{name}"] = {
                "voxel_size": {"0": self.voxel_size_xyz},
                "extent": {"0": list(shape_xyz)},
                "num_hierarchy_levels": 1,
            }
        return told
