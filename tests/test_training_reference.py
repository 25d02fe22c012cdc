"""Twenty steps of training equal those of the slow twin, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from floodem.network.conv_stack import ConvStack
from floodem.training.configuration.options import MovementOptions, OptimiserOptions, TrainOptions
from floodem.training.examples.in_flight import InFlight
from floodem.training.learning.distributed import World
from floodem.training.learning.step import Learner
from reference import training_twin as twin
from training_cases import (
    AS_IT_IS,
    CPU,
    TINY,
    blobs,
    centres,
    flight,
    smooth_image,
    training_data,
    training_volume,
)

STEPS = 21  # seeds are compared before each step, so after twenty
SLOTS = 2
SHAPE = (16, 30, 30)
TOLERANCE = 1e-9


def network():
    """Weights strong enough that a seed grows here and shrinks there within one step."""
    torch.manual_seed(4)
    stack = ConvStack(**TINY.arguments).double()
    with torch.no_grad():
        for parameter in stack.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.15)
        stack.last.weight.normal_(std=1.0)
        stack.last.bias.fill_(-1.0)
    return stack


def twin_parameters(stack):
    layers = [*stack.first, *(layer for pair in stack.residual for layer in pair), stack.last]
    return [[part.detach().numpy() for part in (layer.weight, layer.bias)] for layer in layers]


def assert_equal(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=TOLERANCE, atol=TOLERANCE)


class Pair:
    """The real code and its twin, over the same volume, centres and weights."""

    def __init__(self, movement, optimiser, *, accumulate=1, mask=None):
        image, labels = smooth_image(SHAPE), blobs(SHAPE)
        volume = training_volume(image, labels, mask=mask, dtype=torch.float64)
        reach = movement.moves + (movement.policy == "max_pred_moves")
        shape = tuple(f + 2 * reach * d for f, d in zip(TINY.fov, TINY.deltas, strict=True))
        sampler = centres(labels, [edge // 2 for edge in shape])
        self.batch_size = SLOTS // accumulate
        self.flight, policy = flight(
            training_data(volume),
            sampler,
            movement=movement,
            batch_size=self.batch_size,
            batches=accumulate,
            dtype=torch.float64,
        )
        options = TrainOptions(
            network=TINY,
            movement=movement,
            augmentation=AS_IT_IS,
            optimiser=optimiser,
            batch_size=self.batch_size,
            accumulate=accumulate,
            dtype="float64",
        )
        self.stack = network()
        self.learner = Learner(self.stack, self.flight, options=options, world=World(), device=CPU)

        def examples(slot):
            for number in range(slot, 1000, SLOTS):
                yield twin.cut_example(
                    image,
                    labels,
                    sampler(number).centre,
                    shape=shape,
                    mean=128,
                    stddev=33,
                    mask=mask,
                )

        self.twin = twin.Training(
            twin_parameters(self.stack),
            [
                twin.Slot(
                    examples(slot),
                    policy=movement.policy,
                    # Their order is random, so it has to be told.
                    offsets=getattr(policy, "offsets", ())[1:],
                    threshold=movement.threshold,
                    deltas=TINY.deltas,
                    fov=TINY.fov,
                    window=movement.window,
                )
                for slot in range(SLOTS)
            ],
            fov=TINY.fov,
            learning_rate=optimiser.learning_rate,
            clip=optimiser.clip_value,
            momentum=optimiser.momentum if optimiser.name == "momentum" else 0.0,
        )

    def steps(self):
        """Yield what both did, step by step: the real code in the form of the twin."""
        for _ in range(STEPS):
            seeds = [self.flight.pictured(slot)["logits"].numpy() for slot in range(SLOTS)]
            batches = range(SLOTS // self.batch_size)
            inputs = torch.cat([self.flight.gather(batch).inputs_bczyx for batch in batches])
            logits = []
            self.flight.scatter = lambda batch, written, kept=logits: (
                kept.extend(written[:, 0].numpy().copy()),
                InFlight.scatter(self.flight, batch, written),
            )
            loss = self.learner.step().loss
            yield (
                twin.Step(loss=loss, positions=[], seeds=seeds, inputs=inputs, logits=logits),
                self.twin.step(),
            )

    @property
    def both_parameters(self):
        """All weights and biases now, of the real network and of the twin's."""
        pairs = (twin_parameters(self.stack), self.twin.parameters)
        return [[part for layer in layers for part in layer] for layers in pairs]


SGD = OptimiserOptions(learning_rate=0.05)
CASES = {
    "fixed": (MovementOptions(), {}),
    "fixed, two moves deep": (MovementOptions(moves=2, shuffle="distance"), {}),
    "fixed_window": (MovementOptions(policy="fixed_window"), {}),
    "fixed_window, narrow": (MovementOptions(policy="fixed_window", window=1), {}),
    "max_pred_moves": (MovementOptions(policy="max_pred_moves"), {}),
    "max_pred_moves, two moves deep": (MovementOptions(policy="max_pred_moves", moves=2), {}),
    "momentum": (
        MovementOptions(),
        {"optimiser": OptimiserOptions(name="momentum", learning_rate=0.01)},
    ),
    "two batches a step": (MovementOptions(), {"accumulate": 2}),
    "a loss mask": (
        MovementOptions(policy="max_pred_moves"),
        {"mask": (smooth_image(SHAPE, seed=5) > 120).astype(np.uint8)},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_first_twenty_steps_equal_those_of_the_twin(name):
    movement, arguments = CASES[name]
    pair = Pair(movement, **{"optimiser": SGD, **arguments})
    before = [part.copy() for part in pair.both_parameters[1]]
    for real, expected in pair.steps():
        for what in ("loss", "seeds", "inputs", "logits"):
            assert_equal(getattr(real, what), getattr(expected, what))
    for part, wanted, first in zip(*pair.both_parameters, before, strict=True):
        assert_equal(part, wanted)
        assert np.any(part != first), "nothing was learned"
    # Nothing is compared where nothing happens.
    assert min(slot.moves for slot in pair.twin.slots) >= 3
    assert min(slot.started for slot in pair.twin.slots) >= 2
    assert pair.twin.clipped >= 3
