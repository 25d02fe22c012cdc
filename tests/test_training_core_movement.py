"""Where the field of view goes inside an example, policy by policy."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from floodem.training.configuration.options import MovementOptions, NetworkOptions
from floodem.training.examples.movement import (
    CENTRE,
    FixedMoves,
    FollowingMoves,
    Move,
    WindowedMoves,
    distance,
    logit,
    make_policy,
    patch_shape,
)

DELTAS = (1, 2, 2)
HIGH, LOW = 3.0, -3.0

deltas_ = st.tuples(*[st.integers(0, 4)] * 3).filter(any)


def fixed(deltas=DELTAS, *, moves=1, shuffle="run", seed=0):
    return FixedMoves(deltas, moves=moves, shuffle=shuffle, seed=seed)


def following(*, moves=1):
    return FollowingMoves(DELTAS, moves=moves, threshold=0.9)


def peaks(*offsets):
    """Logits about the centre of a field of view, high at some offsets; the first is highest."""
    cuboid = np.full([2 * step + 1 for step in DELTAS], LOW, np.float32)
    for rank, offset in enumerate(offsets):
        cuboid[tuple(o + d for o, d in zip(offset, DELTAS, strict=True))] = HIGH - rank / 10
    return cuboid


def take(walk, *, seen=lambda offset: True, wanted=lambda offset: True):
    """Let a walk judge its candidates; returns the moves it has judged."""
    offsets = walk.candidates()
    return walk.choose([seen(one) for one in offsets], [wanted(one) for one in offsets])


def visited(policy, cuboids):
    """Walk where every candidate is seen and wanted; `cuboids` maps offsets to logits."""
    walk, found = policy.begin(), []
    while (moves := take(walk)) and moves[-1].is_taken:
        found.append(moves[-1].offset)
        walk.arrive(found[-1], cuboids.get(found[-1], peaks()))
    return found


# ---------------------------------------------------------------- fixed


@given(
    deltas=deltas_, moves=st.integers(0, 3), shuffle=st.sampled_from(["run", "distance", "none"])
)
@settings(deadline=None)
def test_fixed_moves_are_all_multiples_of_the_step_once_the_centre_first(deltas, moves, shuffle):
    offsets = fixed(deltas, moves=moves, shuffle=shuffle).offsets
    steps = range(-moves, moves + 1)
    expected = {
        tuple(step * delta for step, delta in zip(one, deltas, strict=True))
        for one in itertools.product(steps, repeat=3)
    }
    assert offsets[0] == CENTRE
    assert len(offsets) == len(set(offsets))
    assert set(offsets) == expected


def test_fixed_moves_come_in_c_order_unless_shuffled():
    offsets = fixed(shuffle="none").offsets[1:]
    assert list(offsets) == sorted(offsets)
    assert len(offsets) == 26


def test_a_run_keeps_one_order_of_its_moves_and_another_seed_has_another():
    assert fixed(seed=7).offsets == fixed(seed=7).offsets
    assert len({fixed(seed=seed).offsets for seed in range(10)}) == 10
    assert fixed(seed=7).offsets != fixed(shuffle="none").offsets


@given(moves=st.integers(2, 3), seed=st.integers(0, 2**63 - 1))
@settings(max_examples=20, deadline=None)
def test_moves_shuffled_by_distance_come_after_every_move_on_the_way_to_them(moves, seed):
    offsets = fixed((4, 8, 8), moves=moves, shuffle="distance", seed=seed).offsets
    place = {offset: number for number, offset in enumerate(offsets)}
    for offset in offsets:
        for axis, step in enumerate((4, 8, 8)):
            if offset[axis]:
                nearer = list(offset)
                nearer[axis] -= step * (1 if offset[axis] > 0 else -1)
                assert place[tuple(nearer)] < place[offset]


def test_moves_equally_far_are_shuffled():
    first, second = (fixed(shuffle="distance", seed=seed).offsets for seed in (0, 1))
    assert first != second
    far = [[sum(map(abs, offset)) for offset in offsets] for offsets in (first, second)]
    assert far[0] == far[1] == sorted(far[0])


def test_fixed_moves_are_taken_where_the_seed_has_come_in_their_order():
    policy = fixed(shuffle="none")
    reached = {CENTRE, (-1, 0, 2), (0, 2, 0), (1, 2, 2)}
    walk, taken, judged = policy.begin(), [], []
    while moves := take(walk, seen=reached.__contains__, wanted=lambda offset: offset[0] >= 0):
        judged += moves
        assert not any(move.is_taken for move in moves[:-1])
        if not moves[-1].is_taken:
            break
        taken.append(moves[-1].offset)
        walk.arrive(moves[-1].offset, None)
    assert taken == [CENTRE, (-1, 0, 2), (0, 2, 0), (1, 2, 2)]
    assert [move.offset for move in judged] == list(policy.offsets)
    for move in judged:
        assert move.is_seen == move.is_taken == (move.offset in reached)
        assert move.is_wanted == (move.offset[0] >= 0)


def test_an_exhausted_walk_judges_nothing_more():
    walk = fixed(moves=0).begin()
    assert take(walk) == [Move(CENTRE, is_wanted=True, is_seen=True, is_taken=True)]
    assert walk.candidates() == []
    assert walk.choose([], []) == []


def test_distances_are_lengths_rounded_down():
    assert distance((4, 8, 0)) == 8
    assert distance((0, -8, 8)) == 11
    assert fixed((4, 8, 8)).distances == (0, 4, 8, 11, 12)
    assert following().distances == (0,)


# ---------------------------------------------------------------- fixed_window


@given(deltas=deltas_, moves=st.integers(1, 2), window=st.integers(0, 9), data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_windowed_move_asks_the_thin_shell_about_its_offset(deltas, moves, window, data):
    policy = WindowedMoves(deltas, moves=moves, shuffle="none", seed=0, window=window)
    offset = data.draw(st.sampled_from(policy.offsets[1:]))
    steps = max(abs(o) // d for o, d in zip(offset, deltas, strict=True) if d)
    half = [d * steps for d in deltas]
    expected = {
        voxel
        for voxel in itertools.product(*(range(-edge, edge + 1) for edge in half))
        if max(abs(v - o) for v, o in zip(voxel, offset, strict=True)) <= window
        and any(abs(v) == edge > 0 for v, edge in zip(voxel, half, strict=True))
    }
    found = [tuple(voxel) for voxel in policy.probes(offset).tolist()]
    assert len(found) == len(set(found))
    assert set(found) == expected
    assert offset in expected


def test_windowed_moves_begin_at_the_very_centre():
    policy = WindowedMoves(DELTAS, moves=1, shuffle="run", seed=3, window=8)
    assert policy.probes(CENTRE).tolist() == [[0, 0, 0]]
    assert policy.offsets == fixed(seed=3).offsets


def test_a_window_of_nothing_is_the_fixed_policy():
    policy = WindowedMoves(DELTAS, moves=2, shuffle="run", seed=3, window=0)
    assert all(policy.probes(offset).tolist() == [list(offset)] for offset in policy.offsets)


# ---------------------------------------------------------------- max_pred_moves


def test_following_moves_go_where_faces_are_highest_first_in_first_out():
    cuboids = {
        CENTRE: peaks((0, 2, 1), (0, 0, -2)),
        (0, 2, 1): peaks((1, 0, 0)),
        (0, 0, -2): peaks((0, -2, 0)),
    }
    assert visited(following(), cuboids) == [
        CENTRE,
        (0, 2, 1),
        (0, 0, -2),
        (1, 2, 1),
        (0, -2, -2),
    ]


def test_following_moves_visit_each_cell_of_the_grid_once():
    # (0, 2, 0) and (0, 1, -1) lie in one cell, whose edge is the step.
    cuboids = {CENTRE: peaks((0, 2, 0), (0, -1, -2)), (0, -1, -2): peaks((0, 1, 2), (0, 2, 1))}
    walk = visited(following(), cuboids)
    assert walk == [CENTRE, (0, 2, 0), (0, -1, -2)]


@pytest.mark.parametrize("moves", [0, 1, 2])
def test_following_moves_stay_within_reach_of_the_patch(moves):
    policy = following(moves=moves)
    straight = {(step, 0, 0): peaks((1, 0, 0)) for step in range(9)}
    assert visited(policy, straight) == [(step, 0, 0) for step in range(moves + 2)]
    assert policy.reach == tuple(step * (moves + 1) for step in DELTAS)


def test_a_place_that_the_truth_does_not_reach_is_judged_and_not_visited():
    walk = following().begin()
    take(walk)
    walk.arrive(CENTRE, peaks((0, 0, 2), (0, 2, 0)))
    moves = take(walk, wanted=lambda offset: offset == (0, 2, 0))
    assert moves == [
        Move((0, 0, 2), is_wanted=False, is_seen=True, is_taken=False),
        Move((0, 2, 0), is_wanted=True, is_seen=True, is_taken=True),
    ]


def test_a_refused_place_may_be_visited_through_another_voxel_of_its_cell():
    walk = following().begin()
    take(walk)
    walk.arrive(CENTRE, peaks((0, 2, 0), (0, 1, 2)))
    take(walk, wanted=lambda offset: offset == (0, 1, 2))
    walk.arrive((0, 1, 2), peaks((0, 0, -2)))
    assert take(walk)[-1] == Move((0, 1, 0), is_wanted=True, is_seen=True, is_taken=True)


def test_a_place_whose_seed_has_fallen_since_it_was_queued_is_missed():
    walk = following().begin()
    take(walk)
    walk.arrive(CENTRE, peaks((0, 0, 2)))
    moves = take(walk, seen=lambda offset: False)
    assert moves == [Move((0, 0, 2), is_wanted=True, is_seen=False, is_taken=False)]
    assert walk.candidates() == []


def test_the_centre_is_visited_whatever_the_truth_there():
    assert take(following().begin(), wanted=lambda offset: False)[-1].is_taken


# ---------------------------------------------------------------- all of them


POLICIES = {
    "fixed": lambda: fixed(moves=2),
    "fixed_window": lambda: WindowedMoves(DELTAS, moves=1, shuffle="run", seed=1, window=1),
    "max_pred_moves": lambda: following(moves=2),
}


@pytest.mark.parametrize("name", POLICIES)
@given(seed=st.integers(0, 2**32), steps=st.integers(0, 12))
@settings(max_examples=25, deadline=None)
def test_a_restored_walk_goes_on_as_the_first_one_would(name, seed, steps):
    policy = POLICIES[name]()
    generator = np.random.default_rng(seed)

    def go(walk, generator):
        offsets = walk.candidates()
        seen, wanted = generator.random((2, len(offsets))) < 0.8
        first = len(offsets) == 1 and offsets[0] == CENTRE
        moves = walk.choose((seen | first).tolist(), wanted.tolist())
        cuboid = generator.normal(2, 2, peaks().shape).astype(np.float32)
        if moves and moves[-1].is_taken:
            walk.arrive(moves[-1].offset, cuboid if policy.sees_cuboid else None)
        return moves

    walk = policy.begin()
    for _ in range(steps):
        go(walk, generator)
    again = policy.begin()
    again.restore(json.loads(json.dumps(walk.state())))
    assert again.state() == walk.state()
    later = int(generator.integers(2**32))
    first, second = (np.random.default_rng(later) for _ in range(2))
    for _ in range(30):
        assert go(walk, first) == go(again, second)


def test_walks_of_one_policy_do_not_know_of_each_other():
    for make in POLICIES.values():
        policy = make()
        one, other = policy.begin(), policy.begin()
        before = other.state()
        take(one)
        one.arrive(CENTRE, peaks((0, 0, 2)) if policy.sees_cuboid else None)
        assert other.state() == before


@pytest.mark.parametrize(
    ("options", "kind", "shape"),
    [
        ({"policy": "fixed", "moves": 0}, FixedMoves, (17, 33, 33)),
        ({"policy": "fixed"}, FixedMoves, (25, 49, 49)),
        ({"policy": "fixed_window", "moves": 2}, WindowedMoves, (33, 65, 65)),
        ({"policy": "max_pred_moves"}, FollowingMoves, (33, 65, 65)),
    ],
)
def test_a_patch_holds_the_field_of_view_and_all_moves(options, kind, shape):
    network = NetworkOptions()
    policy = make_policy(network, MovementOptions(**options), seed=0)
    assert type(policy) is kind
    assert patch_shape(network, policy) == shape


def test_the_seed_of_the_run_orders_the_moves():
    orders = {
        make_policy(NetworkOptions(), MovementOptions(shuffle=shuffle), seed=seed).offsets
        for shuffle in ("run", "distance", "none")
        for seed in (0, 1)
    }
    assert len(orders) == 5


@given(st.floats(1e-6, 1 - 1e-6))
def test_logits_are_those_of_their_probabilities(probability):
    assert 1 / (1 + np.exp(-logit(probability))) == pytest.approx(probability, rel=1e-9)
