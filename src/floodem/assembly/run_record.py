"""The record of a run that is cut into blocks: what it is made from, and how far it is.

``run.json`` lies in the run's folder ``DST.floodem``, on a disk or on a server, and is
written before anything else there::

    version    of this file
    status     begun, replacing, writing, done (as of an uncut run)
    replaces   whether what is at the destination may be replaced
    identity   what decides the result: image, model, options
    plan       how the volume is cut and kept; an uncut run has none
    about      what a reader wants to know besides
    summary    of the finished run

Signed queries, users and passwords in addresses are left out of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from floodem.cluster.crew import Crew
from floodem.errors import (
    DestinationExistsError,
    OptionError,
    RunConflictError,
    VolumeFormatError,
    VolumeNotFoundError,
)
from floodem.flooding.run_folder import CUT_KEY, RUN_FILES, RUN_VERSION, RunStatus
from floodem.flooding.run_identity import require_same_run
from floodem.geometry import Box, VoxelSize
from floodem.volumes import open_volume
from floodem.volumes.conversion.destination import final_place
from floodem.volumes.conversion.fingerprint import fingerprint
from floodem.volumes.conversion.record import record_address
from floodem.volumes.location import parse_location
from floodem.volumes.servers.addresses import is_remote, without_secrets
from floodem.volumes.servers.transport import open_store
from floodem.volumes.volume import Volume

_RUN = "run.json"
RECEIPTS = "receipts/"
_AFTER_FLOODS = ("pairs", "numbers", "labels", "level-", "rest")
_BLOCKS = "blocks/"
_DATA = (
    *(_BLOCKS, "pairs/", "mapping/", "labels.", "joins", "destination.", "running/"),
    *("consensus/", "scratch/"),
    *("conversion.json", "receipts.txt", "relabel.csv"),
    *(name for name in RUN_FILES if name != _RUN),
)
"""All that runs and conversions keep beside receipts; whatever else is there is not ours."""

MOST_FILES = 100_000
"""Images in more files are known by their metadata alone: looking at each would take minutes."""

_BEGIN_AGAIN = "begin again with --overwrite, or choose another destination"


def work_address(uri: str) -> str:
    """Return where a run to this destination keeps what it makes: a folder or a remote address.

    Raises
    ------
    UsageError
        When the destination has no name to which the record's could be added.
    """
    return record_address(parse_location(uri))


def is_taken(uri: str) -> bool:
    """Tell whether something is at a destination, be it damaged or of another format."""
    location = parse_location(uri)
    if not location.is_remote:
        final = final_place(location)
        if not final.exists():
            return False
        if location.dataset is None or final.is_dir():
            return True
    try:
        open_volume(uri).close()
    except VolumeNotFoundError:
        return False
    except (VolumeFormatError, OptionError):  # damaged, or of several channels
        return True
    return True


def image_identity(volume: Volume, *, box: Box, voxel_size: VoxelSize | None) -> dict[str, Any]:
    """Return by what an image is known that is too large to be read for it.

    Parameters
    ----------
    box
        The part that is segmented.
    voxel_size
        As it is taken, in nanometres.
    """
    return {
        "uri": without_secrets(volume.uri),
        **fingerprint(volume, most_files=MOST_FILES),
        "segmented": str(box),
        "voxel_size_nm_zyx": None if voxel_size is None else list(voxel_size.zyx_nm),
    }


class RunRecord:
    """Reads and writes the record of one run.

    Parameters
    ----------
    uri
        Address of the segmentation.
    """

    def __init__(self, uri: str) -> None:
        self.destination = parse_location(uri).uri
        self.address = work_address(uri)
        self._uri = uri
        self._store = open_store(self.address)

    def read(self) -> dict[str, Any] | None:
        """Return run.json, or None where no run was begun.

        Raises
        ------
        RunConflictError
            When it is damaged, of another version, or of an uncut run.
        """
        data = self._store.read(_RUN)
        if data is None:
            return None
        try:
            values = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise self._damaged(str(error)) from error
        if not isinstance(values, dict):
            raise self._damaged("it is no JSON object")
        if values.get("version") != RUN_VERSION:
            raise RunConflictError(
                f"{self._shown} has version {values.get('version')!r}; this floodem reads "
                f"{RUN_VERSION}: {_BEGIN_AGAIN}"
            )
        if CUT_KEY not in values:
            raise RunConflictError(
                f"{self.destination} was begun as one uncut block: repeat that command without "
                "--block to go on, choose another destination, or begin again with --overwrite"
            )
        match values:
            case {"identity": dict(), "plan": dict(), "status": str(), "replaces": bool()}:
                return values
        raise self._damaged("something is missing")

    def begin(
        self,
        identity: Mapping[str, Any],
        *,
        plan: Mapping[str, Any],
        about: Mapping[str, Any],
        replaces: bool,
    ) -> dict[str, Any]:
        """State a new run, or find the one to go on with; of several starters one states it.

        Parameters
        ----------
        replaces
            Whether what is at the destination may be replaced (``--overwrite``); what an
            earlier run has left is forgotten before (`clear`).

        Returns
        -------
        dict
            run.json as it is now.

        Raises
        ------
        RunConflictError
            When the run there was begun with something else.
        DestinationExistsError
            When something is at the destination that no run of floodem has made.
        """
        values = {
            "version": RUN_VERSION,
            "status": RunStatus.REPLACING if replaces else RunStatus.BEGUN,
            "replaces": replaces,
            "identity": _plain(identity),
            "plan": _plain(plan),
            "about": _plain(about),
        }
        there = self.read()
        if there is None:
            self.require_free(replaces=replaces)
            self._store.write(_RUN, _text(values), only_new=True)
            there = self.read()
        if there is None:
            raise RunConflictError(
                f"{self._shown} disappeared while it was read: another process begins again; wait "
                "for it or stop it"
            )
        self.require_same(identity, plan=plan)
        return there

    def require_same(self, identity: Mapping[str, Any], *, plan: Mapping[str, Any]) -> None:
        """Refuse to go on with a run that was begun with something else.

        Raises
        ------
        RunConflictError
            Naming the first value that differs, with both values.
        """
        there = self.read()
        if there is not None:
            before = {**there["identity"], "plan": there["plan"]}
            now = {**_plain(identity), "plan": _plain(plan)}
            require_same_run(before, now, destination=self.destination)

    def state(self, status: RunStatus, *, summary: Mapping[str, Any] | None = None) -> None:
        """Say how far the run is.

        Raises
        ------
        RunConflictError
            When there is no run.
        """
        there = self.read()
        if there is None:
            raise RunConflictError(
                f"{self._shown} is gone: somebody has removed it, or begins again; run the same "
                "command once more"
            )
        there["status"] = status
        if summary is not None:
            there["summary"] = _plain(summary)
        self._store.write(_RUN, _text(there))

    def summary(self) -> dict[str, Any] | None:
        """Return the summary of a finished run whose segmentation is there, or None."""
        there = self.read()
        if there is None or there["status"] != RunStatus.DONE or not is_taken(self._uri):
            return None
        summary = there.get("summary")
        return summary if isinstance(summary, dict) else None

    def clear(self, *, crew: Crew, keeps_floods: bool = False) -> None:
        """Forget all of an earlier run; only for who holds the run's folder (`holding`).

        Receipts go first and run.json last, so that half a removal is a run that does over
        what it has no receipts for. What is at the destination stays.

        Raises
        ------
        OptionError
            When other shards may work there.
        StorageError
            When the file system or the server refuses.
        """
        if crew.shard is not None:
            raise OptionError(
                f"--overwrite would remove what other shards than {crew.shard} have done: begin "
                "again once without --shard and stop, or remove the run's folder, then start the "
                "shards without --overwrite"
            )
        if not keeps_floods:
            prefixes = (RECEIPTS, *_DATA, _RUN)
        else:
            after = tuple(f"{RECEIPTS}{stage}" for stage in _AFTER_FLOODS)
            prefixes = (*after, *(name for name in _DATA if name != _BLOCKS), _RUN)
        for prefix in prefixes:
            self._store.delete_below(prefix)

    def forget_result(self) -> None:
        """Forget that labels were written, where somebody has removed them since.

        What was flooded, compared and numbered stays.

        Raises
        ------
        StorageError
            When the file system or the server refuses.
        """
        for prefix in (f"{RECEIPTS}labels", f"{RECEIPTS}level-", "labels.", "destination."):
            self._store.delete_below(prefix)

    def require_free(self, *, replaces: bool) -> None:
        """Refuse a destination where something is that no run of floodem has made.

        Raises
        ------
        DestinationExistsError
            Unless it may be replaced.
        RunConflictError
            When the record there cannot be read.
        """
        if not replaces and self.read() is None and is_taken(self._uri):
            raise DestinationExistsError(
                f"{self.destination} exists already and no run of floodem made it: choose another "
                "destination or --overwrite"
            )

    @property
    def _shown(self) -> str:
        if is_remote(self.address):
            return f"{without_secrets(self.address).rstrip('/')}/{_RUN}"
        return str(Path(self.address) / _RUN)

    def _damaged(self, reason: str) -> RunConflictError:
        return RunConflictError(f"{self._shown} is damaged ({reason}): {_BEGIN_AGAIN}")


def _text(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, indent=1) + "\n").encode()


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as JSON keeps them, with no secret in any address."""
    found: dict[str, Any] = json.loads(json.dumps(values), object_hook=_clean)
    return found


def _clean(values: dict[str, Any]) -> dict[str, Any]:
    return {name: _cleaned(value) for name, value in values.items()}


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return without_secrets(value)
    return [_cleaned(one) for one in value] if isinstance(value, list) else value
