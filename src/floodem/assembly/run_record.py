"""The record of a run that is cut into blocks: what it is made from, and how far it is.

``run.json`` lies in the run's folder ``DST.floodem``, on a disk or on a server.
"""

from __future__ import annotations

from floodem.volumes.conversion.record import record_address
from floodem.volumes.location import parse_location


def work_address(uri: str) -> str:
    """Return where a run to this destination keeps what it makes: a folder or a remote address.

    Raises
    ------
    UsageError
        When the destination has no name to which the record's could be added.
    """
    return record_address(parse_location(uri))
