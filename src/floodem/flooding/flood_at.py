"""One object from one seed, in memory: an image and a position in, a mask out.

For who wants to see a flood grow, or one object only: a notebook, a script. Nothing is
written. The object is the one that `floodem.segment` finds from the same seed where
nothing was segmented before. For many seeds of one image, see floodem.flooding.flooder.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from floodem.flooding.flooder import DEFAULT_REACH, FloodedObject, Flooder, FloodStep
from floodem.flooding.request import SegmentRequest
from floodem.geometry import Box, Zyx
from floodem.volumes import open_volume
from floodem.volumes.volume import Volume

if TYPE_CHECKING:
    from floodem.network.model_file import Model

__all__ = ["DEFAULT_REACH", "FloodStep", "FloodedObject", "flood_at"]


def flood_at(
    image: str | Path | Volume,
    seed: Zyx,
    *,
    model: str | Path | Model,
    box: Box | None = None,
    request: SegmentRequest | None = None,
    on_step: Callable[[FloodStep], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> FloodedObject:
    """Flood one object from one seed.

    Parameters
    ----------
    image
        Address or open volume, z, y, x.
    seed
        Voxel of the volume, z, y, x.
    model
        Model file, name, or loaded model.
    box
        Where the flood may go; by default the part of the image within 128 voxels of the seed.
    request
        Options, masks, initial segmentation, device and number format, as of
        `floodem.segment`; its seeds, `min_segment_size` and destinations have no meaning
        here, and its box counts where `box` is not given.
    on_step
        Called after each network call; between two calls the flood waits for it.
    should_stop
        Asked after each network call; when it answers True the flood ends with what it has.

    Raises
    ------
    GeometryError
        When the field of view does not fit around the seed.
    FloodemError
        When an input is refused.
    """
    from floodem.network.model_file import Model, load_model

    model = model if isinstance(model, Model) else load_model(model)
    opened = nullcontext(image) if isinstance(image, Volume) else open_volume(image)
    with opened as volume:
        flooder = Flooder(volume, model=model, request=request, reach=DEFAULT_REACH)
        return flooder.flood(seed, box=box, on_step=on_step, should_stop=should_stop)
