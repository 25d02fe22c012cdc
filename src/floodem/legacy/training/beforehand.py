"""What can be refused of a training before its records are read, which may take an hour."""

from __future__ import annotations

from floodem.training.configuration.options import TrainOptions
from floodem.volumes import open_volume
from floodem.volumes.inspection.pairs import require_matching


def require_volumes(options: TrainOptions) -> None:
    """Refuse volumes that are not there, or do not lie on each other.

    Raises
    ------
    FloodemError
        Naming the volume.
    """
    for volume in options.volumes:
        with open_volume(volume.image) as image, open_volume(volume.labels) as labels:
            require_matching(image, labels)
