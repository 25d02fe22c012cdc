"""A network, losses and a sampler as another package would have them."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from floodem.training.coordinates.samplers import Draw


class OneLayer(nn.Module):
    def __init__(self, *, scale=1.0):
        super().__init__()
        self.layer = nn.Conv3d(2, 1, 3, padding=1)
        self.scale = scale

    def forward(self, inputs_bczyx):
        return self.layer(inputs_bczyx) * self.scale


class TwoChannels(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv3d(2, 2, 3, padding=1)

    def forward(self, inputs_bczyx):
        return self.layer(inputs_bczyx)


class SpoiledLoss:
    """Cross entropy, but for some calls, counted from 1, whose loss is something else."""

    def __init__(self, calls, *, factor):
        self.calls, self.factor = calls, factor
        self.count = 0

    def __call__(self, logits, targets, weights):
        self.count += 1
        loss = functional.binary_cross_entropy_with_logits(logits, targets, weight=weights)
        return loss * self.factor if self.count in self.calls else loss


def mean_square(logits, targets, weights):
    return (weights * (torch.sigmoid(logits) - targets) ** 2).mean()


nan_from_the_fifth = SpoiledLoss(range(5, 10**6), factor=math.nan)
overflowing_third = SpoiledLoss([3], factor=1e30)


class HoledGradient(torch.autograd.Function):
    """A finite value whose gradient is no number."""

    @staticmethod
    def forward(ctx, value):
        return value.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * math.nan


class HoledLoss(SpoiledLoss):
    def __call__(self, logits, targets, weights):
        self.count += 1
        loss = functional.binary_cross_entropy_with_logits(logits, targets, weight=weights)
        return HoledGradient.apply(loss) if self.count in self.calls else loss


third_gradient_is_nan = HoledLoss([3], factor=1.0)

not_callable = 5


def one_place(index, *, seed, weights, background):
    """A sampler that always gives the same centre."""

    def draw(number):
        return Draw(volume=index.volume_names[0], centre=(12, 16, 16))

    return draw


class MiddleSeed:
    """A seed policy that proposes the middle of the block."""

    def __call__(self, context, /):
        return np.array([[size // 2 for size in context.shape]])
