"""A configuration becomes examples in flight: coordinates found or made, margins checked."""

from __future__ import annotations

from collections.abc import Callable

import torch

from floodem.errors import GeometryError, OptionError
from floodem.geometry import Box, Zyx
from floodem.progress import ProgressListener
from floodem.training.configuration.options import TrainOptions, volume_called
from floodem.training.coordinates.centre_list import CentreList
from floodem.training.coordinates.index import CoordinateIndex
from floodem.training.coordinates.indexing import index_labels
from floodem.training.coordinates.loading import Coordinates, load_coordinates
from floodem.training.coordinates.narrowing import narrowed
from floodem.training.coordinates.samplers import Sampler, make_sampler
from floodem.training.examples.example import Examples, room
from floodem.training.examples.in_flight import InFlight
from floodem.training.examples.movement import make_policy, patch_shape
from floodem.training.examples.sources import TrainingData


def make_in_flight(
    options: TrainOptions,
    data: TrainingData,
    *,
    index: Coordinates,
    rank: int = 0,
    world: int = 1,
    device: torch.device,
    dtype: torch.dtype,
) -> InFlight:
    """Return the slots of one process, each with its first example.

    Parameters
    ----------
    index
        From `find_coordinates`.
    rank, world
        Number of this process, and of all of them.

    Raises
    ------
    OptionError, UsageError
        When no example could begin, or the coordinates are of other volumes.
    GeometryError
        When examples would leave their volume and may not.
    """
    policy = make_policy(options.network, options.movement, seed=options.seed)
    if options.movement.init < options.movement.threshold:
        raise OptionError(
            f"movement.init {options.movement.init} lies below movement.threshold "
            f"{options.movement.threshold}, so that no example would begin: raise init"
        )
    examples = Examples(
        data,
        _sampler(options, data, index=index),
        augmentation=options.augmentation,
        patch_shape=patch_shape(options.network, policy),
        seed=options.seed,
        pads=options.sampling.out_of_volume == "pad",
    )
    here = options.batch_size * options.accumulate
    return InFlight(
        examples,
        policy,
        network=options.network,
        movement=options.movement,
        batch_size=options.batch_size,
        batches=options.accumulate,
        first=rank * here,
        total=world * here,
        device=device,
        dtype=dtype,
    )


def find_coordinates(
    options: TrainOptions,
    data: TrainingData,
    *,
    progress: ProgressListener | None = None,
    notice: Callable[[str], None] = lambda sentence: None,
) -> Coordinates:
    """Read the coordinates of the configuration, or make an index from the labels.

    Of an index of more than a run sees, the centres remain whose patches lie inside
    the run's boxes; `notice` is told. A list of centres stays as it is.

    Raises
    ------
    OptionError, LabelError
        When no voxel is left to centre an example on.
    GeometryError
        When patches would leave their volume and may not.
    """
    if options.sampling.coordinates is not None:
        index = load_coordinates(options.sampling.coordinates)
        if isinstance(index, CentreList):
            return index
        return _inside(index, data, reach=_required_reach(options), notice=notice)
    _require_margin(options)
    return index_labels(
        {name: volume.labels for name, volume in data.volumes.items()},
        sampling=options.sampling,
        margin=margin(options),
        boxes={name: volume.box for name, volume in data.volumes.items()},
        progress=progress,
    )


def margin(options: TrainOptions) -> Zyx:
    """Return the voxels to keep free at each face, z, y, x: what a patch reaches."""
    if options.sampling.margin is not None:
        return options.sampling.margin
    if options.sampling.out_of_volume == "pad":
        return (0, 0, 0)
    return _patch_reach(options)


def _patch_reach(options: TrainOptions) -> Zyx:
    """Return how far a patch reaches from its centre, z, y, x, its axes exchanged or not."""
    policy = make_policy(options.network, options.movement, seed=options.seed)
    shape = room(patch_shape(options.network, policy), options.augmentation)
    z, y, x = (size // 2 for size in shape)
    return (z, y, x)


def _required_reach(options: TrainOptions) -> Zyx:
    """Return how far from its volume's faces a centre must lie, z, y, x."""
    return (0, 0, 0) if options.sampling.out_of_volume == "pad" else _patch_reach(options)


def _require_margin(options: TrainOptions) -> None:
    """Refuse a margin of the configuration that is less than patches reach."""
    given, reach = options.sampling.margin, _required_reach(options)
    if given is not None and any(less < need for less, need in zip(given, reach, strict=True)):
        raise GeometryError(
            f"sampling.margin {_text(given)} is less than patches reach around their centres, "
            f"{_text(reach)} voxels (z,y,x): leave it out, give that much, or set "
            "sampling.out_of_volume to pad"
        )


def _text(zyx: Zyx) -> str:
    return ",".join(str(size) for size in zyx)


def _inside(
    index: CoordinateIndex, data: TrainingData, *, reach: Zyx, notice: Callable[[str], None]
) -> CoordinateIndex:
    """Return an index without the centres whose patches leave the boxes of a run."""
    parts: dict[str, Box] = {}
    for known in index.volumes:
        volume = data.volumes.get(known.name)
        # An index of other volumes is refused where they are held against each other.
        if volume is None or not volume.image.box.contains(known.box):
            continue
        if not volume.box.contains(known.box):
            free = _less(volume.box, reach)
            if free is None:
                raise GeometryError(
                    f"patches reach {_text(reach)} voxels (z,y,x) around their centres, and "
                    f"{volume.box} of {volume_called(known.name)} has no room for one: give a "
                    "larger box, or set sampling.out_of_volume to pad"
                )
            part = free.intersection(index.free_box(known.name))
            if part is None:
                raise GeometryError(
                    f"{index.source} holds no centre in {volume_called(known.name)} whose patch, "
                    f"{_text(reach)} voxels (z,y,x) around it, lies inside {volume.box}: run "
                    "`floodem partition` with that --box, and `floodem sample` again"
                )
            parts[known.name] = part
    if not parts:
        return index
    fewer = narrowed(index, parts)
    for name in parts:
        left, had = (
            sum(one.count(name, number) for number in one.partitions(name))
            for one in (fewer, index)
        )
        notice(
            f"{index.source} holds centres beyond {data.volumes[name].box} (z,y,x) of "
            f"{volume_called(name)}: those are used whose patches lie inside, {left:,} of {had:,}"
        )
    return fewer


def _less(box: Box, reach: Zyx) -> Box | None:
    """Return a box less some voxels at each face; None when nothing is left."""
    if any(size <= 2 * less for size, less in zip(box.shape, reach, strict=True)):
        return None
    z, y, x = reach
    return box.grow((-z, -y, -x))


def _sampler(options: TrainOptions, data: TrainingData, *, index: Coordinates) -> Sampler:
    index.require_volumes(
        {name: volume.box for name, volume in data.volumes.items()},
        margin=_required_reach(options),
    )
    return make_sampler(
        options.sampling.sampler,
        index,
        seed=options.seed,
        weights={name: volume.options.weight for name, volume in data.volumes.items()},
        background=options.sampling.background,
    )
