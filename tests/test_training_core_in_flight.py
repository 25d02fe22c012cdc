"""Many examples at once: which slot shows what, where it goes, and how a run is resumed."""

from __future__ import annotations

import json
import math
import threading

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from array_volume import ArrayVolume
from floodem.errors import ModelError, StorageError
from floodem.training.configuration.options import MovementOptions, NetworkOptions
from floodem.training.examples.movement import logit
from training_cases import (
    TINY,
    blobs,
    centres,
    flight,
    smooth_image,
    training_data,
    training_volume,
)

SHAPE = (16, 26, 26)
MARGIN = (6, 11, 11)
FIXED = MovementOptions(shuffle="none")
FOLLOWING = MovementOptions(policy="max_pred_moves")
WINDOWED = MovementOptions(policy="fixed_window", window=1, shuffle="none")
POLICIES = {
    "fixed": MovementOptions(),
    "fixed, two moves deep": MovementOptions(moves=2, shuffle="distance"),
    "fixed_window": WINDOWED,
    "max_pred_moves": FOLLOWING,
}
LABELS = blobs(SHAPE)
EVERYWHERE = centres(LABELS, MARGIN)


def data(*, is_loaded=True, **options):
    volume = training_volume(smooth_image(SHAPE), LABELS, **options)
    if is_loaded:
        volume.load()
    return training_data(volume)


def numbered():
    """A volume whose grey levels number its voxels, so that a field of view says where it is."""
    image = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    volume = training_volume(image, LABELS, image_mean=0.0, image_stddev=1.0)
    volume.load()
    return training_data(volume)


