"""The folder beside a segment graph: what makes it, and how far that is.

::

    GRAPH.floodem/agglomeration.json   identity, status, counts; before anything else
    GRAPH.floodem/points/              what blocks have found, and points.npz
    GRAPH.floodem/receipts/            one for each finished task
    GRAPH.floodem/finding/             a lock, while decision points are looked for

The graph is a file of its own: the folder may be removed once it is there.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from floodem.cluster import Crew
from floodem.errors import DestinationExistsError, OptionError, RunConflictError, VolumeFormatError
from floodem.files import remove_partial_files, storage_error, write_new, write_text
from floodem.flooding.run_folder import SUFFIX
from floodem.flooding.run_identity import require_same_run
from floodem.volumes.location import parse_location
from floodem.volumes.servers.addresses import is_remote, without_secrets

FOLDER_VERSION = 1

_RECORD = "agglomeration.json"
_OURS = ("receipts", "points", "finding")
"""What is made there besides the record and locks; whatever else is there is not ours."""


class GraphFolder:
    """Reads and writes the folder of one agglomeration.

    Parameters
    ----------
    graph
        The file of the graph.

    Raises
    ------
    VolumeFormatError
        When it is on a server.
    OptionError
        When it names no file.
    """

    def __init__(self, graph: str | Path) -> None:
        if is_remote(str(graph)):
            raise VolumeFormatError(
                f"{without_secrets(str(graph))} is remote, and a segment graph is a local file: "
                "give a path like merges.graph"
            )
        self.graph = Path(graph)
        if not self.graph.name:
            raise OptionError(f"{self.graph} names no file: give a path like merges.graph")
        self.path = self.graph.with_name(f"{self.graph.name}{SUFFIX}")

    def receipts(self, stage: str) -> Path:
        """Return where the receipts of a stage are."""
        return self.path / "receipts" / stage

    def require_possible(self, *, overwrite: bool) -> None:
        """Refuse a place at which no graph can be, before anything is computed.

        Raises
        ------
        DestinationExistsError
            When something is there that no run has made, or a folder.
        """
        if self.graph.is_dir():
            raise DestinationExistsError(
                f"{self.graph} is a folder: name a file for the segment graph"
            )
        if self.graph.exists() and not overwrite and self._read() is None:
            raise DestinationExistsError(
                f"{self.graph} exists already and no run beside it has made it: choose another "
                "file or --overwrite"
            )

    def require_apart(self, read: Mapping[str, str]) -> None:
        """Refuse a graph in the place of what it is made from, whatever may be overwritten.

        Parameters
        ----------
        read
            Addresses of what is read, by what each is called.

        Raises
        ------
        DestinationExistsError
            Naming what would be lost.
        """
        for what, address in read.items():
            if is_remote(address) or not self.graph.exists():
                continue
            path = parse_location(address).local
            if path.exists() and self.graph.samefile(path):
                raise DestinationExistsError(
                    f"{self.graph} is the {what} of this run and was left as it is: choose another "
                    "file for the segment graph"
                )

    def begin(
        self, identity: Mapping[str, Any], *, overwrite: bool = False
    ) -> dict[str, Any] | None:
        """State a run, or find the one to go on with; only for who holds the folder.

        Parameters
        ----------
        overwrite
            Whether the graph that is there is to be replaced.

        Returns
        -------
        dict or None
            The counts of a run that is finished and whose graph is there.

        Raises
        ------
        RunConflictError
            When the run there was begun with something else.
        StorageError
            When the file system refuses.
        """
        self.require_possible(overwrite=overwrite)
        remove_partial_files(self.graph.absolute().parent, of=self.graph.name)
        record = {"version": FOLDER_VERSION, "status": "begun", "identity": dict(identity)}
        write_new(self.path / _RECORD, _text(record).encode())
        there = self._read()
        assert there is not None
        require_same_run(
            there["identity"], json.loads(json.dumps(identity)), destination=str(self.graph)
        )
        if there.get("status") != "done" or not self.graph.exists():
            return None
        counts: dict[str, Any] = there["counts"]
        return counts

    def finish(self, identity: Mapping[str, Any], *, counts: Mapping[str, Any]) -> None:
        """Say that the graph is complete."""
        record = {"version": FOLDER_VERSION, "status": "done", "identity": dict(identity)}
        write_text(self.path / _RECORD, _text({**record, "counts": dict(counts)}))

    def clear(self, *, crew: Crew) -> None:
        """Forget an earlier run; its graph stays until another one takes its place.

        Raises
        ------
        OptionError
            When other shards may work there.
        StorageError
            When the file system refuses.
        """
        if crew.shard is not None:
            raise OptionError(
                f"--overwrite would remove what other shards than {crew.shard} have done: remove "
                f"{self.graph} and {self.path}, then start the shards without --overwrite"
            )
        try:
            for name in _OURS:
                if (self.path / name).exists():
                    shutil.rmtree(self.path / name)
            (self.path / _RECORD).unlink(missing_ok=True)
        except OSError as error:
            raise storage_error("remove", self.path, error) from error

    def _read(self) -> dict[str, Any] | None:
        path = self.path / _RECORD
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise RunConflictError(
                f"{path} cannot be read ({error}): begin again with --overwrite"
            ) from error
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            values = None
        match values:
            case {"version": int() as version} if version != FOLDER_VERSION:
                raise RunConflictError(
                    f"{path} has version {version}; this floodem reads {FOLDER_VERSION}: begin "
                    "again with --overwrite, or choose another file"
                )
            case {"version": int(), "status": "begun", "identity": dict()}:
                return dict(values)
            case {
                "version": int(),
                "status": "done",
                "identity": dict(),
                "counts": {"calls": int(), "seconds": int() | float()},
            }:
                return dict(values)
        raise RunConflictError(f"{path} is damaged: begin again with --overwrite")


def _text(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=1) + "\n"
