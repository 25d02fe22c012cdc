"""Many examples at once: each has a slot, and each step shows one field of view of every slot.

In: examples by number. Out: batches for the network; and back its logits, which
become the seeds of the next step and decide where the field of view goes. Images,
targets, weights and seeds of all slots stay on the device; what the moves need to
know are a few numbers for each slot and step.

    slot 0   |example 0 ....|example 4 ..|example 8 .........
    slot 1   |example 1 ..|example 5 .........|example 9 ....
              one step ->

Slot s of n takes the examples s, s + n, s + 2n, ... whatever the number of processes.
Suffixes: s slot, b slots of one batch, c channel, z y x space.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from floodem.errors import ModelError
from floodem.geometry import Zyx
from floodem.training.configuration.options import MovementOptions, NetworkOptions
from floodem.training.examples.example import Example, Examples
from floodem.training.examples.metrics import Metrics
from floodem.training.examples.movement import CENTRE, Move, Policy, Walk, logit


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One field of view of each slot of a batch.

    Attributes
    ----------
    inputs_bczyx
        Normalised image and seed logits.
    seeds_bczyx, targets_bczyx, weights_bczyx
        Seed logits, wanted probabilities, and what each voxel counts in the loss.
    """

    inputs_bczyx: Float[Tensor, "b 2 z y x"]
    targets_bczyx: Float[Tensor, "b 1 z y x"]
    weights_bczyx: Float[Tensor, "b 1 z y x"]

    @property
    def seeds_bczyx(self) -> Float[Tensor, "b 1 z y x"]:
        """The seed logits, to which the network's answer is added."""
        return self.inputs_bczyx[:, 1:]


@dataclass(slots=True)
class _Slot:
    """What one slot is doing: its example, its walk, and where its field of view is."""

    number: int
    walk: Walk
    offset: Zyx = CENTRE


