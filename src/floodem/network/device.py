"""Which device and number format to compute with: names in, torch's objects out.

The command line hands over what the user wrote; `choose_device` and
`choose_dtype` answer with something that works here or refuse with a sentence.
Nothing is printed: a `ChosenDevice` carries its notice to whoever may print it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from floodem.cards import Card, advise, find_card, unused_card_notice
from floodem.errors import DeviceError, OptionError

if TYPE_CHECKING:
    import torch

DTYPE_NAMES = ("float32", "bfloat16", "float16")
"""Number formats a network may compute in, the exact one first."""

_DEVICE_NAME = re.compile(r"cuda:(\d+)")
_BINARY = re.compile(r"sm_(\d+)(\d)[af]?")
_FORWARD = re.compile(r"compute_(\d+)(\d)[af]?")


@dataclass(frozen=True, slots=True)
class ChosenDevice:
    """A device that is there, and what its user might want to know.

    Attributes
    ----------
    device
        ``cpu`` or ``cuda:N``.
    notice
        One sentence about a card that lies idle, or None.
    """

    device: torch.device
    notice: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cuda:
    """What torch says about CUDA on this machine.

    Attributes
    ----------
    version
        torch's own version.
    capabilities
        Compute capability of each card that torch sees, in its order.
    architectures
        What torch was built for, as ``torch.cuda.get_arch_list`` names it.
    """

    version: str
    capabilities: tuple[tuple[int, int], ...]
    architectures: tuple[str, ...]


def choose_device(
    name: str = "auto",
    *,
    cuda: Cuda | None = None,
    card: Callable[[], Card | None] = find_card,
) -> ChosenDevice:
    """Return the device of this name, or with ``auto`` the best one there is.

    Parameters
    ----------
    name
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``. ``auto`` is the first card that
        this torch can compute on, otherwise the CPU; a card that lies idle is
        mentioned in the notice, with the line that installs the torch for it.
    cuda, card
        What torch sees and which card the system has; asked when not given.

    Raises
    ------
    OptionError
        When the name is none of these.
    DeviceError
        When the card asked for is not there or this torch cannot use it.
    """
    import torch

    numbered = _DEVICE_NAME.fullmatch(name)
    if name not in {"auto", "cpu", "cuda"} and numbered is None:
        raise OptionError(f"no device is called {name!r}: choose auto, cpu, cuda or cuda:N")
    if name == "cpu":
        return ChosenDevice(torch.device("cpu"))
    cuda = ask_torch() if cuda is None else cuda
    usable = [
        number
        for number, capability in enumerate(cuda.capabilities)
        if runs_on(cuda.architectures, capability=capability)
    ]
    if numbered is None and usable:
        return ChosenDevice(torch.device("cuda", usable[0]))
    if numbered is not None and int(numbered[1]) in usable:
        return ChosenDevice(torch.device("cuda", int(numbered[1])))
    if numbered is not None and usable:
        there = ", ".join(f"cuda:{number}" for number in usable)
        raise DeviceError(f"there is no {name} that torch can use: choose {there} or cpu")
    idle = card()
    notice = unused_card_notice(idle, advise(idle), torch_version=cuda.version) if idle else None
    if name == "auto":
        return ChosenDevice(torch.device("cpu"), notice)
    if notice is None:
        raise DeviceError(
            f"--device {name} asks for an NVIDIA card and this machine shows none: use --device cpu"
        )
    raise DeviceError(f"--device {name} cannot be used: {notice}")


def ask_torch() -> Cuda:
    """Return what torch says about CUDA here; starts CUDA only where there is a card."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return Cuda(
        version=str(torch.__version__),
        capabilities=tuple(torch.cuda.get_device_capability(number) for number in range(count)),
        architectures=tuple(torch.cuda.get_arch_list()) if count else (),
    )


def runs_on(architectures: Sequence[str], *, capability: tuple[int, int]) -> bool:
    """Tell whether code built for these architectures runs on a card of this capability.

    A binary (``sm_86``) runs on its own major version from its minor version on;
    an intermediate form (``compute_90``) runs on everything newer.
    """
    for name in architectures:
        binary, forward = _BINARY.fullmatch(name), _FORWARD.fullmatch(name)
        if binary:
            major, minor = int(binary[1]), int(binary[2])
            if major == capability[0] and minor <= capability[1]:
                return True
        elif forward and (int(forward[1]), int(forward[2])) <= capability:
            return True
    return False


def choose_dtype(
    name: str,
    device: torch.device,
    *,
    computes: Callable[[torch.dtype, torch.device], bool] | None = None,
) -> torch.dtype:
    """Return the number format of this name, once the device has shown that it computes in it.

    Parameters
    ----------
    name
        ``auto``, ``float32``, ``bfloat16`` or ``float16``. ``auto`` is float32, the
        only format whose results equal the reference voxel by voxel.
    device
        Where the network will run.
    computes
        Tells whether a device computes in a format; by default a small convolution is tried.

    Raises
    ------
    OptionError
        When the name is none of these.
    DeviceError
        When the device cannot compute in this format; the message names those it can.
    """
    import torch

    if name not in {"auto", *DTYPE_NAMES}:
        raise OptionError(
            f"no number format is called {name!r}: choose auto, {', '.join(DTYPE_NAMES)}"
        )
    formats = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    dtype = formats["float32" if name == "auto" else name]
    computes = _computes if computes is None else computes
    if dtype is torch.float32 or computes(dtype, device):
        return dtype
    able = ["float32", *(other for other in DTYPE_NAMES[1:] if computes(formats[other], device))]
    raise DeviceError(f"{device} cannot compute in {name}: choose {' or '.join(able)}")


def _computes(dtype: torch.dtype, device: torch.device) -> bool:
    import torch

    if device.type == "cuda" and dtype is torch.bfloat16:
        # Cards before compute capability 8.0 only imitate it, slower than float32.
        with torch.cuda.device(device):
            if not torch.cuda.is_bf16_supported(including_emulation=False):
                return False
    try:
        with torch.inference_mode():
            image_bczyx = torch.ones((1, 2, 4, 4, 4), dtype=dtype, device=device)
            kernel = torch.ones((2, 2, 3, 3, 3), dtype=dtype, device=device)
            centre = torch.nn.functional.conv3d(image_bczyx, kernel, padding=1)[0, 0, 1, 1, 1]
            return float(centre) == float(kernel[0].numel())
    except RuntimeError:  # torch's answer to a format that a device lacks
        return False
