"""As much of a Render server as the viewer asks: one stack of sections.

https://github.com/saalfeldlab/render; the client's datasource/render.
"""

from __future__ import annotations

import json
import re

import numpy as np

from servers.base import Answer, Asked
from servers.pages import OpenServer, jpeg, part

_TILE = re.compile(
    r"/render-ws/v1/owner/o/project/p/stack/s/z/(\d+)/box/(\d+),(\d+),(\d+),(\d+),1/jpeg-image"
)


class RenderServer(OpenServer):
    """Owner ``o``, project ``p``, stack ``s``: `image` (uint8)."""

    def __init__(self, image: np.ndarray, *, voxel_size_xyz) -> None:
        super().__init__()
        self.image, self.voxel_size_xyz = image, voxel_size_xyz

    def tell(self, asked: Asked) -> Answer:
        if asked.path == "/render-ws/v1/owner/o/stacks":
            return Answer(body=json.dumps([self._stack()]).encode())
        match = _TILE.fullmatch(asked.path)
        if match is None:
            return Answer(404, b"no such thing")
        z, x, y, width, height = (int(number) for number in match.groups())
        tile = part(self.image, (z, y, x), (1, height, width))[0]
        return Answer(body=jpeg(np.repeat(tile[..., np.newaxis], 3, axis=2)))

    def _stack(self) -> dict[str, object]:
        bounds: dict[str, int] = {}
        for axis, edge in zip("XYZ", self.image.shape[::-1], strict=True):
            bounds |= {f"min{axis}": 0, f"max{axis}": edge - 1}
        sizes = zip("XYZ", self.voxel_size_xyz, strict=True)
        return {
            "stackId": {"owner": "o", "project": "p", "stack": "s"},
            "state": "COMPLETE",
            "stats": {"stackBounds": bounds},
            "currentVersion": {f"stackResolution{axis}": edge for axis, edge in sizes},
        }