class InFlight:
    """The slots of one process.

    Parameters
    ----------
    examples
        Makes an example of its number.
    policy
        How examples are walked.
    batch_size
        Slots of one batch.
    batches
        How many batches there are (gradient accumulation).
    first, total
        Number of the first slot here, and of all slots of all processes.

    Attributes
    ----------
    metrics
        Counts of moves and voxels; whoever logs takes them.
    """

    def __init__(
        self,
        examples: Examples,
        policy: Policy,
        *,
        network: NetworkOptions,
        movement: MovementOptions,
        batch_size: int,
        batches: int,
        first: int,
        total: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self._examples, self._policy = examples, policy
        self._fov, self._deltas = network.fov, network.deltas
        self._batch_size, self._total = batch_size, total
        self._threshold = movement.threshold
        self._move_logit = logit(movement.threshold)
        self._init_logit = logit(movement.init)
        self._pad_logit = logit(movement.pad)
        self.metrics = Metrics(policy.distances, device=device)
        shape = (batch_size * batches, *examples.patch_shape)
        self._images_szyx, self._targets_szyx, self._weights_szyx, self._seeds_szyx = (
            torch.zeros(shape, dtype=dtype, device=device) for _ in range(4)
        )
        self._centre = np.array([size // 2 for size in examples.patch_shape])
        self._corner = self._centre - np.array(self._fov) // 2
        # Reading patches from files takes time that the network can use.
        self._ahead: dict[int, Future[Example]] = {}
        self._reader = None if examples.data.is_resident else ThreadPoolExecutor(max_workers=2)
        self._slots = [_Slot(first + slot, policy.begin()) for slot in range(shape[0])]
        self._begin(range(shape[0]))

    def gather(self, batch: int) -> Batch:
        """Return the fields of view of a batch, counted from 0."""
        places = self._places(batch)
        images, targets, weights, seeds = (
            self._windows(whole)[places]
            for whole in (
                self._images_szyx, self._targets_szyx, self._weights_szyx, self._seeds_szyx
            )
        )  # fmt: skip
        return Batch(
            inputs_bczyx=torch.stack([images, seeds], dim=1),
            targets_bczyx=targets[:, None],
            weights_bczyx=weights[:, None],
        )

    @torch.no_grad()
    def scatter(self, batch: int, logits_bczyx: Float[Tensor, "b 1 z y x"]) -> None:
        """Take the network's logits as new seeds and move on; exhausted examples are replaced."""
        logits_bzyx = logits_bczyx[:, 0].to(self._seeds_szyx.dtype)
        self._windows(self._seeds_szyx)[self._places(batch)] = logits_bzyx
        slots = range(batch * self._batch_size, (batch + 1) * self._batch_size)
        cuboids = self._cuboids(logits_bzyx) if self._policy.sees_cuboid else None
        for row, slot in enumerate(slots):
            here = self._slots[slot]
            here.walk.arrive(here.offset, None if cuboids is None else cuboids[row])
        exhausted = []
        for slot, moves in zip(slots, self._choices(slots), strict=True):
            self.metrics.judge(moves)
            if moves and moves[-1].is_taken:
                self._slots[slot].offset = moves[-1].offset
            else:
                self._finish(slot)
                number = self._slots[slot].number + self._total
                self._slots[slot] = _Slot(number, self._policy.begin())
                exhausted.append(slot)
        self._begin(exhausted)

    def state(self) -> dict[str, Tensor]:
        """Return all that `restore` needs; examples themselves are made again."""
        slots = [
            {"number": one.number, "offset": list(one.offset), "walk": one.walk.state()}
            for one in self._slots
        ]
        text = json.dumps(slots).encode()
        return {
            "seeds": self._seeds_szyx.cpu().clone(),
            "slots": torch.frombuffer(bytearray(text), dtype=torch.uint8),
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on where another run was.

        Raises
        ------
        ModelError
            When the state belongs to other slots.
        """
        try:
            slots: list[dict[str, Any]] = json.loads(bytes(state["slots"].tolist()))
            seeds = state["seeds"]
            if len(slots) != len(self._slots) or seeds.shape != self._seeds_szyx.shape:
                raise ValueError(f"{len(slots)} examples in flight instead of {len(self._slots)}")
            restored = [
                self._restored(values, like=slot)
                for values, slot in zip(slots, self._slots, strict=True)
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"the checkpoint's examples do not fit this run ({error}): give the options it "
                "was begun with"
            ) from error
        self._slots = restored
        for slot in range(len(self._slots)):
            self._fill(slot)
        self._seeds_szyx.copy_(seeds)

    def pictured(self, slot: int = 0) -> dict[str, Tensor]:
        """Return image, targets, logits and weights of one slot as they are now, z, y, x."""
        return {
            "image": self._images_szyx[slot].clone(),
            "targets": self._targets_szyx[slot].clone(),
            "logits": self._seeds_szyx[slot].clone(),
            "weights": self._weights_szyx[slot].clone(),
        }

    def close(self) -> None:
        """Stop reading ahead."""
        if self._reader is not None:
            self._reader.shutdown(cancel_futures=True)

    def _restored(self, values: dict[str, Any], *, like: _Slot) -> _Slot:
        """Return the slot of these values, which may come from anywhere."""
        z, y, x = (int(away) for away in values["offset"])
        number = int(values["number"])
        if number < 0 or (number - like.number) % self._total:
            raise ValueError(f"example {number} belongs to another slot")
        if not _is_within((z, y, x), self._policy.reach):
            raise ValueError(f"a field of view is at {(z, y, x)}")
        slot = _Slot(number, self._policy.begin(), (z, y, x))
        slot.walk.restore(values["walk"])
        if not all(_is_within(offset, self._centre) for offset in slot.walk.candidates()):
            raise ValueError("a move leaves its patch")
        return slot

    def _fill(self, slot: int) -> None:
        """Put image, targets and weights of the slot's example in place."""
        number = self._slots[slot].number
        waiting = self._ahead.pop(number, None)
        example = self._examples(number) if waiting is None else waiting.result()
        if self._reader is not None:
            following = number + self._total
            self._ahead[following] = self._reader.submit(self._examples, following)
        self._images_szyx[slot] = example.image
        self._targets_szyx[slot] = example.targets
        self._weights_szyx[slot] = example.weights

    def _begin(self, slots: Sequence[int]) -> None:
        """Show new examples: plant their seeds and judge the moves to their centres."""
        for slot in slots:
            self._fill(slot)
            seeds = self._seeds_szyx[slot]
            seeds.fill_(self._pad_logit)
            seeds[tuple(self._centre)] = self._init_logit
        for slot, moves in zip(slots, self._choices(slots), strict=True):
            self.metrics.judge(moves)
            assert moves[-1].is_taken, "an example begins at its centre"
            self._slots[slot].offset = moves[-1].offset

    def _finish(self, slot: int) -> None:
        """Count the voxels of an exhausted example; its patch is what its moves could reach."""
        self.metrics.finish(
            self._seeds_szyx[slot], self._targets_szyx[slot], weights_zyx=self._weights_szyx[slot]
        )

    def _choices(self, slots: Sequence[int]) -> list[list[Move]]:
        """Ask the seeds and targets of all slots about all their candidates, at once."""
        offsets = [self._slots[slot].walk.candidates() for slot in slots]
        probes = [self._policy.probes(offset) for some in offsets for offset in some]
        if not probes:
            return [[] for _ in slots]
        owners = np.repeat(np.asarray(slots), [len(some) for some in offsets])
        lengths = [len(voxels) for voxels in probes]
        z, y, x = (np.concatenate(probes) + self._centre).T
        place = tuple(
            torch.from_numpy(np.ascontiguousarray(index)).to(self._seeds_szyx.device)
            for index in (np.repeat(owners, lengths), z, y, x)
        )
        values = torch.stack([self._seeds_szyx[place], self._targets_szyx[place]]).cpu().numpy()
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        seen, wanted = np.maximum.reduceat(values, starts, axis=1)
        is_seen = (seen >= self._move_logit).tolist()
        is_wanted = (wanted >= self._threshold).tolist()
        chosen, at = [], 0
        for slot, some in zip(slots, offsets, strict=True):
            end = at + len(some)
            chosen.append(self._slots[slot].walk.choose(is_seen[at:end], is_wanted[at:end]))
            at = end
        return chosen

    def _places(self, batch: int) -> tuple[Tensor, ...]:
        """Return slot, z, y, x of the corner of each field of view of a batch."""
        slots = range(batch * self._batch_size, (batch + 1) * self._batch_size)
        rows = [
            (
                slot,
                *(int(c) + o for c, o in zip(self._corner, self._slots[slot].offset, strict=True)),
            )
            for slot in slots
        ]
        places = torch.tensor(rows, device=self._seeds_szyx.device)
        return tuple(places.unbind(dim=1))

    def _windows(self, whole_szyx: Tensor) -> Tensor:
        """View patches as all fields of view they hold: s, corner z y x, then z y x."""
        for axis, size in enumerate(self._fov):
            whole_szyx = whole_szyx.unfold(axis + 1, size, 1)
        return whole_szyx

    def _cuboids(self, logits_bzyx: Tensor) -> np.ndarray[Any, np.dtype[Any]]:
        """Return the logits within one step of the centre, on the host."""
        window = tuple(
            slice(size // 2 - step, size // 2 + step + 1)
            for size, step in zip(self._fov, self._deltas, strict=True)
        )
        return logits_bzyx[(slice(None), *window)].float().cpu().numpy()


def _is_within(offset: Zyx, most: Iterable[int]) -> bool:
    return all(abs(away) <= limit for away, limit in zip(offset, most, strict=True))