def places(batch):
    """Where in the volume the fields of view of a batch are centred."""
    middle = tuple(size // 2 for size in batch.inputs_bczyx.shape[2:])
    numbers = batch.inputs_bczyx[(slice(None), 0, *middle)].long()
    return [tuple(int(i) for i in np.unravel_index(int(number), SHAPE)) for number in numbers]


def answer(batch):
    """What a network might say: here an object goes on, there it ends."""
    image_bczyx, seeds_bczyx = batch.inputs_bczyx[:, :1], batch.seeds_bczyx
    z, y, x = (size // 2 for size in image_bczyx.shape[2:])
    middle_bczyx = image_bczyx[:, :, z : z + 1, y : y + 1, x : x + 1]
    where = 6 * torch.sin(40 * middle_bczyx) + 4 * torch.sin(20 * image_bczyx)
    return 0.5 * seeds_bczyx + where - 2


def step(one, *, batches=1):
    """Take a step; returns what was seen."""
    seen = []
    for number in range(batches):
        batch = one.gather(number)
        seen.append(batch)
        one.scatter(number, answer(batch))
    return seen


def assert_same(one, other):
    for name in ("inputs_bczyx", "targets_bczyx", "weights_bczyx"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name


def recording(sampler):
    drawn = []

    def draw(number):
        drawn.append(number)
        return sampler(number)

    return draw, drawn


# ---------------------------------------------------------------- one example


def test_an_example_begins_at_its_centre_with_a_seed_there_and_pad_elsewhere():
    one, _ = flight(numbered(), EVERYWHERE, movement=FIXED)
    batch = one.gather(0)
    assert places(batch) == [EVERYWHERE(0).centre, EVERYWHERE(1).centre]
    expected = torch.full((2, 1, *TINY.fov), logit(0.05))
    expected[:, :, 2, 3, 3] = logit(0.95)
    torch.testing.assert_close(batch.seeds_bczyx, expected)


def test_logits_written_back_are_the_seeds_of_the_next_step():
    one, policy = flight(data(), EVERYWHERE, movement=FIXED)
    written = answer(one.gather(0))
    written[:, :, 2, 3, 3] = written[:, :, 1, 1, 1] = 5.0  # where it was, and its first move
    one.scatter(0, written)
    middle = tuple(slice(o, o + f) for o, f in zip(policy.reach, TINY.fov, strict=True))
    for slot in range(2):
        seeds = one.pictured(slot)["logits"]
        assert torch.equal(seeds[middle], written[slot, 0])
        seeds[middle] = logit(0.05)
        torch.testing.assert_close(seeds, torch.full_like(seeds, logit(0.05)))
    assert torch.equal(one.gather(0).seeds_bczyx[:, :, 1:, 2:, 2:], written[:, :, :-1, :-2, :-2])


def test_no_gradient_and_no_memory_is_shared_with_what_was_written():
    one, _ = flight(data(), EVERYWHERE, movement=FIXED)
    batch = one.gather(0)
    written = answer(batch).requires_grad_() * 1.0
    kept = batch.inputs_bczyx.clone()
    one.scatter(0, written)
    after = one.gather(0).inputs_bczyx.clone()
    with torch.no_grad():
        written.zero_()
        one.pictured()["logits"].zero_()
    assert torch.equal(batch.inputs_bczyx, kept)
    assert torch.equal(one.gather(0).inputs_bczyx, after)
    assert not after.requires_grad


def test_fixed_moves_show_the_field_of_view_at_each_offset_the_seed_has_reached():
    one, policy = flight(numbered(), EVERYWHERE, movement=FIXED, batch_size=1)
    centre = EVERYWHERE(0).centre
    for offset in policy.offsets:
        assert places(one.gather(0)) == [tuple(c + o for c, o in zip(centre, offset, strict=True))]
        one.scatter(0, torch.full((1, 1, *TINY.fov), 4.0))
    assert places(one.gather(0)) == [EVERYWHERE(1).centre]


@pytest.mark.parametrize(
    ("movement", "expected"),
    [
        (FIXED, []),
        (WINDOWED, [(0, 2, 0), (0, 2, 2)]),
        (FOLLOWING, [(0, 2, 1)]),
    ],
    ids=["fixed", "fixed_window", "max_pred_moves"],
)
def test_a_process_beside_the_step_is_missed_by_fixed_moves_and_followed_by_others(
    movement, expected
):
    # One bright voxel beside the middle of a face of the step, as of a thin process.
    labels = np.ones(SHAPE, np.uint32)
    image = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    volume = training_volume(image, labels, image_mean=0.0, image_stddev=1.0)
    sampler = centres(labels, MARGIN)
    one, _ = flight(training_data(volume), sampler, movement=movement, batch_size=1)
    centre = sampler(0).centre
    thin = torch.full((1, 1, *TINY.fov), -4.0)
    thin[0, 0, 2, 3 + 2, 3 + 1] = 4.0
    one.scatter(0, thin)
    found = []
    while (at := places(one.gather(0))[0]) != sampler(1).centre:
        found.append(tuple(a - c for a, c in zip(at, centre, strict=True)))
        one.scatter(0, one.gather(0).seeds_bczyx)
    assert [offset for offset in found if offset[0] == 0] == expected


def test_windowed_moves_look_no_further_than_their_window():
    one, policy = flight(
        data(), EVERYWHERE, movement=MovementOptions(policy="fixed_window", shuffle="none")
    )
    thin = torch.full((2, 1, *TINY.fov), -4.0)
    thin[:, :, 2, 3 + 2, 3 + 1] = 4.0
    one.scatter(0, thin)  # within 8 voxels of everything here
    assert not torch.equal(one.gather(0).inputs_bczyx[:, :, 2, 3, 3], thin[:, :, 2, 3, 3])
    assert len(policy.probes((1, 2, 2))) == 3 * 5 * 5 - 1 * 3 * 3


# ---------------------------------------------------------------- slots


@pytest.mark.parametrize("movement", POLICIES.values(), ids=POLICIES)
def test_slot_s_of_n_takes_the_draws_s_and_then_every_nth(movement):
    sampler, drawn = recording(EVERYWHERE)
    one, _ = flight(data(), sampler, movement=movement, batches=2, first=3, total=11)
    drawn.clear()
    one.restore(one.state())
    assert drawn == [3, 4, 5, 6]
    for _ in range(40):
        step(one, batches=2)
    for slot in (3, 4, 5, 6):
        own = [number for number in drawn if number % 11 == slot]
        assert own == list(range(slot, slot + 11 * len(own), 11))
        assert len(own) > 1
    assert {number % 11 for number in drawn} == {3, 4, 5, 6}


@pytest.mark.parametrize("movement", POLICIES.values(), ids=POLICIES)
def test_two_processes_of_half_the_batch_show_the_same_as_one(movement):
    whole, _ = flight(data(), EVERYWHERE, movement=movement, batch_size=4)
    halves = [
        flight(data(), EVERYWHERE, movement=movement, first=first, total=4)[0] for first in (0, 2)
    ]
    for _ in range(30):
        (one,) = step(whole)
        parts = [step(half)[0] for half in halves]
        for name in ("inputs_bczyx", "targets_bczyx", "weights_bczyx"):
            assert torch.equal(
                getattr(one, name), torch.cat([getattr(part, name) for part in parts])
            )
    counts = [one.metrics.take() for one in (whole, *halves)]
    assert counts[0] == {name: counts[1][name] + counts[2][name] for name in counts[0]}
    assert 4 <= counts[0]["examples"] <= 60, "of 120 steps some move and some end an example"


def test_two_batches_of_one_process_show_the_same_as_one_of_twice_the_size():
    whole, _ = flight(data(), EVERYWHERE, movement=FOLLOWING, batch_size=4)
    split, _ = flight(data(), EVERYWHERE, movement=FOLLOWING, batch_size=2, batches=2)
    for _ in range(30):
        (one,) = step(whole)
        parts = step(split, batches=2)
        assert torch.equal(one.inputs_bczyx, torch.cat([part.inputs_bczyx for part in parts]))


def test_a_batch_leaves_the_others_alone():
    one, _ = flight(data(), EVERYWHERE, movement=FIXED, batches=3)
    before = [one.gather(number) for number in range(3)]
    one.scatter(1, answer(before[1]))
    assert_same(one.gather(0), before[0])
    assert_same(one.gather(2), before[2])
    assert not torch.equal(one.gather(1).inputs_bczyx, before[1].inputs_bczyx)


# ---------------------------------------------------------------- resume


@pytest.mark.parametrize("movement", POLICIES.values(), ids=POLICIES)
def test_a_restored_run_goes_on_bit_for_bit_from_any_step(movement):
    first, _ = flight(data(), EVERYWHERE, movement=movement, batches=2)
    states, seen, counts = [], [], []
    for _ in range(45):
        states.append(save(first.state()))
        first.metrics.take()
        seen.append(step(first, batches=2))
        counts.append(first.metrics.take())
    second, _ = flight(data(), EVERYWHERE, movement=movement, batches=2)
    for begin in range(0, 41, 4):
        second.restore(load(states[begin]))
        second.metrics.take()
        for number in range(begin, begin + 5):
            for one, other in zip(seen[number], step(second, batches=2), strict=True):
                assert_same(one, other)
            assert second.metrics.take() == counts[number]
            assert number == 44 or save(second.state()) == states[number + 1]
    assert 4 <= sum(count["examples"] for count in counts) <= 90, "of 180 steps, some move"


def test_a_state_is_a_copy_that_later_steps_leave_alone():
    one, _ = flight(data(), EVERYWHERE, movement=FOLLOWING)
    state = one.state()
    kept = {name: tensor.clone() for name, tensor in state.items()}
    for _ in range(3):
        step(one)
    assert all(torch.equal(state[name], tensor) for name, tensor in kept.items())
    assert not torch.equal(one.state()["seeds"], kept["seeds"])


def changed(state, **changes):
    """The state with the first slot's values changed; they come as JSON in a tensor."""
    slots = json.loads(bytes(state["slots"].tolist()))
    slots[0].update(changes)
    text = bytearray(json.dumps(slots).encode())
    return {**state, "slots": torch.frombuffer(text, dtype=torch.uint8)}


MISFITS = {
    "no seeds": lambda state: {"slots": state["slots"]},
    "no slots": lambda state: {"seeds": state["seeds"]},
    "no JSON": lambda state: {**state, "slots": state["slots"][:-1]},
    "more slots": lambda state: {**state, "seeds": state["seeds"][:1]},
    "another patch": lambda state: {**state, "seeds": state["seeds"][:, 1:]},
    "another slot's example": lambda state: changed(state, number=1),
    "a negative example": lambda state: changed(state, number=-2),
    "a field of view elsewhere": lambda state: changed(state, offset=[0, 0, 99]),
    "a field of view in the plane": lambda state: changed(state, offset=[0, 0]),
    "another policy's walk": lambda state: changed(state, walk={"judged": 3}),
    "a move elsewhere": lambda state: changed(state, walk={"waiting": [[99, 0, 0]], "visited": []}),
}


@pytest.mark.parametrize("case", MISFITS)
def test_a_state_of_another_run_is_refused_and_changes_nothing(case):
    one, _ = flight(data(), EVERYWHERE, movement=FOLLOWING)
    step(one)
    before = one.gather(0)
    with pytest.raises(ModelError, match="do not fit this run"):
        one.restore(MISFITS[case](one.state()))
    assert_same(one.gather(0), before)
    other, _ = flight(data(), EVERYWHERE, movement=FOLLOWING)
    step(other)
    for _ in range(10):
        assert_same(step(one)[0], step(other)[0])


# ---------------------------------------------------------------- volumes read patch by patch


@pytest.mark.parametrize("movement", [FIXED, FOLLOWING], ids=["fixed", "max_pred_moves"])
def test_examples_read_ahead_from_files_are_those_of_volumes_in_memory(movement):
    resident, _ = flight(data(), EVERYWHERE, movement=movement)
    lazy, _ = flight(data(is_loaded=False), EVERYWHERE, movement=movement)
    again, _ = flight(data(is_loaded=False), EVERYWHERE, movement=movement)
    try:
        for number in range(60):
            if number == 30:
                again.restore(lazy.state())
            (seen,) = step(resident)
            assert_same(step(lazy)[0], seen)
            if number >= 30:
                assert_same(step(again)[0], seen)
    finally:
        lazy.close()
        again.close()


def test_each_example_is_read_once_and_one_of_each_slot_ahead():
    sampler, drawn = recording(EVERYWHERE)
    one, _ = flight(data(is_loaded=False), sampler, movement=MovementOptions(moves=0), total=5)
    for _ in range(5):
        step(one)
    one.close()  # which cancels what nobody waits for
    assert len(drawn) == len(set(drawn))
    assert set(drawn) >= {slot + 5 * number for slot in range(2) for number in range(6)}
    assert set(drawn) <= {slot + 5 * number for slot in range(2) for number in range(7)}


def test_reading_ahead_ends_when_the_run_is_closed():
    before = set(threading.enumerate())
    one, _ = flight(data(is_loaded=False), EVERYWHERE, movement=FIXED)
    readers = set(threading.enumerate()) - before
    assert readers
    one.close()
    assert not any(reader.is_alive() for reader in readers)


def test_volumes_in_memory_need_no_readers():
    before = set(threading.enumerate())
    one, _ = flight(data(), EVERYWHERE, movement=FIXED)
    assert set(threading.enumerate()) <= before
    one.close()


def test_a_file_that_can_no_longer_be_read_ends_the_run_in_its_own_words(monkeypatch):
    one, _ = flight(data(is_loaded=False), EVERYWHERE, movement=MovementOptions(moves=0))

    def refuse(self, box):
        raise StorageError("the disk is gone: mount it again")

    def go_on():
        for _ in range(3):
            step(one)

    monkeypatch.setattr(ArrayVolume, "_read", refuse)
    try:
        with pytest.raises(StorageError, match="the disk is gone"):
            go_on()
    finally:
        one.close()


# ---------------------------------------------------------------- counts


def test_moves_are_counted_by_what_seed_and_truth_say_there():
    one, policy = flight(data(), EVERYWHERE, movement=FIXED, batch_size=1)
    targets = one.pictured()["targets"]
    middle = np.array(targets.shape) // 2
    wanted = {o: bool(targets[tuple(middle + o)] >= 0.9) for o in policy.offsets}
    seen = torch.full((1, 1, *TINY.fov), -4.0)
    reached = [o for number, o in enumerate(policy.offsets) if number % 3 == 0]
    for offset in reached:
        seen[(0, 0, *(np.array(TINY.fov) // 2 + offset))] = 4.0
    one.scatter(0, seen)
    while places_left := one.state()["slots"].tolist():
        if json.loads(bytes(places_left))[0]["number"] == 1:
            break
        one.scatter(0, one.gather(0).seeds_bczyx)
    counts = one.metrics.take()
    reached = {*reached, (0, 0, 0)}
    # The next example has begun, which is one more correct move, to its centre.
    expected = {
        "correct": sum(wanted[o] and o in reached for o in policy.offsets) + 1,
        "missed": sum(wanted[o] and o not in reached for o in policy.offsets),
        "spurious": sum(not wanted[o] and o in reached for o in policy.offsets),
    }
    assert {kind: counts[f"moves_{kind}"] for kind in expected} == expected
    assert min(expected.values()) > 0
    assert counts["examples"] == 1


def test_voxels_of_finished_examples_are_counted_where_they_have_weight():
    mask = (smooth_image(SHAPE, seed=8) > 128).astype(np.uint8)
    volume = training_volume(smooth_image(SHAPE), LABELS, mask=mask)
    one, _ = flight(training_data(volume), EVERYWHERE, movement=MovementOptions(moves=0))
    expected = dict.fromkeys(
        ("true_positive", "false_positive", "false_negative", "true_negative"), 0
    )
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        batch = one.gather(0)
        logits = 4 * torch.randn(batch.seeds_bczyx.shape, generator=generator)
        filled = (logits >= logit(0.9)).numpy()
        inside = (batch.targets_bczyx > 0.5).numpy()
        counts = batch.weights_bczyx.numpy() > 0
        expected["true_positive"] += (filled & inside & counts).sum()
        expected["false_positive"] += (filled & ~inside & counts).sum()
        expected["false_negative"] += (~filled & inside & counts).sum()
        expected["true_negative"] += (~filled & ~inside & counts).sum()
        one.scatter(0, logits)
    found = one.metrics.take()
    assert {name: found[name] for name in expected} == expected
    assert min(expected.values()) > 0
    assert found["examples"] == 6
    assert one.metrics.take()["examples"] == 0


@pytest.mark.parametrize("name", POLICIES)
def test_all_voxels_of_a_finished_example_are_counted_wherever_its_moves_went(name):
    one, policy = flight(data(), EVERYWHERE, movement=POLICIES[name])
    patch = math.prod(f + 2 * far for f, far in zip(TINY.fov, policy.reach, strict=True))
    while not (found := one.metrics.take())["examples"]:
        step(one)
    counted = ("true_positive", "false_positive", "false_negative", "true_negative")
    assert sum(found[kind] for kind in counted) == patch * found["examples"]


def test_fields_of_view_of_double_precision_stay_so():
    one, _ = flight(
        training_data(training_volume(smooth_image(SHAPE), LABELS, dtype=torch.float64)),
        EVERYWHERE,
        movement=FOLLOWING,
        dtype=torch.float64,
    )
    step(one)
    assert one.gather(0).inputs_bczyx.dtype == torch.float64
    assert one.state()["seeds"].dtype == torch.float64


def test_a_step_of_zero_along_an_axis_never_moves_there():
    flat = NetworkOptions(arguments=TINY.arguments, fov=(1, 7, 7), deltas=(0, 2, 2))
    for movement in POLICIES.values():
        one, policy = flight(numbered(), EVERYWHERE, movement=movement, network=flat)
        assert policy.reach[0] == 0
        heights = {slot: EVERYWHERE(slot).centre[0] for slot in range(2)}
        for _ in range(8):
            batch = one.gather(0)
            assert [place[0] for place in places(batch)] == list(heights.values())
            one.scatter(0, torch.full_like(batch.seeds_bczyx, 4.0))
