"""Small segmentations with one merger and one split each, and pages read back."""

from __future__ import annotations

import base64
import io
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from PIL import Image

from array_volume import ArrayVolume
from floodem.evaluation import evaluate
from floodem.geometry import VoxelSize
from floodem.project.report import write_report
from floodem.volumes import create_volume

SIZE = VoxelSize(30, 10, 10)
SHAPE = (24, 60, 60)
OFFSET = (7, 100, 200)
LEFT, RIGHT, BELOW = (slice(5, 25), slice(5, 30)), (slice(5, 25), slice(30, 55)), slice(30, 55)

HARD_NAME = (
    "a b#1 50% 'q' é漢 &.html" if sys.platform == "win32" else "a b#1 50% 'q' \"d\" é漢 &<b>.html"
)
"""Of a page: letters that mean something in addresses, in HTML and in shells."""

MERGER, SPLIT = 5, 3
"""The segment that joins objects 1 and 2, and the object that segments 7 and 8 are parts of."""


def truth():
    labels = np.zeros(SHAPE, np.uint16)
    labels[(slice(2, 22), *LEFT)] = 1
    labels[(slice(2, 22), *RIGHT)] = 2
    labels[2:22, BELOW, 5:55] = SPLIT
    return labels


def segmentation():
    labels = np.zeros(SHAPE, np.uint64)
    labels[2:22, 5:25, 5:55] = MERGER
    labels[2:22, BELOW, 5:30] = 7
    labels[2:22, BELOW, 30:55] = 8
    return labels


def mended():
    """The same without the merger, and with the split."""
    labels = segmentation()
    labels[(slice(2, 22), *RIGHT)] = 2**40
    return labels


def grey():
    return np.random.default_rng(0).integers(90, 160, SHAPE).astype(np.uint8)


def volume(labels, *, uri="array", voxel_size=SIZE):
    return ArrayVolume(labels, offset=OFFSET, voxel_size=voxel_size, uri=uri)


def write(path: Path, labels, *, voxel_size=SIZE) -> str:
    """Write labels or an image into an HDF5 file; return the address."""
    uri = f"{path}@labels"
    with create_volume(
        uri, shape=labels.shape, dtype=labels.dtype, offset=OFFSET, voxel_size=voxel_size
    ) as made:
        made.write(made.box, labels)
    return uri


def scored(labels=None, **options):
    """Score arrays in memory."""
    labels = segmentation() if labels is None else labels
    return evaluate(volume(labels), volume(truth()), **options)


def written(path: Path, *, many=(segmentation,), image=grey, **options) -> Path:
    """Write a report of arrays in memory, without its scene unless that is asked for."""
    volumes = [volume(make(), uri=make.__name__) for make in many]
    below = volume(truth(), uri="truth")
    options = {"has_viewer": False} | options
    return write_report(
        path,
        evaluations=[evaluate(one, below) for one in volumes],
        segmentations=volumes,
        truth=below,
        image=None if image is None else volume(image(), uri="image"),
        **options,
    )


class Page(HTMLParser):
    """What a browser would make of a page: elements with attributes, and their texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.title = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs)
        if tag not in {"meta", "img", "br"}:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if "title" in self._open:
            self.title += data
        elif "style" not in self._open:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def pictures(self) -> list[np.ndarray]:
        """Row, column, RGB as int."""
        prefix = "data:image/png;base64,"
        return [
            np.asarray(
                Image.open(
                    io.BytesIO(base64.b64decode(one["src"].removeprefix(prefix), validate=True))
                ).convert("RGB")
            ).astype(int)
            for one in self.all("img")
        ]


def read_page(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))
