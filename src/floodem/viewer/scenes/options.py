"""What a scene is made with: plain values, checked once, beside the volumes themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from floodem.errors import OptionError
from floodem.geometry import Box, VoxelSize

MAKE = "make"
NONE = "none"
"""Instead of a folder of meshes or skeletons: compute them, or leave them out."""

Shapes = str | Path
"""`MAKE`, `NONE`, or a folder that holds them as precomputed."""

_LONGEST_TITLE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneOptions:
    """How a scene is made.

    Attributes
    ----------
    box
        Copy only these voxels, in the frame of the first volume (z, y, x); of a
        volume with another voxel size what lies there.
    voxel_size
        In nanometres, instead of what the volumes state.
    pyramid
        How many coarser levels, or ``"auto"``: down to 64 voxels in y and x.
    is_sharded
        Whether volumes, meshes and skeletons are packed into shards, of which a
        server must be able to send parts: for object stores with millions of files.
    meshes, skeletons
        `MAKE`, `NONE` or a folder, for all segmentations or by name of the segmentation.
    only_ids
        Objects that get meshes, skeletons and an entry in the list; None for all.
    names
        What objects are called, by id.
    title
        What stands on the page; None for the folder's name.
    scores
        A file that ``floodem evaluate --json`` printed for the only segmentation.
    has_client
        Whether the viewer is put into the folder.
    workers
        Processes for meshes and skeletons, threads for copies.

    Raises
    ------
    OptionError
        When one is not possible.
    """

    box: Box | None = None
    voxel_size: VoxelSize | None = None
    pyramid: int | Literal["auto"] = "auto"
    is_sharded: bool = False
    meshes: Shapes | Mapping[str, Shapes] = MAKE
    skeletons: Shapes | Mapping[str, Shapes] = MAKE
    only_ids: frozenset[int] | None = None
    names: Mapping[int, str] = field(default_factory=dict)
    title: str | None = None
    scores: Path | None = None
    has_client: bool = True
    workers: int = 1

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise OptionError(f"{self.workers} workers cannot work: give 1 or more")
        if self.title is not None and not 0 < len(self.title) <= _LONGEST_TITLE:
            raise OptionError(f"a title has 1 to {_LONGEST_TITLE} letters, not {len(self.title)}")
        if self.only_ids is not None and not all(label > 0 for label in self.only_ids):
            raise OptionError("ids of objects are positive: leave out 0, which is background")
        if self.only_ids is not None and not self.only_ids:
            raise OptionError("no id of an object is given: name some, or leave them all")

    def shapes_of(self, name: str, *, what: Literal["meshes", "skeletons"]) -> Shapes:
        """Return what is asked for one segmentation."""
        asked = self.meshes if what == "meshes" else self.skeletons
        return asked.get(name, NONE) if isinstance(asked, Mapping) else asked

    def require_names(self, names: list[str]) -> None:
        """Refuse shapes for segmentations that are not in the scene, or one folder for several.

        Raises
        ------
        OptionError
            Naming it.
        """
        for what, asked in (("meshes", self.meshes), ("skeletons", self.skeletons)):
            if isinstance(asked, Mapping):
                unknown = sorted(set(asked) - set(names))
                if unknown:
                    raise OptionError(
                        f"{what} of {unknown[0]!r} are given, and no segmentation has that name: "
                        f"choose among {', '.join(names) or 'none'}"
                    )
            elif str(asked) not in {MAKE, NONE} and len(names) != 1:
                raise OptionError(
                    f"{what} {asked} are given for {len(names)} segmentations: write NAME={asked}"
                )
        if self.scores is not None and len(names) != 1:
            raise OptionError(
                f"scores are of one segmentation, and this scene has {len(names)}: make a scene "
                "of the one that was scored"
            )
