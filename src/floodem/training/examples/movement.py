"""Where the field of view goes next inside an example.

In: logits of the seed at the places a policy asks about. Out: offsets from the
centre of the example, z, y, x, until it is exhausted. A policy is made once; each
example has its own `Walk`. Walks hold plain numbers, so that a run can be resumed.

References
----------
Januszewski et al. 2018, Nature Methods 15:605, Online Methods, "FFN training".
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int64

from floodem.flooding.movement import MoveQueue, face_peaks
from floodem.geometry import Zyx
from floodem.training.configuration.options import MovementOptions, NetworkOptions

CENTRE: Zyx = (0, 0, 0)


class Move(NamedTuple):
    """One place a policy has judged.

    Attributes
    ----------
    offset
        From the centre of the example, z, y, x.
    is_wanted
        Whether the truth reaches there.
    is_seen
        Whether the seed reaches the move threshold there.
    is_taken
        Whether the field of view goes there.
    """

    offset: Zyx
    is_wanted: bool
    is_seen: bool
    is_taken: bool


class Walk(ABC):
    """The moves of one example that are still to be judged."""

    @abstractmethod
    def candidates(self) -> list[Zyx]:
        """Return the offsets that `choose` wants to know about, in order."""

    @abstractmethod
    def choose(self, seen: Sequence[bool], wanted: Sequence[bool]) -> list[Move]:
        """Judge the candidates one by one up to the first that is taken.

        Parameters
        ----------
        seen, wanted
            For each of `candidates`: whether the seed, and whether the truth, reaches it.

        Returns
        -------
        moves
            Those judged; only the last may be taken, and none is when the example
            is exhausted.
        """

    @abstractmethod
    def arrive(self, offset: Zyx, cuboid: Float32[np.ndarray, "z y x"] | None) -> None:
        """Take note of a step that was done, and of the logits around its centre."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Return plain values from which `restore` makes the same walk."""

    @abstractmethod
    def restore(self, state: dict[str, Any]) -> None:
        """Become the walk of this state."""


class Policy(ABC):
    """How examples are walked.

    Attributes
    ----------
    reach
        How far the centre of the field of view gets from the example's, z, y, x.
    distances
        Rounded lengths of all its offsets, for statistics by distance.
    sees_cuboid
        Whether `Walk.arrive` wants the logits within `deltas` of the centre.
    """

    reach: Zyx
    distances: tuple[int, ...] = (0,)
    sees_cuboid = False

    @abstractmethod
    def begin(self) -> Walk:
        """Return the walk of a fresh example; its first move is to the centre."""

    def probes(self, offset: Zyx) -> Int64[np.ndarray, "n 3"]:
        """Return the voxels, as offsets, of which one must reach the threshold."""
        return np.array([offset], np.int64)


class _FixedWalk(Walk):
    def __init__(self, offsets: Sequence[Zyx]) -> None:
        self._offsets = offsets
        self._judged = 0

    def candidates(self) -> list[Zyx]:
        return list(self._offsets[self._judged :])

    def choose(self, seen: Sequence[bool], wanted: Sequence[bool]) -> list[Move]:
        moves = []
        for offset, is_seen, is_wanted in zip(self.candidates(), seen, wanted, strict=True):
            self._judged += 1
            moves.append(Move(offset, is_wanted, is_seen, is_seen))
            if is_seen:
                break
        return moves

    def arrive(self, offset: Zyx, cuboid: Float32[np.ndarray, "z y x"] | None) -> None:
        pass

    def state(self) -> dict[str, Any]:
        return {"judged": self._judged}

    def restore(self, state: dict[str, Any]) -> None:
        self._judged = int(state["judged"])


class FixedMoves(Policy):
    """All multiples of the step within `moves` steps, the centre first, in one order.

    Parameters
    ----------
    deltas
        Step of the field of view, z, y, x.
    moves
        Steps away from the centre.
    shuffle
        ``run``: shuffled once; ``distance``: shuffled among those equally far, nearer
        ones first, as several moves deep need it; ``none``: in C order.
    seed
        Of the shuffle.
    """

    def __init__(self, deltas: Zyx, *, moves: int, shuffle: str, seed: int) -> None:
        self.deltas = deltas
        self.reach = (deltas[0] * moves, deltas[1] * moves, deltas[2] * moves)
        steps = range(-moves, moves + 1)
        offsets: set[Zyx] = {
            (z * deltas[0], y * deltas[1], x * deltas[2])
            for z, y, x in itertools.product(steps, repeat=3)
        }
        others = sorted(offsets - {CENTRE})
        if shuffle != "none":
            order = np.random.Generator(np.random.Philox(seed)).permutation(len(others))
            others = [others[number] for number in order]
        if shuffle == "distance":
            others.sort(key=lambda offset: sum(abs(step) for step in offset))
        self.offsets: tuple[Zyx, ...] = (CENTRE, *others)
        self.distances = tuple(sorted({distance(offset) for offset in self.offsets}))

    def begin(self) -> Walk:
        """Return the walk of a fresh example."""
        return _FixedWalk(self.offsets)


