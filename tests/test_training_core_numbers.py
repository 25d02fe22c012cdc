"""Losses and counts, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from floodem.errors import DependencyError, OptionError
from floodem.training.examples.metrics import Metrics, shares
from floodem.training.examples.movement import Move, logit
from floodem.training.learning.losses import (
    LOSSES,
    balanced_cross_entropy,
    make_loss,
    sigmoid_cross_entropy,
)
from training_cases import CPU

LN2 = math.log(2)


def voxels(*examples):
    """Examples of a few voxels each, in the shape of a batch; float64."""
    return torch.tensor(examples, dtype=torch.float64)[:, None, None, None, :]


def entropy(probability, target):
    return -target * math.log(probability) - (1 - target) * math.log(1 - probability)


# ---------------------------------------------------------------- losses


def test_cross_entropy_is_the_mean_over_all_voxels_of_all_examples():
    logits = voxels([0, logit(0.9)], [logit(0.2), 0])
    targets = voxels([0.95, 0.95], [0.05, 0.05])
    expected = (2 * LN2 + entropy(0.9, 0.95) + entropy(0.2, 0.05)) / 4
    loss = sigmoid_cross_entropy(logits, targets, torch.ones_like(logits))
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_voxels_of_weight_zero_stay_in_the_denominator_and_have_no_gradient():
    logits = voxels([0, 7, logit(0.9), -3]).requires_grad_()
    targets = voxels([0.95, 0.05, 0.95, 0.95])
    loss = sigmoid_cross_entropy(logits, targets, voxels([1, 0, 2, 0]))
    assert loss.item() == pytest.approx((LN2 + 2 * entropy(0.9, 0.95)) / 4, rel=1e-12)
    loss.backward()
    expected = [(0.5 - 0.95) / 4, 0, 2 * (0.9 - 0.95) / 4, 0]
    assert logits.grad.flatten().tolist() == pytest.approx(expected, rel=1e-12)


def test_balanced_loss_counts_object_and_surroundings_the_same_in_each_example():
    logits = voxels([0, logit(0.2), logit(0.2), logit(0.2)], [0, 0, logit(0.9), logit(0.9)])
    targets = voxels([0.95, 0.05, 0.05, 0.05], [0.05, 0.95, 0.95, 0.95])
    first = (LN2 + entropy(0.2, 0.05)) / 2
    second = (LN2 + (LN2 + 2 * entropy(0.9, 0.95)) / 3) / 2
    loss = balanced_cross_entropy(logits, targets, torch.ones_like(logits))
    assert loss.item() == pytest.approx((first + second) / 2, rel=1e-12)


def test_balanced_loss_leaves_voxels_of_weight_zero_out_altogether():
    logits, targets = voxels([0, 7, logit(0.2), -9]), voxels([0.95, 0.05, 0.05, 0.95])
    loss = balanced_cross_entropy(logits, targets, voxels([1, 0, 1, 0]))
    assert loss.item() == pytest.approx((LN2 + entropy(0.2, 0.05)) / 2, rel=1e-12)


def test_balanced_loss_of_an_object_without_surroundings_is_half_its_own():
    logits, targets = voxels([0, 0]), voxels([0.95, 0.95])
    loss = balanced_cross_entropy(logits, targets, torch.ones_like(logits))
    assert loss.item() == pytest.approx(LN2 / 2, rel=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_where_nothing_counts_the_loss_is_zero_and_so_is_its_gradient(name):
    logits = voxels([1, -30, 800]).requires_grad_()
    loss = make_loss(name)(logits, voxels([0.95, 0.05, 0.05]), voxels([0, 0, 0]))
    loss.backward()
    assert loss.item() == 0
    assert torch.all(logits.grad == 0)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_stay_finite_at_any_logit(name):
    logits = voxels([1e4, -1e4, 0]).requires_grad_()
    loss = make_loss(name)(logits, voxels([0.05, 0.95, 0.95]), voxels([1, 1, 1]))
    loss.backward()
    assert math.isfinite(loss.item())
    assert torch.all(torch.isfinite(logits.grad))


def test_a_loss_is_found_by_name_and_by_where_it_is_written():
    assert make_loss("sigmoid_cross_entropy") is sigmoid_cross_entropy
    assert (
        make_loss("floodem.training.learning.losses:balanced_cross_entropy")
        is balanced_cross_entropy
    )
    with pytest.raises(OptionError, match="nearest: sigmoid_cross_entropy"):
        make_loss("sigmoid_crossentropy")
    with pytest.raises(DependencyError, match="no_such_package"):
        make_loss("no_such_package:loss")


# ---------------------------------------------------------------- counts of moves


def move(offset, *, wanted, seen):
    return Move(offset, is_wanted=wanted, is_seen=seen, is_taken=seen and wanted)


def test_moves_are_correct_missed_or_spurious_by_what_truth_and_seed_say():
    metrics = Metrics((0, 4, 8), device=CPU)
    near, far, other = (4, 0, 0), (0, 8, 0), (1, 0, 0)
    metrics.judge(
        [
            move((0, 0, 0), wanted=True, seen=True),
            move(near, wanted=True, seen=True),
            move(near, wanted=True, seen=False),
            move(far, wanted=False, seen=True),
            move(far, wanted=False, seen=False),  # rightly not taken: no move at all
            move(other, wanted=True, seen=True),  # a distance that no policy named
        ]
    )
    counts = metrics.take()
    expected = {
        "moves_correct": 3,
        "moves_missed": 1,
        "moves_spurious": 1,
        "moves_correct_0": 2,
        "moves_correct_4": 1,
        "moves_missed_4": 1,
        "moves_spurious_8": 1,
    }
    assert {name: count for name, count in counts.items() if count} == expected
    assert set(metrics.take().values()) == {0.0}


def test_counts_have_the_same_names_in_the_same_order_whatever_was_counted():
    one, other = (Metrics((0, 4, 8), device=CPU) for _ in range(2))
    other.judge([move((0, 8, 0), wanted=True, seen=True), move((0, 0, 0), wanted=True, seen=True)])
    assert list(one.take()) == list(other.take())


def test_voxels_of_finished_examples_are_counted_by_hand():
    metrics = Metrics((0,), device=CPU)
    #                     tp   fp    fn   tn  not counted    just filled
    logits = torch.tensor([5.0, 4.0, 2.0, -3.0, 9.0, -9.0, logit(0.9) + 1e-6])
    targets = torch.tensor([0.95, 0.05, 0.95, 0.05, 0.05, 0.95, 0.95])
    weights = torch.tensor([1.0, 1.0, 1.0, 0.5, 0.0, 0.0, 1.0])
    for _ in range(2):
        metrics.finish(logits[None, None], targets[None, None], weights_zyx=weights[None, None])
    counts = metrics.take()
    assert [
        counts[name]
        for name in ("true_positive", "false_positive", "false_negative", "true_negative")
    ] == [4, 2, 2, 2]
    assert counts["examples"] == 2


# ---------------------------------------------------------------- shares


def test_shares_are_those_of_the_counts():
    counts = {
        "moves_correct": 6.0,
        "moves_missed": 1.0,
        "moves_spurious": 3.0,
        "moves_correct_8": 1.0,
        "moves_missed_8": 1.0,
        "moves_spurious_8": 0.0,
        "moves_correct_4": 0.0,
        "moves_missed_4": 0.0,
        "moves_spurious_4": 0.0,
        "true_positive": 30.0,
        "false_positive": 10.0,
        "false_negative": 20.0,
        "true_negative": 40.0,
        "examples": 5.0,
    }
    assert shares(counts) == pytest.approx(
        {
            "moves_correct": 0.6,
            "moves_missed": 0.1,
            "moves_spurious": 0.3,
            "moves_correct_by_distance_8": 0.5,
            "moves_missed_by_distance_8": 0.5,
            "moves_spurious_by_distance_8": 0.0,
            "precision": 0.75,
            "recall": 0.6,
            "specificity": 0.8,
            "accuracy": 0.7,
            "f1": 2 * 0.75 * 0.6 / (0.75 + 0.6),
            "examples": 5.0,
        }
    )


def test_what_was_not_counted_has_no_share():
    assert shares(Metrics((0, 4), device=CPU).take()) == {"examples": 0.0}


@given(st.lists(st.integers(0, 1000), min_size=4, max_size=4))
def test_shares_lie_between_nothing_and_all(counted):
    names = ("true_positive", "false_positive", "false_negative", "true_negative")
    counts = dict(zip(names, map(float, counted), strict=True))
    values = shares({"examples": 1.0, **counts})
    assert all(0 <= value <= 1 for value in values.values())
