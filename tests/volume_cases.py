"""Every format that can be written, and which voxel types it holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ALL_DTYPES = (
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "int8",
    "int16",
    "int32",
    "int64",
    "float32",
    "float64",
)


@dataclass(frozen=True)
class Case:
    """One format: where in a folder its volume goes."""

    name: str
    prefix: str
    place: str
    dtypes: tuple[str, ...] = ALL_DTYPES
    keeps_position: bool = True
    needs_voxel_size: bool = False
    by_section: bool = False
    keeps_kind: bool = True
    extra: dict[str, Any] = field(default_factory=dict, hash=False)
    """Further arguments of `create_volume`."""

    def uri(self, folder: Path) -> str:
        return f"{self.prefix}{folder / self.place}"

    @property
    def dtype(self) -> str:
        """A type that it holds: uint8 where it can."""
        return "uint8" if "uint8" in self.dtypes else self.dtypes[0]

    def __str__(self) -> str:
        return self.name


CASES = (
    Case("hdf5", "", "em.h5@raw"),
    Case("hdf5-group", "", "em.hdf5:volumes/raw"),
    Case("npz", "", "em.npz"),
    Case("npz-key", "", "em.npz@labels"),
    Case("npy", "", "em.npy", keeps_position=False, keeps_kind=False),
    Case("zarr", "", "em.zarr"),
    Case("zarr-inside", "zarr://", "store.zarr/inside/raw"),
    Case("zarr3", "zarr3://", "em3"),
    Case("ome-zarr-0.4", "", "em.ome.zarr"),
    Case("ome-zarr-0.5", "zarr3://", "em.ome.zarr"),
    Case("zarr3-sharded", "zarr3://", "em3", extra={"chunks": (2, 3, 4), "shards": (4, 6, 8)}),
    Case("n5", "", "em.n5"),
    Case(
        "precomputed",
        "precomputed://",
        "em",
        dtypes=("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "float32"),
        needs_voxel_size=True,
    ),
    Case(
        "precomputed-sharded",
        "precomputed://",
        "em",
        dtypes=("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "float32"),
        needs_voxel_size=True,
        extra={"chunks": (2, 3, 4), "shards": (4, 6, 8)},
    ),
    Case("png", "png://", "sections", dtypes=("uint8", "uint16"), by_section=True),
    Case(
        "tiff",
        "tiff://",
        "sections",
        dtypes=("uint8", "uint16", "uint32", "int8", "int16", "int32", "float32"),
        by_section=True,
    ),
    Case(
        "tiff-pages",
        "",
        "em.tif",
        dtypes=("uint8", "uint16", "uint32", "int8", "int16", "int32", "float32"),
    ),
    Case("nifti", "", "em.nii"),
    Case("nifti-gz", "", "em.nii.gz"),
    Case("mrc", "", "em.mrc", dtypes=("int16", "uint16", "int8", "float32")),
)
