"""How weights follow the loss: options in, an optimiser, its learning rate and clipping out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from floodem.training.configuration.options import OptimiserOptions

ADAGRAD_START = 0.1
"""Initial accumulator of TensorFlow's Adagrad, which the reference uses (torch's default is 0)."""


_WEIGHTED = (
    *(nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)


def make_optimiser(
    parameters: Iterable[nn.Parameter], options: OptimiserOptions
) -> torch.optim.Optimizer:
    """Return the optimiser of this name; its learning rate is set before each step."""
    rate, betas = options.learning_rate, (options.beta1, options.beta2)
    match options.name:
        case "sgd":
            return torch.optim.SGD(parameters, lr=rate)
        case "momentum":
            return torch.optim.SGD(parameters, lr=rate, momentum=options.momentum)
        case "adam":
            return torch.optim.Adam(parameters, lr=rate, betas=betas, eps=options.epsilon)
        case "adamw":
            return torch.optim.AdamW(
                parameters,
                lr=rate,
                betas=betas,
                eps=options.epsilon,
                weight_decay=options.weight_decay,
            )
        case "rmsprop":
            return torch.optim.RMSprop(
                parameters,
                lr=rate,
                alpha=options.rmsprop_decay,
                eps=options.epsilon,
                momentum=options.momentum,
            )
        case "adagrad":
            return torch.optim.Adagrad(
                parameters, lr=rate, eps=options.epsilon, initial_accumulator_value=ADAGRAD_START
            )
    raise AssertionError(options.name)


def learning_rate(options: OptimiserOptions, *, step: int, max_steps: int) -> float:
    """Return the learning rate of one step, counted from 0.

    It rises in a straight line over ``warmup_steps``, then falls to
    ``final_fraction`` of itself at ``decay_steps`` and stays there.
    """
    if step < options.warmup_steps:
        return options.learning_rate * (step + 1) / options.warmup_steps
    end = max_steps if options.decay_steps is None else options.decay_steps
    length = max(end - options.warmup_steps, 1)
    part = min((step - options.warmup_steps) / length, 1.0)
    final = options.final_fraction
    match options.schedule:
        case "cosine":
            fraction = final + (1 - final) * (1 + math.cos(math.pi * part)) / 2
        case "linear":
            fraction = 1 - (1 - final) * part
        case "exponential":
            fraction = final**part
        case _:
            fraction = 1.0
    return options.learning_rate * fraction


def clip_gradients(parameters: Sequence[nn.Parameter], options: OptimiserOptions) -> Tensor:
    """Clip the gradients of parameters in place, and return their norm before that.

    ``element`` keeps each element within +/- ``clip_value``, as the reference does;
    ``norm`` scales all of them alike where their norm is larger. A norm that is
    not finite stays visible in what is returned.
    """
    norm = nn.utils.get_total_norm([one.grad for one in parameters if one.grad is not None])
    if options.clip == "element":
        nn.utils.clip_grad_value_(parameters, options.clip_value)
    elif options.clip == "norm":
        nn.utils.clip_grads_with_norm_(parameters, options.clip_value, norm)
    return norm


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Let the next step of the optimiser be of this size."""
    for group in optimiser.param_groups:
        group["lr"] = rate


def initialise(network: nn.Module, *, seed: int) -> None:
    """Draw the weights of every convolution and linear layer anew, and set their biases to 0.

    Weights are Xavier uniform, as in the reference (Glorot and Bengio 2010,
    AISTATS 9:249). Other layers keep what they were built with.
    """
    random = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, _WEIGHTED):
            nn.init.xavier_uniform_(module.weight, generator=random)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