class WindowedMoves(FixedMoves):
    """Fixed moves, taken where anything near the target voxel reaches the threshold.

    Looked at are the voxels within `window` of the offset that lie on the surface
    of a cuboid around the centre: the one whose faces are as many steps away as the
    offset. Thin processes that miss the target voxel itself are followed so.
    """

    def __init__(self, deltas: Zyx, *, moves: int, shuffle: str, seed: int, window: int) -> None:
        super().__init__(deltas, moves=moves, shuffle=shuffle, seed=seed)
        self._window = window
        self._known: dict[Zyx, Int64[np.ndarray, "n 3"]] = {}

    def probes(self, offset: Zyx) -> Int64[np.ndarray, "n 3"]:
        """Return the voxels, as offsets, of which one must reach the threshold."""
        if offset == CENTRE:
            return super().probes(offset)
        if offset not in self._known:
            self._known[offset] = self._shell(offset)
        return self._known[offset]

    def _shell(self, offset: Zyx) -> Int64[np.ndarray, "n 3"]:
        steps = max(
            abs(away) // delta for away, delta in zip(offset, self.deltas, strict=True) if delta
        )
        half = [delta * steps for delta in self.deltas]
        ranges = [
            np.arange(max(at - self._window, -edge), min(at + self._window, edge) + 1)
            for at, edge in zip(offset, half, strict=True)
        ]
        voxels = np.stack(np.meshgrid(*ranges, indexing="ij"), axis=-1).reshape(-1, 3)
        is_face = (np.abs(voxels) == half) & (np.array(half) > 0)
        shell: Int64[np.ndarray, "n 3"] = voxels[is_face.any(axis=1)].astype(np.int64)
        return shell


class _FollowingWalk(Walk):
    """The queue of inference, kept within reach; see `FollowingMoves`."""

    def __init__(self, policy: FollowingMoves) -> None:
        self._policy = policy
        self._queue = MoveQueue(CENTRE, deltas=policy.deltas)

    def candidates(self) -> list[Zyx]:
        return list(self._queue.waiting)

    def choose(self, seen: Sequence[bool], wanted: Sequence[bool]) -> list[Move]:
        moves = []
        for is_seen, is_wanted in zip(seen, wanted, strict=True):
            offset = self._queue.waiting.popleft()
            is_inside = all(
                abs(away) <= most for away, most in zip(offset, self._policy.reach, strict=True)
            )
            if not is_inside or self._queue.cell(offset) in self._queue.visited:
                continue
            is_taken = is_seen and (is_wanted or self._queue.cell(offset) == CENTRE)
            moves.append(Move(offset, is_wanted, is_seen, is_taken))
            if is_taken:
                break
        return moves

    def arrive(self, offset: Zyx, cuboid: Float32[np.ndarray, "z y x"] | None) -> None:
        assert cuboid is not None
        peaks = face_peaks(
            cuboid, deltas=self._policy.deltas, threshold_logit=self._policy.threshold_logit
        )
        self._queue.visit(offset, peaks)

    def state(self) -> dict[str, Any]:
        return {
            "waiting": [list(offset) for offset in self._queue.waiting],
            "visited": [list(cell) for cell in sorted(self._queue.visited)],
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._queue.waiting.clear()
        self._queue.waiting.extend((z, y, x) for z, y, x in state["waiting"])
        self._queue.visited.clear()
        self._queue.visited.update((z, y, x) for z, y, x in state["visited"])


class FollowingMoves(Policy):
    """The moves of inference, as far as the truth goes (``max_pred_moves``).

    A voxel that the seed reaches and the truth does not is counted as a spurious
    move and not visited, so that an example stays about its own object.
    """

    sees_cuboid = True

    def __init__(self, deltas: Zyx, *, moves: int, threshold: float) -> None:
        self.deltas = deltas
        self.reach = (deltas[0] * (moves + 1), deltas[1] * (moves + 1), deltas[2] * (moves + 1))
        self.threshold_logit = logit(threshold)

    def begin(self) -> Walk:
        """Return the walk of a fresh example."""
        return _FollowingWalk(self)


def logit(probability: float) -> float:
    """Return log(p / (1 - p)) in full; seeds round it to their own precision."""
    return math.log(probability / (1 - probability))


def distance(offset: Zyx) -> int:
    """Return the length of an offset, rounded down as the reference's statistics do."""
    return int(np.linalg.norm(offset))


def make_policy(network: NetworkOptions, movement: MovementOptions, *, seed: int) -> Policy:
    """Return the policy that the options name."""
    deltas, moves = network.deltas, movement.moves
    if movement.policy == "max_pred_moves":
        return FollowingMoves(deltas, moves=moves, threshold=movement.threshold)
    if movement.policy == "fixed_window":
        return WindowedMoves(
            deltas, moves=moves, shuffle=movement.shuffle, seed=seed, window=movement.window
        )
    return FixedMoves(deltas, moves=moves, shuffle=movement.shuffle, seed=seed)


def patch_shape(network: NetworkOptions, policy: Policy) -> Zyx:
    """Return the edge lengths of an example, z, y, x: all that its moves may see."""
    z, y, x = (size + 2 * far for size, far in zip(network.fov, policy.reach, strict=True))
    return (z, y, x)
