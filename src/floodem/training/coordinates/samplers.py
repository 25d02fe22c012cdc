"""Where the next example is centred: an index and a draw's number in, a volume and a voxel out.

A sampler is a pure function of the number: a resumed run, or many processes that share
the numbers out, need no state. The randomness of draw n is block n of a counter-based
generator, so that neighbouring draws have nothing in common.

References
----------
Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3", SC '11 (Philox).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from floodem.errors import OptionError
from floodem.geometry import Zyx
from floodem.plugins import resolve
from floodem.training.configuration.options import volume_called
from floodem.training.coordinates.centre_list import CentreList
from floodem.training.coordinates.index import BACKGROUND, CoordinateIndex
from floodem.training.coordinates.loading import Coordinates

ENTRY_POINT_GROUP = "floodem.samplers"

_STREAM = 0x636F6F7264  # "coord": other parts of a run draw from other streams of its seed
_WORD_BITS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """The centre of one example: a volume's name, and z, y, x in that volume's own frame."""

    volume: str
    centre: Zyx


Sampler = Callable[[int], Draw]
"""Number of the draw, from 0, to the draw."""


LISTED = "listed"
"""The sampler of lists of centres."""


def make_sampler(
    name: str,
    index: Coordinates,
    *,
    seed: int,
    weights: Mapping[str, float],
    background: bool,
) -> Sampler:
    """Return the sampler of this name.

    Parameters
    ----------
    name
        ``balanced``, ``uniform``, ``listed`` (for a list of centres, and only for one), that
        of an installed package (entry point group ``floodem.samplers``), or
        ``package.module:factory``. A factory takes what stands here (all but the name)
        and returns a `Sampler`.
    index
        The possible centres, or a list of them.
    seed
        At least 0. Other seeds give other draws.
    weights
        How often to draw from each volume, relative to the others, by name; multiplied
        with those of the index. Empty: those of the index alone.
    background
        Also draw from background (partition 0), in balance like any other partition.

    Raises
    ------
    OptionError
        When no sampler has this name, or it does not go with the coordinates; a volume is
        unknown or has no weight, or there is nothing to draw from in a volume.
    DependencyError
        When the factory's package cannot be imported.
    """
    if seed < 0:
        raise OptionError(f"seed {seed} is negative: give 0 or more")
    if name == LISTED and not isinstance(index, CentreList):
        raise OptionError(
            f"{index.source} is an index, and sampling.sampler {LISTED} draws from lists of "
            "centres: choose balanced or uniform"
        )
    if name in _SAMPLERS and name != LISTED and isinstance(index, CentreList):
        raise OptionError(
            f"{index.source} is a list of centres in their order, of which sampling.sampler {name} "
            f"knows nothing: set sampling.sampler to {LISTED}"
        )
    factory = resolve(name, known=_SAMPLERS, group=ENTRY_POINT_GROUP, what="sampler")
    made: Sampler = factory(index, seed=seed, weights=weights, background=background)
    return made


class BalancedSampler:
    """First a volume by its weight, then any of its partitions alike, then any of its voxels."""

    def __init__(
        self,
        index: CoordinateIndex,
        *,
        seed: int,
        weights: Mapping[str, float],
        background: bool,
    ) -> None:
        self._index = index
        self._seed = seed
        self._names = index.volume_names
        self._shares = _cumulative(_weights(index, weights))
        self._partitions = {
            name: drawable_partitions(index, name, background=background) for name in self._names
        }

    def __call__(self, number: int) -> Draw:
        """Return draw `number`."""
        words = random_words(self._seed, number)
        name = self._names[_choose(words[0], self._shares)]
        partitions = self._partitions[name]
        partition = partitions[_below(words[1], len(partitions))]
        rank = _below(words[2], self._index.count(name, partition))
        return Draw(volume=name, centre=self._index.centre(name, partition, rank=rank))


class UniformSampler:
    """Any voxel alike, but for the weight of its volume."""

    def __init__(
        self,
        index: CoordinateIndex,
        *,
        seed: int,
        weights: Mapping[str, float],
        background: bool,
    ) -> None:
        self._index = index
        self._seed = seed
        factors = dict(zip(index.volume_names, _weights(index, weights), strict=True))
        self._places = [
            (name, partition)
            for name in index.volume_names
            for partition in drawable_partitions(index, name, background=background)
        ]
        self._shares = _cumulative(
            [factors[name] * index.count(name, partition) for name, partition in self._places]
        )

    def __call__(self, number: int) -> Draw:
        """Return draw `number`."""
        words = random_words(self._seed, number)
        name, partition = self._places[_choose(words[0], self._shares)]
        rank = _below(words[1], self._index.count(name, partition))
        return Draw(volume=name, centre=self._index.centre(name, partition, rank=rank))


class ListedSampler:
    """The centres of a list, one after the other, and again from its first.

    The list alone decides: neither a seed nor whether background is wanted changes anything.
    """

    def __init__(
        self,
        index: CentreList,
        *,
        seed: int,
        weights: Mapping[str, float],
        background: bool,
    ) -> None:
        self._list = index
        if len(set(weights.values())) > 1:
            raise OptionError(
                f"{index.source} says how often each volume is drawn from: leave out volume.weight"
            )

    def __call__(self, number: int) -> Draw:
        """Return draw `number`."""
        volume, centre = self._list.draw(number)
        return Draw(volume=volume, centre=centre)


_SAMPLERS: dict[str, Callable[..., Sampler]] = {
    "balanced": BalancedSampler,
    "uniform": UniformSampler,
    LISTED: ListedSampler,
}


def random_words(seed: int, number: int) -> tuple[int, int, int, int]:
    """Return four random words of 64 bits that depend on a seed and a draw's number alone."""
    # The number stands in the counter's second word: the generator itself counts in the first.
    generator = np.random.Philox(key=[seed, _STREAM], counter=[0, number, 0, 0])
    a, b, c, d = (int(word) for word in generator.random_raw(4))
    return a, b, c, d


