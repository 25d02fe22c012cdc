"""What is written down about one block beside its labels and its table.

``blocks/KEY.origins.json`` where each new segment began (global z, y, x),
``KEY.overlaps.json`` what each flood wanted that earlier segments had, ``KEY.seeds.csv``
every rejected seed with its reason (global z, y, x), ``KEY.log`` who did the block, how
long its parts took and how it ended. Ids are the block's own.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from floodem.assembly.blocks import Block
from floodem.volumes.servers.addresses import without_secrets
from floodem.volumes.servers.transport import Store

if TYPE_CHECKING:
    from floodem.flooding.block import BlockFlooder

_MOST_LOG_BYTES = 2**20
"""A block that is begun and killed without end keeps what was logged last."""


def write_record(objects: Store, block: Block, *, flooder: BlockFlooder) -> None:
    """Write origins, overlaps and rejected seeds of a flooded block.

    Parameters
    ----------
    objects
        The run's folder.

    Raises
    ------
    StorageError
        When the disk or the server refuses.
    """
    from floodem.flooding.results import origins_record, overlaps_record, rejected_seeds

    corner = block.halo.start
    files = {
        "origins.json": json.dumps(origins_record(flooder, corner=corner), indent=1) + "\n",
        "overlaps.json": json.dumps(overlaps_record(flooder), indent=1) + "\n",
        "seeds.csv": rejected_seeds(flooder, corner=corner),
    }
    for ending, text in files.items():
        objects.write(f"blocks/{block.key}.{ending}", text.encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockLog:
    """The log of one block; every attempt adds its lines.

    Attributes
    ----------
    objects
        The run's folder.
    block
        Whose it is.
    """

    objects: Store
    block: Block

    def add(self, *lines: str) -> None:
        """Append lines with the time (UTC).

        Raises
        ------
        StorageError
            When the disk or the server refuses.
        """
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        added = "".join(f"{stamp} {without_secrets(line)}\n" for line in lines).encode()
        name = f"blocks/{self.block.key}.log"
        before = self.objects.read(name) or b""
        self.objects.write(name, (before + added)[-_MOST_LOG_BYTES:])


def host() -> str:
    """Return the name of this machine and the number of this process."""
    return f"{socket.gethostname()}:{os.getpid()}"


def told(values: Mapping[str, int | float]) -> str:
    """Write numbers as ``name value`` in one line."""
    return ", ".join(
        f"{name} {value:.2f}" if isinstance(value, float) else f"{name} {value}"
        for name, value in values.items()
    )
