"""Where the labels of a run are: ``destination.json`` in the run's folder, read and written."""

from __future__ import annotations

import contextlib
import enum
import json
from dataclasses import dataclass

from floodem.errors import RunConflictError
from floodem.volumes.servers.addresses import without_secrets
from floodem.volumes.servers.transport import open_store

_FILE, _VERSION = "destination.json", 1


class Place(enum.StrEnum):
    """Where they are."""

    NOWHERE = "nowhere"
    GROWING = "growing"
    """They are written, where `LabelDestination.target` says."""
    PLACING = "placing"
    """They are complete and take the place of what is at the destination."""
    PLACED = "placed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Whereabouts:
    """Where the labels of a run are.

    Attributes
    ----------
    inode
        Number of the folder that takes the destination's place; a rename does not change it.
    """

    place: Place = Place.NOWHERE
    inode: int | None = None

    @classmethod
    def read(cls, work: str) -> Whereabouts:
        """Read it in a run's folder.

        Raises
        ------
        RunConflictError
            When it is damaged.
        """
        data = open_store(work).read(_FILE)
        if data is None:
            return cls()
        with contextlib.suppress(ValueError, RecursionError):
            match json.loads(data):
                case {"version": 1, "place": str() as place, "inode": None | int() as inode}:
                    return cls(place=Place(place), inode=inode)
        raise RunConflictError(
            f"{without_secrets(work)}/{_FILE} is damaged: begin again with --overwrite, or choose "
            "another destination"
        )

    def write(self, work: str, *, only_new: bool = False) -> None:
        """State it in a run's folder; with `only_new` where nothing is stated yet.

        Raises
        ------
        StorageError
            When the disk or the server refuses.
        """
        values = {"version": _VERSION, "place": self.place, "inode": self.inode}
        open_store(work).write(_FILE, (json.dumps(values) + "\n").encode(), only_new=only_new)
