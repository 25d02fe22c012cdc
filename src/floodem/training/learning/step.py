"""One step of training: the examples in flight come in, better weights go out.

For each of ``accumulate`` batches: gather fields of view, forward, logits = seeds
+ update, loss, backward; the same logits are written back to the examples, without
a second forward pass and without a gradient through the seeds. Then gradients are
added up over all processes and clipped, and the optimiser steps.
Suffixes: b batch, c channel, z y x space.

References
----------
Januszewski et al. 2018, Nature Methods 15:605, Online Methods, "Network training".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from floodem.errors import DeviceError, ModelError
from floodem.training.configuration.options import TrainOptions
from floodem.training.examples.in_flight import Batch, InFlight
from floodem.training.learning.averaging import WeightAverage
from floodem.training.learning.clock import StepClock
from floodem.training.learning.distributed import World
from floodem.training.learning.losses import make_loss
from floodem.training.learning.optimisers import (
    clip_gradients,
    learning_rate,
    make_optimiser,
    set_learning_rate,
)
from floodem.training.learning.precision import LossScale, computing_in

_WEIGHTS, _AVERAGE, _OPTIMISER = "weights/", "average/", "optimiser/"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What one step did.

    Attributes
    ----------
    loss
        Mean over all batches and processes.
    gradient_norm
        Before clipping.
    rate
        Learning rate.
    messages
        Sums of what the processes had to say to each other.
    """

    loss: float
    gradient_norm: float
    rate: float
    messages: list[float]


