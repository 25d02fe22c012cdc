"""Folders of skeletons, to be read: a path comes in, ids and skeletons go out.

Either Neuroglancer's precomputed (with an ``info``; one file for each skeleton, or
shards) or SWC files whose names are ids (``7.swc``).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from floodem.errors import VolumeFormatError, VolumeNotFoundError
from floodem.files import storage_error
from floodem.shapes.precomputed import ShardReader, SkeletonInfo, read_info
from floodem.shapes.precomputed.folders import INFO
from floodem.shapes.precomputed.shards import MAX_ID
from floodem.shapes.skeletons.precomputed import decode_skeleton
from floodem.shapes.skeletons.skeleton import Skeleton
from floodem.shapes.skeletons.swc import Unit, read_swc
from floodem.volumes.damage import damaged

SWC_ENDING = ".swc"

MAX_SKELETON_BYTES = 2**30
"""Fifty million vertices."""


class SkeletonFolder:
    """The skeletons in a folder.

    Parameters
    ----------
    folder
        On a local disk.
    unit
        Of SWC files that do not say it.

    Raises
    ------
    VolumeNotFoundError
        When the folder is not there, or holds no skeletons.
    VolumeFormatError
        When its info is damaged, or not that of skeletons.
    """

    def __init__(self, folder: Path, *, unit: Unit | None = None) -> None:
        self.folder = folder
        self._unit = unit
        self._info: SkeletonInfo | None = None
        self._shards: ShardReader | None = None
        if (folder / INFO).exists():
            info = read_info(folder)
            if not isinstance(info, SkeletonInfo):
                raise VolumeFormatError(
                    f"{folder} holds meshes, not skeletons: give a folder of skeletons"
                )
            self._info = info
            if info.sharding is not None:
                self._shards = ShardReader(folder, spec=info.sharding)
        elif next(self._named(SWC_ENDING), None) is None:
            raise VolumeNotFoundError(
                f"{folder} holds no skeletons: give a folder with an info file (precomputed) or "
                "with ID.swc files"
            )

    def ids(self) -> list[int]:
        """Return the ids of all skeletons, ascending.

        Raises
        ------
        StorageError, VolumeFormatError
            When the file system refuses, or a shard is damaged.
        """
        if self._shards is not None:
            return sorted(self._shards.ids())
        return sorted(self._named("" if self._info else SWC_ENDING))

    def read(self, object_id: int) -> Skeleton | None:
        """Return an object's skeleton, or None when it has none.

        Raises
        ------
        StorageError, VolumeFormatError
            When the file system refuses, or the file is damaged.
        """
        if self._info is None:
            path = self.folder / f"{object_id}{SWC_ENDING}"
            return read_swc(path, unit=self._unit) if path.exists() else None
        if self._shards is not None:
            found = self._shards.read(object_id)
        else:
            found = self._bytes(self.folder / str(object_id))
        if found is None:
            return None
        return decode_skeleton(found, info=self._info, uri=f"skeleton {object_id} of {self.folder}")

    def _named(self, ending: str) -> Iterator[int]:
        try:
            names = [path.name for path in self.folder.iterdir()]
        except (FileNotFoundError, NotADirectoryError) as error:
            raise VolumeNotFoundError(
                f"{self.folder} is not a folder of skeletons: check the address"
            ) from error
        except OSError as error:
            raise storage_error("look at", self.folder, error) from error
        for name in names:
            number = name.removesuffix(ending)
            is_id = number.isascii() and number.isdecimal() and str(int(number[:20])) == number
            if name.endswith(ending) and is_id and int(number) <= MAX_ID:
                yield int(number)

    @staticmethod
    def _bytes(path: Path) -> bytes | None:
        try:
            with open(path, "rb") as file:
                data = file.read(MAX_SKELETON_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise storage_error("read", path, error) from error
        if len(data) > MAX_SKELETON_BYTES:
            raise damaged(path, kind="a skeleton", reason=f"it has over {MAX_SKELETON_BYTES} bytes")
        return data
