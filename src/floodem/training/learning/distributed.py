"""Several processes that train one network: what torchrun says comes in, a `World` goes out.

Every process has its own examples and the same weights. Gradients are added up in
one message for each step, behind which a few numbers travel that all have to
agree on (the loss, and whether to stop). One network has a few megabytes, so
there is nothing to gain from sending gradients while others are computed.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed
from torch import Tensor

from floodem.errors import FloodemError, OptionError, StoppedError

_PATIENCE = dt.timedelta(days=1)
"""How long the others wait while the first process reads all data for its digests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The processes of a run.

    Attributes
    ----------
    rank, size
        Number of this process, and how many there are.
    local_rank
        Number of this process on its machine: which card it takes.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def writes(self) -> bool:
        """Whether this process writes files and speaks; only one does."""
        return self.rank == 0

    def add(self, vector: Tensor) -> Tensor:
        """Replace a tensor by the sum of all processes' tensors."""
        if self.size > 1:
            with _reporting_loss():
                torch.distributed.all_reduce(vector)
        return vector

    def mean_(self, tensors: Sequence[Tensor], numbers: Sequence[float]) -> list[float]:
        """Replace tensors by their means over all processes, in one message.

        Parameters
        ----------
        numbers
            Travel along; their sums are returned.
        """
        if self.size == 1:
            return list(numbers)
        first = tensors[0]
        extra = torch.tensor(numbers, dtype=first.dtype, device=first.device)
        message = torch.cat([*(tensor.flatten() for tensor in tensors), extra])
        self.add(message)
        parts = torch.split(message, [*(tensor.numel() for tensor in tensors), len(numbers)])
        for tensor, part in zip(tensors, parts[:-1], strict=True):
            tensor.copy_(part.view(tensor.shape)).div_(self.size)
        return [float(number) for number in parts[-1].tolist()]

    def gather(self, data: bytes) -> list[bytes]:
        """Return the bytes of all processes, in the order of their ranks; to all of them."""
        if self.size == 1:
            return [data]
        length = torch.tensor([len(data)])
        lengths = [torch.zeros_like(length) for _ in range(self.size)]
        with _reporting_loss():
            torch.distributed.all_gather(lengths, length)
            padded = torch.zeros(max(int(one) for one in lengths), dtype=torch.uint8)
            padded[: len(data)] = torch.from_numpy(np.frombuffer(data, np.uint8).copy())
            gathered = [torch.zeros_like(padded) for _ in range(self.size)]
            torch.distributed.all_gather(gathered, padded)
        return [
            one[: int(size)].numpy().tobytes() for one, size in zip(gathered, lengths, strict=True)
        ]

    def share(self, data: bytes) -> bytes:
        """Return the first process's bytes to all."""
        return self.gather(data if self.writes else b"\0")[0]

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Let all processes leave the body, or none: who meets an error tells the others.

        Raises
        ------
        StoppedError
            In processes where nothing went wrong, while another has its error.
        """
        if self.size == 1:
            yield
            return
        try:
            yield
        except FloodemError:
            self.add(torch.ones(1))
            raise
        if float(self.add(torch.zeros(1))) > 0:
            raise StoppedError("another process of this run was refused; see what it says")


@contextlib.contextmanager
def _reporting_loss() -> Iterator[None]:
    """Say in a sentence that another process has gone, which torch says in a traceback."""
    try:
        yield
    except RuntimeError as error:
        raise StoppedError("another process of this run has gone; see what it says") from error


def is_among_several() -> bool:
    """Tell whether torchrun started this process as one of several."""
    return _number("WORLD_SIZE", 1) > 1


def is_first() -> bool:
    """Tell whether this process is the one that speaks."""
    return _number("RANK", 0) == 0


@contextlib.contextmanager
def joined(*, device_type: str) -> Iterator[World]:
    """Join the processes that torchrun started, while the body runs; or be alone.

    Parameters
    ----------
    device_type
        ``cuda`` or ``cpu``: how gradients travel (nccl or gloo).

    Raises
    ------
    OptionError
        When the environment names several processes and cannot be understood.
    """
    if not is_among_several():
        yield World()
        return
    world = World(
        rank=_number("RANK"), size=_number("WORLD_SIZE"), local_rank=_number("LOCAL_RANK")
    )
    if device_type == "cuda":
        torch.cuda.set_device(world.local_rank)
    torch.distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if device_type == "cuda" else "gloo", timeout=_PATIENCE
    )
    try:
        yield world
    finally:
        torch.distributed.destroy_process_group()


def _number(name: str, default: int | None = None) -> int:
    text = os.environ.get(name)
    if text is None and default is not None:
        return default
    try:
        return int(text or "")
    except ValueError:
        raise OptionError(
            f"environment variable {name} is {text!r}, not a number: start several processes with "
            "torchrun"
        ) from None
