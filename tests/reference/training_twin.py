"""Training as published, the slow and obvious way: numpy in float64, one example after another.

A convolution is a sum over its 27 taps, the gradients are written out by hand, and a walk
looks at one voxel at a time. In: cut examples and starting weights. Out: loss, logits and
seeds of every step, and the weights after it.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np


def logit(probability):
    return math.log(probability / (1 - probability))


# ---------------------------------------------------------------- network


def convolve(input_czyx, weights, bias):
    """Sum over the taps; `weights` is (out, in, z, y, x), voxels outside count as 0."""
    kernel = weights.shape[2:]
    margin = [size // 2 for size in kernel]
    shape = input_czyx.shape[1:]
    padded = np.pad(input_czyx, [(0, 0)] + [(m, m) for m in margin])
    output = np.zeros((weights.shape[0], *shape))
    for tap in np.ndindex(*kernel):
        window = tuple(slice(t, t + size) for t, size in zip(tap, shape, strict=True))
        output += np.einsum("oi,izyx->ozyx", weights[(..., *tap)], padded[(..., *window)])
    return output + bias[:, None, None, None]


def convolve_backward(gradient_ozyx, input_czyx, weights):
    """Return the gradients of a convolution's input, weights and bias."""
    kernel = weights.shape[2:]
    margin = [size // 2 for size in kernel]
    shape = input_czyx.shape[1:]
    padded = np.pad(input_czyx, [(0, 0)] + [(m, m) for m in margin])
    of_padded = np.zeros_like(padded)
    of_weights = np.zeros_like(weights)
    for tap in np.ndindex(*kernel):
        window = tuple(slice(t, t + size) for t, size in zip(tap, shape, strict=True))
        of_weights[(..., *tap)] = np.einsum("ozyx,izyx->oi", gradient_ozyx, padded[(..., *window)])
        of_padded[(..., *window)] += np.einsum("oi,ozyx->izyx", weights[(..., *tap)], gradient_ozyx)
    inner = tuple(slice(m, m + size) for m, size in zip(margin, shape, strict=True))
    return of_padded[(..., *inner)], of_weights, gradient_ozyx.sum((1, 2, 3))


def network(parameters, input_czyx):
    """Return the update of the logits, and what the way back needs.

    `parameters` is a list of (weights, bias): the first two convolutions, two for each
    residual module, and the last, of one voxel.
    """
    kept = []  # (input of the convolution)

    def conv(number, into):
        kept.append(into)
        return convolve(into, *parameters[number])

    state = conv(1, np.maximum(conv(0, input_czyx), 0))
    for first in range(2, len(parameters) - 1, 2):
        inner = np.maximum(conv(first, np.maximum(state, 0)), 0)
        state = state + conv(first + 1, inner)
    return conv(len(parameters) - 1, np.maximum(state, 0)), kept


def network_backward(parameters, kept, gradient):
    """Return the gradients of all weights and biases, in the order of the parameters.

    What went into a convolution came out of a ReLU (but for the very first), so it is
    positive exactly where the ReLU lets gradients through.
    """
    found = [None] * len(parameters)

    def back(number, out):
        into, *found[number] = convolve_backward(out, kept[number], parameters[number][0])
        return into

    last = len(parameters) - 1
    state = back(last, gradient) * (kept[last] > 0)
    for first in range(last - 2, 1, -2):
        inner = back(first + 1, state) * (kept[first + 1] > 0)
        state = state + back(first, inner) * (kept[first] > 0)
    back(0, back(1, state) * (kept[1] > 0))
    return found


# ---------------------------------------------------------------- examples


@dataclass
class Example:
    """A patch around a centre: normalised image, target and weight of every voxel."""

    image: np.ndarray
    target: np.ndarray
    weight: np.ndarray


def cut_example(image, labels, center, *, shape, mean, stddev, mask=None):
    """Cut a patch of odd shape; the object is the one at its centre, the mask is the weight."""
    window = tuple(slice(c - s // 2, c + s // 2 + 1) for c, s in zip(center, shape, strict=True))
    wanted = labels[window] == labels[tuple(center)]
    return Example(
        image=(image[window].astype(float) - mean) / stddev,
        target=np.where(wanted, 0.95, 0.05),
        weight=np.ones(shape) if mask is None else (mask[window] != 0).astype(float),
    )


def fresh_seed(shape, *, pad=0.05, init=0.95):
    seed = np.full(shape, logit(pad))
    seed[tuple(s // 2 for s in shape)] = logit(init)
    return seed


# ---------------------------------------------------------------- walks


def at(array, offset):
    """The voxel at an offset from the centre."""
    return float(array[tuple(s // 2 + o for s, o in zip(array.shape, offset, strict=True))])


def field(array, offset, fov):
    """The field of view at an offset from the centre (a view)."""
    start = [s // 2 + o - f // 2 for s, o, f in zip(array.shape, offset, fov, strict=True)]
    assert min(start) >= 0
    return array[tuple(slice(a, a + f) for a, f in zip(start, fov, strict=True))]


def walk_fixed(example, seed, *, offsets, threshold, **_):
    """Centre first, then each offset whose voxel the seed has reached by then."""
    yield (0, 0, 0)
    for offset in offsets:
        if at(seed, offset) >= logit(threshold):
            yield offset


def walk_fixed_window(example, seed, *, offsets, threshold, deltas, window, **_):
    """The same, when any voxel of the shell near that offset has been reached."""
    yield (0, 0, 0)
    for offset in offsets:
        near = itertools.product(*(range(o - window, o + window + 1) for o in offset))
        shell = [
            voxel
            for voxel in near
            if all(abs(v) <= d for v, d in zip(voxel, deltas, strict=True))
            and any(abs(v) == d > 0 for v, d in zip(voxel, deltas, strict=True))
        ]
        if any(at(seed, voxel) >= logit(threshold) for voxel in shell):
            yield offset


def face_maxima(seed, center, deltas, threshold):
    """Where to go next from `center`, strongest first, larger offset first where equal."""
    found = set()
    for axis in range(3):
        if deltas[axis] == 0:
            continue
        for side in (-deltas[axis], deltas[axis]):
            ranges = [range(-d, d + 1) for d in deltas]
            ranges[axis] = [side]
            face = [
                (at(seed, tuple(c + o for c, o in zip(center, offset, strict=True))), offset)
                for offset in itertools.product(*ranges)
            ]
            strongest = max(value for value, _ in face)
            first = next(entry for entry in face if entry[0] == strongest)
            if strongest >= logit(threshold):
                found.add(first)
    return [
        tuple(c + o for c, o in zip(center, offset, strict=True))
        for _, offset in sorted(found, reverse=True)
    ]


def walk_max_pred(example, seed, *, threshold, deltas, fov, **_):
    """The policy of inference, kept to the object and to the patch."""
    queue = [(0, 0, 0)]
    visited = set()
    while queue:
        position = queue.pop(0)
        cell = tuple((p + d // 2) // max(d, 1) for p, d in zip(position, deltas, strict=True))
        if cell in visited:
            continue
        if at(seed, position) < logit(threshold):
            continue
        reach = [abs(p) + f // 2 for p, f in zip(position, fov, strict=True)]
        if any(r > s // 2 for r, s in zip(reach, seed.shape, strict=True)):
            continue
        if position != (0, 0, 0) and at(example.target, position) < threshold:
            continue
        visited.add(cell)
        yield position
        queue += face_maxima(seed, position, deltas, threshold)


WALKS = {
    "fixed": walk_fixed,
    "fixed_window": walk_fixed_window,
    "max_pred_moves": walk_max_pred,
}


class Slot:
    """One place of the batch: an example being walked, then the next one given."""

    def __init__(self, examples, *, policy, **arguments):
        self.examples = iter(examples)
        self.policy = policy
        self.arguments = arguments
        self.positions = iter(())
        self.started = 0
        self.moves = 0

    def move(self):
        """Go to the next position, of a new example when this one is exhausted."""
        self.position = next(self.positions, None)
        if self.position is None:
            self.example = next(self.examples)
            self.seed = fresh_seed(self.example.image.shape)
            self.positions = WALKS[self.policy](self.example, self.seed, **self.arguments)
            self.position = next(self.positions)
            self.started += 1
        else:
            self.moves += 1


# ---------------------------------------------------------------- steps


def cross_entropy(logits, target):
    """Sigmoid cross entropy of every voxel, and its derivative by the logit."""
    # -log(p) and -log(1 - p) where p = 1 / (1 + exp(-logit)), without overflow
    loss = target * np.logaddexp(0, -logits) + (1 - target) * np.logaddexp(0, logits)
    return loss, np.exp(-np.logaddexp(0, -logits)) - target


@dataclass
class Step:
    """What one optimiser step saw and did, one entry for each slot in the lists."""

    loss: float
    positions: list
    seeds: list  # of whole patches, before the step
    inputs: list  # image and seed of the fields of view
    logits: list  # written back


class Training:
    """Slots that share a network; each `step` moves every slot by one field of view."""

    def __init__(self, parameters, slots, *, fov, learning_rate, momentum=0.0, clip=0.7):
        self.parameters = [[np.array(part, float) for part in layer] for layer in parameters]
        self.velocity = [[np.zeros_like(part) for part in layer] for layer in self.parameters]
        self.slots = slots
        self.fov = fov
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.clip = clip
        self.clipped = 0  # elements of gradients so far

    def step(self):
        total = [[np.zeros_like(part) for part in layer] for layer in self.parameters]
        step = Step(loss=0.0, positions=[], seeds=[], inputs=[], logits=[])
        for slot in self.slots:
            slot.move()
            seed = field(slot.seed, slot.position, self.fov)
            image = field(slot.example.image, slot.position, self.fov)
            target = field(slot.example.target, slot.position, self.fov)
            weight = field(slot.example.weight, slot.position, self.fov)
            step.positions.append(slot.position)
            step.seeds.append(slot.seed.copy())
            step.inputs.append(np.stack([image, seed]))
            update, kept = network(self.parameters, step.inputs[-1])
            step.logits.append(seed + update[0])
            entropy, derivative = cross_entropy(step.logits[-1], target)
            # The loss of the step is the mean over all its voxels: those of every slot.
            step.loss += (entropy * weight).mean() / len(self.slots)
            out = derivative * weight / (derivative.size * len(self.slots))
            gradients = network_backward(self.parameters, kept, out[None])
            for layer, gradient in zip(total, gradients, strict=True):
                for part, g in zip(layer, gradient, strict=True):
                    np.add(part, g, out=part)
            seed[...] = step.logits[-1]
        self.update(total)
        return step

    def update(self, gradients):
        """Clip each element, then descend."""
        for layer, velocity, gradient in zip(
            self.parameters, self.velocity, gradients, strict=True
        ):
            for part, v, g in zip(layer, velocity, gradient, strict=True):
                self.clipped += int((abs(g) > self.clip).sum())
                v[...] = self.momentum * v + np.clip(g, -self.clip, self.clip)
                part[...] = part - self.learning_rate * v
