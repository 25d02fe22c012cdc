"""How long one network call takes, and how far that is from the arithmetic's floor."""

from __future__ import annotations

import torch
from timing import interleaved
from torch import nn

from floodem.geometry import Zyx
from floodem.network.conv_stack import ConvStack

SHAPES: dict[str, tuple[int, Zyx]] = {
    "fib25, 12 modules, 33x33x33": (12, (33, 33, 33)),
    "snemi3d, 9 modules, 17x33x33": (9, (17, 33, 33)),
}
FEATURES = 32
TAPS = 27
ROUNDS = 9
MATRIX_SIZE = 2048


def flops(depth: int, fov: Zyx) -> int:
    """Multiplications and additions of one call, zero padding included."""
    voxels = fov[0] * fov[1] * fov[2]
    weights = TAPS * (2 * FEATURES + (2 * depth - 1) * FEATURES**2) + FEATURES
    return 2 * voxels * weights


def plain_torch(network: nn.Module) -> nn.Module:
    """Put torch's own choice of convolution in place of ours."""
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.Conv3d):
                plain = nn.Conv3d(
                    child.in_channels, child.out_channels, child.kernel_size, padding=child.padding
                )
                plain.load_state_dict(child.state_dict())
                setattr(module, name, plain)
    return network


def run() -> None:
    """Print milliseconds a call, TFLOP/s, and the share of the matrix product's peak."""
    torch.manual_seed(0)
    peaks = {dtype: matrix_peak(dtype) for dtype in (torch.float32, torch.bfloat16)}
    print(f"{'network':30} {'type':9} {'ms':>7} {'TFLOP/s':>8} {'of peak':>8} {'plain ms':>9}")
    for name, (depth, fov) in SHAPES.items():
        for dtype, peak in peaks.items():
            inputs = torch.randn(1, 2, *fov).to(dtype).to(memory_format=torch.channels_last_3d)

            def ready(network: nn.Module, dtype: torch.dtype = dtype) -> nn.Module:
                return network.eval().to(dtype).to(memory_format=torch.channels_last_3d)

            ours = ready(ConvStack(depth=depth, features=FEATURES))
            plain = ready(plain_torch(ConvStack(depth=depth, features=FEATURES)))
            with torch.inference_mode():
                seconds = interleaved(
                    {
                        "ours": lambda ours=ours, inputs=inputs: ours(inputs),
                        "plain": lambda plain=plain, inputs=inputs: plain(inputs),
                    },
                    rounds=ROUNDS,
                )
            rate = flops(depth, fov) / seconds["ours"]
            print(
                f"{name:30} {str(dtype)[6:]:9} {seconds['ours'] * 1e3:7.1f} {rate / 1e12:8.2f} "
                f"{rate / peak:8.0%} {seconds['plain'] * 1e3:9.1f}"
            )


def matrix_peak(dtype: torch.dtype) -> float:
    """Return FLOP/s of a large square matrix product, the floor to hold calls against."""
    a = torch.randn(MATRIX_SIZE, MATRIX_SIZE).to(dtype)
    seconds = interleaved({"product": lambda: a @ a}, rounds=ROUNDS)["product"]
    peak = 2 * MATRIX_SIZE**3 / seconds
    print(f"matrix product of {MATRIX_SIZE} in {str(dtype)[6:]}: {peak / 1e12:.2f} TFLOP/s")
    return peak
