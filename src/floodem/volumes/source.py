"""A volume by address, for work that several processes share: plain values in, open volumes out."""

from __future__ import annotations

from dataclasses import dataclass

from floodem.volumes.access import open_volume
from floodem.volumes.volume import Volume


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeSource:
    """A volume that any process can open again.

    Attributes
    ----------
    uri, channel, axes, allow_external
        As `floodem.open_volume` takes them.
    level
        Which level of a pyramid; 0 is the finest.
    """

    uri: str
    level: int = 0
    channel: int | None = None
    axes: str | None = None
    allow_external: bool = False

    def open(self) -> Volume:
        """Open the volume.

        Raises
        ------
        VolumeNotFoundError, VolumeFormatError, UnsafeFileError, StorageError
            As `floodem.open_volume`.
        """
        return open_volume(
            self.uri,
            level=self.level,
            channel=self.channel,
            axes=self.axes,
            allow_external=self.allow_external,
        )