def drawable_partitions(index: CoordinateIndex, name: str, *, background: bool) -> tuple[int, ...]:
    """Return the partitions of a volume to draw from, ascending.

    Raises
    ------
    OptionError
        When there are none.
    """
    found = index.partitions(name)
    partitions = tuple(one for one in found if background or one != BACKGROUND)
    if not partitions:
        held = "only background" if found else "no voxel"
        raise OptionError(
            f"{volume_called(name)} has no centre to draw, because {index.source} holds {held} of "
            "it: leave the volume out, or lower the margin, the radius or the smallest size of "
            "objects"
        )
    return partitions


def _weights(index: CoordinateIndex, weights: Mapping[str, float]) -> list[float]:
    for name in weights:
        index.volume(name)
    missing = [name for name in index.volume_names if weights and name not in weights]
    if missing:
        raise OptionError(
            f"volume {missing[0]!r} of {index.source} has no weight: give one to each volume, or "
            "to none"
        )
    products = [volume.weight * weights.get(volume.name, 1.0) for volume in index.volumes]
    for name, product in zip(index.volume_names, products, strict=True):
        if not (math.isfinite(product) and product > 0):
            raise OptionError(f"weight {product!r} of {volume_called(name)} is not positive")
    return products


def _cumulative(shares: Sequence[float]) -> list[float]:
    total = math.fsum(shares)
    sums, reached = [], 0.0
    for share in shares:
        reached += share / total
        sums.append(reached)
    return sums


def _choose(word: int, cumulative: Sequence[float]) -> int:
    at = word / 2**_WORD_BITS
    chosen = int(np.searchsorted(cumulative, at, side="right"))
    return min(chosen, len(cumulative) - 1)


def _below(word: int, bound: int) -> int:
    """Return a number below `bound`; one is likelier than another by 2**-64 at most."""
    return (word * bound) >> _WORD_BITS
