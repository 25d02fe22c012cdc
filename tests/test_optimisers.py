"""Weights follow the loss as the options say."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from floodem.network.conv_stack import ConvStack
from floodem.training.configuration.options import OptimiserOptions
from floodem.training.learning.averaging import WeightAverage
from floodem.training.learning.optimisers import (
    ADAGRAD_START,
    clip_gradients,
    initialise,
    learning_rate,
    make_optimiser,
    set_learning_rate,
)
from floodem.training.learning.precision import GROWTH_STEPS, LossScale

NAMES = ("sgd", "momentum", "adam", "adamw", "rmsprop", "adagrad")


def one_weight(value=1.0, gradient=None):
    parameter = nn.Parameter(torch.tensor([value], dtype=torch.float64))
    if gradient is not None:
        parameter.grad = torch.tensor([gradient], dtype=torch.float64)
    return parameter


def stepped(options, *, steps=3, gradient=0.5):
    parameter = one_weight()
    optimiser = make_optimiser([parameter], options)
    for _ in range(steps):
        parameter.grad = torch.tensor([gradient], dtype=torch.float64)
        optimiser.step()
    return float(parameter.detach())


@pytest.mark.parametrize("name", NAMES)
def test_every_optimiser_lowers_a_loss(name):
    torch.manual_seed(0)
    network = nn.Linear(3, 1)
    inputs, wanted = torch.randn(64, 3), torch.randn(64, 1)
    optimiser = make_optimiser(
        network.parameters(), OptimiserOptions(name=name, learning_rate=0.02)
    )
    values = []
    for _ in range(40):
        optimiser.zero_grad()
        loss = nn.functional.mse_loss(network(inputs), wanted)
        loss.backward()
        optimiser.step()
        values.append(float(loss.detach()))
    assert values[-1] < 0.97 * values[0]


def test_sgd_and_momentum_are_what_the_formulas_say():
    assert stepped(OptimiserOptions(name="sgd", learning_rate=0.1)) == pytest.approx(1 - 3 * 0.05)
    velocity, weight = 0.0, 1.0
    for _ in range(3):
        velocity = 0.9 * velocity + 0.5
        weight -= 0.1 * velocity
    assert stepped(OptimiserOptions(name="momentum", learning_rate=0.1)) == pytest.approx(weight)


def test_adam_and_adamw_differ_by_the_decay_of_weights():
    adam = stepped(OptimiserOptions(name="adam", learning_rate=0.1), steps=1)
    assert adam == pytest.approx(0.9)  # the first step of Adam is the learning rate
    decayed = stepped(OptimiserOptions(name="adamw", learning_rate=0.1, weight_decay=0.2), steps=1)
    assert decayed == pytest.approx(0.9 - 0.1 * 0.2)


def test_rmsprop_has_momentum_and_adagrad_starts_as_in_tensorflow():
    options = OptimiserOptions(name="rmsprop", learning_rate=0.1, rmsprop_decay=0.9, momentum=0.0)
    mean = 0.1 * 0.25
    assert stepped(options, steps=1) == pytest.approx(1 - 0.1 * 0.5 / math.sqrt(mean))
    adagrad = stepped(OptimiserOptions(name="adagrad", learning_rate=0.1), steps=1)
    assert adagrad == pytest.approx(1 - 0.1 * 0.5 / math.sqrt(ADAGRAD_START + 0.25))


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear", "exponential"])
def test_the_learning_rate_rises_in_a_line_and_falls_to_its_final_fraction(schedule):
    options = OptimiserOptions(
        learning_rate=2.0, schedule=schedule, warmup_steps=10, final_fraction=0.1
    )
    rates = [learning_rate(options, step=step, max_steps=110) for step in range(200)]
    assert rates[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    assert rates[10] == pytest.approx(2.0)
    last = 2.0 if schedule == "constant" else 0.2
    assert rates[110:] == pytest.approx([last] * 90)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    middle = {"constant": 2.0, "cosine": 1.1, "linear": 1.1, "exponential": 2 * math.sqrt(0.1)}
    assert rates[60] == pytest.approx(middle[schedule])


def test_a_schedule_may_be_shorter_than_the_run():
    options = OptimiserOptions(learning_rate=1.0, schedule="linear", decay_steps=10)
    assert learning_rate(options, step=10, max_steps=1000) == pytest.approx(0.01)


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=8))
def test_clipping_by_element_bounds_each_gradient_and_keeps_small_ones(gradients):
    parameters = [one_weight(gradient=one) for one in gradients]
    clip_gradients(parameters, OptimiserOptions(clip="element", clip_value=0.7))
    assert [float(one.grad) for one in parameters] == [max(-0.7, min(0.7, g)) for g in gradients]


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=8))
def test_clipping_by_norm_keeps_the_direction(gradients):
    parameters = [one_weight(gradient=one) for one in gradients]
    norm = float(clip_gradients(parameters, OptimiserOptions(clip="norm", clip_value=0.7)))
    assert norm == pytest.approx(math.hypot(*gradients))
    factor = min(1.0, 0.7 / (norm + 1e-6))
    assert [float(one.grad) for one in parameters] == pytest.approx(
        [factor * one for one in gradients]
    )


def test_without_clipping_gradients_stay_and_a_norm_that_is_no_number_is_seen():
    parameters = [one_weight(gradient=3.0), one_weight(gradient=math.inf)]
    assert not math.isfinite(float(clip_gradients(parameters, OptimiserOptions(clip="none"))))
    assert float(parameters[0].grad) == 3.0


def test_a_learning_rate_is_set_for_all_weights():
    optimiser = make_optimiser([one_weight()], OptimiserOptions())
    set_learning_rate(optimiser, 0.25)
    assert [group["lr"] for group in optimiser.param_groups] == [0.25]


def test_first_weights_are_xavier_uniform_and_come_from_the_seed():
    networks = [ConvStack(depth=2, features=8) for _ in range(3)]
    for network, seed in zip(networks, (1, 1, 2), strict=True):
        initialise(network, seed=seed)
    first, again, other = (network.state_dict() for network in networks)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["residual.0.0.weight"], other["residual.0.0.weight"])
    assert all(not first[name].any() for name in first if name.endswith("bias"))
    bound = math.sqrt(6 / (27 * 8 + 27 * 8))
    largest = float(first["residual.0.0.weight"].abs().max())
    assert 0.99 * bound < largest <= bound


def test_an_average_of_weights_is_the_formula_and_goes_on_where_it_was():
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 0.0)
    average = WeightAverage(network, decay=0.5)
    expected, decays = 0.0, [0.1, 2 / 11, 0.25, 4 / 13, 5 / 14, 0.4, 7 / 16, 8 / 17, 0.5, 0.5]
    for step, decay in enumerate(decays, start=1):
        nn.init.constant_(network.weight, float(step))
        average.follow()
        expected = decay * expected + (1 - decay) * step
        assert float(average.weights()["weight"]) == pytest.approx(expected)
    later = WeightAverage(network, decay=0.5)
    later.restore(average.weights(), steps=average.steps)
    for one in (average, later):
        one.follow()
    assert torch.equal(average.weights()["weight"], later.weights()["weight"])


def test_the_loss_scale_halves_on_overflow_and_doubles_after_long_peace():
    scale = LossScale(scale=1024.0)
    scale.update(is_finite=False)
    assert scale.scale == 512
    for _ in range(GROWTH_STEPS):
        scale.update(is_finite=True)
    assert (scale.scale, scale.good_steps) == (1024, 0)
