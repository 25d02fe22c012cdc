"""What a conversion gives back to its caller."""

from __future__ import annotations

from dataclasses import dataclass

from floodem.volumes.volume import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """What a conversion has made.

    Attributes
    ----------
    uri, format
        Its address, and the name of its format.
    kind
        What the source or the caller said that its values mean, if they did.
    record
        Address of the folder with the receipts.
    levels
        How many levels it has.
    blocks
        How many blocks over all levels; `resumed_blocks` of them by earlier runs.
    labels
        How many objects were numbered anew; None where labels were not.
    is_lossy
        Whether the format gives back other values than it was given.
    was_finished
        Whether an earlier call had made all of it.
    notices
        What is odd about the source but no reason to refuse, and what of the options
        has no effect or was decided by a look at the voxels.
    """

    uri: str
    format: str
    kind: Kind | None
    record: str
    levels: int
    blocks: int
    resumed_blocks: int
    labels: int | None
    is_lossy: bool
    was_finished: bool
    notices: tuple[str, ...]
