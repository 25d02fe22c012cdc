"""Small sound volumes of every format and of many variants: what the fuzzer damages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from dm_files import write_dm
from floodem.geometry import VoxelSize, Zyx
from floodem.volumes import create_volume
from volume_cases import CASES, Case

SHAPE: Zyx = (18, 20, 17)
CHUNKS: Zyx = (16, 16, 16)


@dataclass(frozen=True)
class Specimen:
    """One way of keeping a volume: `make` writes it into a folder and returns its URI there."""

    name: str
    make: Callable[[Path], str]

    def __str__(self) -> str:
        return self.name


def _values(dtype: str) -> np.ndarray:
    random = np.random.default_rng(0)
    return random.integers(0, 120, SHAPE).astype(dtype)


def _of_case(case: Case, dtype: str) -> Specimen:
    def make(folder: Path) -> str:
        uri = case.uri(folder)
        facts = {"voxel_size": VoxelSize(30, 6, 6), "offset": (2, 4, 6), "chunks": CHUNKS}
        with create_volume(uri, shape=SHAPE, dtype=dtype, **(facts | case.extra)) as volume:
            volume.write(volume.box, _values(dtype))
        return uri

    return Specimen(f"{case}-{dtype}", make)


def _tiff(name: str, **options: object) -> Specimen:
    def make(folder: Path) -> str:
        path = folder / f"{name}.tif"
        tifffile.imwrite(path, _values("uint8"), photometric="minisblack", **options)
        return str(path)

    return Specimen(name, make)


def _jpeg(folder: Path) -> str:
    sections = folder / "sections"
    sections.mkdir()
    for index, section in enumerate(_values("uint8")):
        Image.fromarray(section).save(sections / f"s{index:03}.jpg")
    return str(sections)


SPECIMENS = (
    *(_of_case(case, case.dtypes[0]) for case in CASES),
    *(_of_case(case, "uint64") for case in CASES if "uint64" in case.dtypes),
    Specimen("jpeg", _jpeg),
    _tiff("tiff-tiled", tile=(16, 16), compression="zlib"),
    _tiff("tiff-lzw", compression="lzw"),
    _tiff("tiff-predictor", compression="zlib", predictor=True),
    _tiff("tiff-big", bigtiff=True),
    _tiff("tiff-ome", ome=True, metadata={"axes": "ZYX", "PhysicalSizeZ": 0.03}),
    _tiff("tiff-imagej", imagej=True, metadata={"axes": "ZYX", "spacing": 0.03, "unit": "um"}),
    _tiff("tiff-big-endian", byteorder=">", compression="zlib"),
    Specimen("dm3", lambda folder: str(write_dm(folder / "em.dm3", _values("int16")))),
    Specimen("dm4", lambda folder: str(write_dm(folder / "em.dm4", _values("uint8"), version=4))),
)
