"""Where a run reads and where it writes, and that the one never destroys the other.

In: the addresses of a request. Out: nothing, or a refusal before anything is
written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from floodem.errors import (
    DestinationExistsError,
    OptionError,
    UsageError,
    VolumeFormatError,
    VolumeNotFoundError,
)
from floodem.flooding.masks.rules import VolumeMask
from floodem.flooding.masks.shift import ShiftMask
from floodem.flooding.request import SegmentRequest
from floodem.flooding.seeds.explicit import EXPLICIT
from floodem.volumes import open_volume
from floodem.volumes.location import Location, parse_location
from floodem.volumes.servers.addresses import HTTP_SCHEMES, split_address
from floodem.volumes.volume import Volume

if TYPE_CHECKING:
    from floodem.network.model_file import Model

_ONE_VOLUME_A_FILE = frozenset({"npz"})
"""Formats whose files are written whole, though they can hold several volumes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """What a run writes beside its record: addresses of labels and, perhaps, probabilities."""

    labels: str
    probabilities: str | None = None

    def addresses(self) -> tuple[str, ...]:
        """Return all of them."""
        return tuple(one for one in (self.labels, self.probabilities) if one is not None)

    def require_possible(self, *, may_be_remote: bool = False) -> None:
        """Refuse addresses to which nothing can be written.

        Parameters
        ----------
        may_be_remote
            Whether labels are written chunk by chunk, as those of a run in blocks are.

        Raises
        ------
        UsageError
            When one is no address, or both are the same.
        VolumeFormatError
            When one is remote and may not be.
        """
        for uri in self.addresses():
            location = parse_location(uri)
            if location.is_remote:
                self._require_remote_labels(location, may_be_remote=may_be_remote)
                continue
            if not location.local.name:
                raise UsageError(
                    f"{uri!r} names no file or folder that could be made: give a path like "
                    "labels.zarr"
                )
            if not is_text(uri):
                raise UsageError(
                    f"{uri!r} is not text in UTF-8: choose a name without the escaped letters"
                )
        if self.probabilities is None:
            return
        ours, other = parse_location(self.labels), parse_location(self.probabilities)
        if ours.is_remote:
            return
        if _place(ours) == _place(other) or (
            _file(ours) == _file(other)
            and (None in (ours.dataset, other.dataset) or ours.format in _ONE_VOLUME_A_FILE)
        ):
            raise OptionError(
                f"labels and probabilities would both go to {self.labels}: choose two addresses"
            )

    def _require_remote_labels(self, location: Location, *, may_be_remote: bool) -> None:
        if self.probabilities is not None and location.is_same(parse_location(self.probabilities)):
            raise VolumeFormatError(
                f"{location.uri} is remote, and probabilities are written to local addresses only: "
                "choose one of these"
            )
        if split_address(location.path)[0] in HTTP_SCHEMES:
            raise VolumeFormatError(
                f"{location.uri} is remote and, as an http address, for reading only: segment to "
                "s3:// or gs://, or to a local address and copy it with `floodem convert`"
            )
        if not may_be_remote:
            raise VolumeFormatError(
                f"{location.uri} is remote, where labels are written in blocks: give --block z,y,x "
                "(as large as the image for one block), or segment to a local address and copy it "
                "with `floodem convert`"
            )

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a run's record."""
        return {"destination": self.labels, "probabilities": self.probabilities}


def require_apart(
    outputs: Outputs,
    *,
    image: str | Path | Volume,
    model: str | Path | Model,
    request: SegmentRequest,
) -> None:
    """Refuse to write where the run reads, whatever may be overwritten.

    Raises
    ------
    DestinationExistsError
        Naming what would be lost.
    """
    for uri in outputs.addresses():
        output = parse_location(uri)
        lost = [
            *(what for what, one in _volumes_read(image, request) if would_replace(output, one)),
            *(what for what, path in _files_read(model, request) if _file(output) == path),
        ]
        if lost:
            raise DestinationExistsError(
                f"{uri} is the {lost[0]} of this run and was left as it is: choose another "
                "destination"
            )


def is_there(uri: str) -> bool:
    """Tell whether a volume is at this address."""
    try:
        open_volume(uri).close()
    except VolumeNotFoundError:
        return False
    return True


def is_text(address: str) -> bool:
    """Tell whether every byte that the user gave was understood as a letter."""
    try:
        address.encode()
    except UnicodeEncodeError:
        return False
    return True


def _volumes_read(image: str | Path | Volume, request: SegmentRequest) -> Iterator[tuple[str, str]]:
    yield "image", image.uri if isinstance(image, Volume) else str(image)
    if request.init_segmentation is not None:
        yield "initial segmentation", str(request.init_segmentation)
    for rule in (*request.masks, *request.seed_masks, *request.barriers):
        if isinstance(rule, VolumeMask | ShiftMask):
            yield "mask", rule.uri


def _files_read(model: str | Path | Model, request: SegmentRequest) -> Iterator[tuple[str, Path]]:
    if isinstance(model, str | Path):
        yield "model", Path(os.path.realpath(model))
    seeds = request.options.seeds
    if seeds.name == EXPLICIT and isinstance(seeds.args.get("path"), str):
        yield "list of seeds", Path(os.path.realpath(seeds.args["path"]))


def would_replace(output: Location, read: str) -> bool:
    """Tell whether writing to a place would replace what is read from an address."""
    given = parse_location(read)
    if given.is_remote or output.is_remote:
        return _overlap(output, given)
    if _place(output) == _place(given):
        return True
    if _file(output) != _file(given):
        return False
    # A file with one volume is read without a name: then any volume there is that one.
    return output.dataset is None or (given.dataset is None and is_there(output.uri))


def _overlap(output: Location, given: Location) -> bool:
    """Tell whether one of two addresses on servers lies inside the other, or is the same."""
    if not (output.is_remote and given.is_remote):
        return False
    ours, theirs = (
        [*split_address(one.path)[:2], *_parts(split_address(one.path)[2]), *_parts(one.dataset)]
        for one in (output, given)
    )
    shared = min(len(ours), len(theirs))
    return ours[:shared] == theirs[:shared]


def _parts(path: str | None) -> list[str]:
    return [part for part in (path or "").split("/") if part]


def _file(location: Location) -> Path:
    return Path(os.path.realpath(location.local))


def _place(location: Location) -> tuple[Path, str | None]:
    """Return where a local volume is, whichever way it is written."""
    path, dataset = _file(location), (location.dataset or "").strip("/") or None
    if dataset is not None and path.is_dir():
        return path / dataset, None
    return path, dataset