class Learner:
    """A network, and all that changes with each step.

    Parameters
    ----------
    network
        On its device, in the format of its weights; equal in all processes.
    in_flight
        Examples of this process.
    """

    def __init__(
        self,
        network: nn.Module,
        in_flight: InFlight,
        *,
        options: TrainOptions,
        world: World,
        device: torch.device,
    ) -> None:
        self.options, self.world, self.device = options, world, device
        self.in_flight = in_flight
        # The layout in which cuDNN and oneDNN are fastest; oneDNN knows no float64.
        self._channels_last = options.dtype != "float64"
        if self._channels_last:
            network = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.network = network.train()
        self._parameters = [one for one in network.parameters() if one.requires_grad]
        self.optimiser = make_optimiser(self._parameters, options.optimiser)
        decay = options.optimiser.average
        self.average = WeightAverage(network, decay=decay) if decay else None
        self.scale = LossScale() if options.dtype == "float16" else None
        self.clock = StepClock(device)
        self.step_number = 0
        self.skipped = 0
        self.skipped_in_a_row = 0
        self._loss = make_loss(options.optimiser.loss)
        self._forward: Any = torch.compile(network) if options.compile else network

    def step(self, messages: Sequence[float] = ()) -> StepResult:
        """Show one field of view of every example to the network, and follow the gradient.

        Parameters
        ----------
        messages
            Numbers whose sums over all processes come back in the result.
        """
        self.clock.begin()
        self.optimiser.zero_grad(set_to_none=True)
        losses = [self._batch(number) for number in range(self.options.accumulate)]
        loss = torch.stack(losses).mean()
        gradients = [one.grad for one in self._parameters if one.grad is not None]
        if self.scale is not None:
            torch._foreach_mul_(gradients, 1 / self.scale.scale)
        total, *sums = self.world.mean_(gradients, [float(loss), *messages])
        norm = float(clip_gradients(self._parameters, self.options.optimiser))
        is_finite = math.isfinite(norm) and math.isfinite(total)
        rate = learning_rate(
            self.options.optimiser, step=self.step_number, max_steps=self.options.max_steps
        )
        if is_finite:
            set_learning_rate(self.optimiser, rate)
            self.optimiser.step()
            if self.average is not None:
                self.average.follow()
        if self.scale is not None:
            self.scale.update(is_finite=is_finite)
        self.skipped += not is_finite
        self.skipped_in_a_row = 0 if is_finite else self.skipped_in_a_row + 1
        self.step_number += 1
        self.clock.end_of("optimiser")
        return StepResult(
            loss=total / self.world.size,
            gradient_norm=norm,
            rate=rate,
            messages=sums,
        )

    def _batch(self, number: int) -> Tensor:
        """Learn from one batch; returns its loss."""
        batch = self.in_flight.gather(number)
        self.clock.end_of("patches")
        logits_bczyx = self._logits(batch)
        loss = self._loss(logits_bczyx, batch.targets_bczyx, batch.weights_bczyx)
        share = 1 / self.options.accumulate
        weighted = loss * (share if self.scale is None else share * self.scale.scale)
        weighted.backward()  # type: ignore[no-untyped-call]
        self.clock.end_of("network")
        written = logits_bczyx.detach()
        if self.scale is not None:  # an overflow must not stay in the examples
            written = torch.where(torch.isfinite(written), written, batch.seeds_bczyx)
        self.in_flight.scatter(number, written)
        self.clock.end_of("patches")
        return loss.detach()

    def _logits(self, batch: Batch) -> Float[Tensor, "b 1 z y x"]:
        inputs_bczyx = batch.inputs_bczyx
        if self._channels_last:
            inputs_bczyx = inputs_bczyx.contiguous(memory_format=torch.channels_last_3d)
        with computing_in(self.options.dtype, self.device):
            update_bczyx = self._run(inputs_bczyx)
        seeds_bczyx = batch.seeds_bczyx
        if update_bczyx.shape != seeds_bczyx.shape:
            raise ModelError(
                f"network {self.options.network.name} answers {tuple(update_bczyx.shape)} to "
                f"{tuple(inputs_bczyx.shape)}: it must return the update "
                f"{tuple(seeds_bczyx.shape)} (batch, channel, z, y, x)"
            )
        logits_bczyx: Tensor = seeds_bczyx + update_bczyx.to(seeds_bczyx.dtype)
        return logits_bczyx

    def _run(self, inputs_bczyx: Tensor) -> Tensor:
        """Ask the network, which is compiled at the first call where that is wanted."""
        try:
            update_bczyx: Tensor = self._forward(inputs_bczyx)
            return update_bczyx
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            if not self.options.compile or self.step_number:
                raise
            reason = str(error).strip().partition("\n")[0]
            raise DeviceError(
                f"the network cannot be compiled here ({reason}): leave out --compile"
            ) from error

    def weights(self) -> dict[str, Tensor]:
        """Return the weights that a model file gets: their average, where there is one."""
        if self.average is not None:
            return self.average.weights()
        return dict(self.network.state_dict())

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return all that `restore` needs but the examples: tensors, and plain facts."""
        tensors = {f"{_WEIGHTS}{name}": one for name, one in self.network.state_dict().items()}
        if self.average is not None:
            tensors |= {f"{_AVERAGE}{name}": one for name, one in self.average.weights().items()}
        for number, parameter in enumerate(self._parameters):
            for name, value in self.optimiser.state.get(parameter, {}).items():
                if value is not None:
                    tensors[f"{_OPTIMISER}{number}/{name}"] = value
        facts = {
            "step": self.step_number,
            "skipped": self.skipped,
            "skipped_in_a_row": self.skipped_in_a_row,
            "average_steps": self.average.steps if self.average else 0,
            "scale": None if self.scale is None else [self.scale.scale, self.scale.good_steps],
        }
        return tensors, facts

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Go on where another run was.

        Raises
        ------
        ModelError
            When the state belongs to another network or optimiser.
        """
        try:
            self.network.load_state_dict(_under(_WEIGHTS, tensors))
            if self.average is not None:
                self.average.restore(_under(_AVERAGE, tensors), steps=int(facts["average_steps"]))
            self._restore_optimiser(_under(_OPTIMISER, tensors))
            if self.scale is not None:
                scale, good_steps = facts["scale"]
                self.scale = LossScale(float(scale), int(good_steps))
            self.step_number, self.skipped, self.skipped_in_a_row = (
                int(facts[name]) for name in ("step", "skipped", "skipped_in_a_row")
            )
        except (KeyError, IndexError, RuntimeError, TypeError, ValueError) as error:
            raise ModelError(
                f"the checkpoint does not fit this run ({error}): give the options of its beginning"
            ) from error

    def _restore_optimiser(self, saved: Mapping[str, Tensor]) -> None:
        for path, value in saved.items():
            number, _, name = path.partition("/")
            parameter = self._parameters[int(number)]
            if value.shape not in {parameter.shape, torch.Size([])}:
                raise ValueError(f"{name} has shape {tuple(value.shape)}")
            # What has the parameter's shape gets its memory layout, which fused kernels want;
            # counters stay on the CPU, as torch makes them.
            is_alike = value.shape == parameter.shape
            self.optimiser.state[parameter][name] = (
                torch.empty_like(parameter, dtype=value.dtype).copy_(value) if is_alike else value
            )


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin so, without that beginning."""
    return {
        name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)
    }
