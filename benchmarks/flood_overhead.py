"""What a step of a flood costs beside the network: gather, update rule, moves, bookkeeping."""

from __future__ import annotations

import itertools

import torch
from network_speed import FEATURES, SHAPES
from timing import interleaved

from bright import MEAN, STDDEV, bright_model, bright_tubes
from floodem.flooding.block import BlockFlooder
from floodem.flooding.canvas import Canvas
from floodem.flooding.options import FloodOptions
from floodem.flooding.predictor import Predictor
from floodem.flooding.seeds import SeedContext, seed_positions
from floodem.geometry import Zyx
from floodem.volumes.grey.intensity import normalise

ROUNDS = 15
STEPS = 8
DELTAS: dict[Zyx, Zyx] = {(33, 33, 33): (8, 8, 8), (17, 33, 33): (4, 8, 8)}
BLOCK: Zyx = (60, 120, 400)


def run() -> None:
    """Print milliseconds of a step and of the bare forward pass, and what is between them."""
    print(f"{'network':30} {'type':9} {'step ms':>8} {'bare ms':>8} {'overhead':>9}")
    for (name, (depth, fov)), dtype in itertools.product(
        SHAPES.items(), (torch.float32, torch.bfloat16)
    ):
        model = bright_model(fov=fov, deltas=DELTAS[fov], depth=depth, features=FEATURES)
        flooder = new_flooder(
            Predictor(model, device=torch.device("cpu"), dtype=dtype), DELTAS[fov]
        )
        network = model.network.to(dtype).to(memory_format=torch.channels_last_3d)
        inputs = torch.randn(1, 2, *fov).to(dtype).to(memory_format=torch.channels_last_3d)

        def bare(network: torch.nn.Module = network, inputs: torch.Tensor = inputs) -> None:
            with torch.inference_mode():
                for _ in range(STEPS):
                    network(inputs)

        def steps(flooder: BlockFlooder = flooder) -> None:
            end = flooder.counters["network_calls"] + STEPS
            while flooder.counters["network_calls"] < end:
                assert flooder.advance(), "the block is full: make it larger"

        seconds = interleaved({"steps": steps, "bare": bare}, rounds=ROUNDS)
        step, forward = (seconds[key] / STEPS * 1e3 for key in ("steps", "bare"))
        print(f"{name:30} {str(dtype)[6:]:9} {step:8.2f} {forward:8.2f} {step / forward - 1:9.1%}")


def new_flooder(predictor: Predictor, deltas: Zyx) -> BlockFlooder:
    """Return a block of tubes that takes longer to fill than the measurement."""
    image = normalise(bright_tubes(BLOCK)[0], mean=MEAN, stddev=STDDEV)
    options = FloodOptions(min_segment_size=100).completed(pad_value=0.05, move_threshold=0.9)
    canvas = Canvas(image, predictor, options=options, deltas=deltas)
    flooder = BlockFlooder(canvas, options)
    context = SeedContext(
        image=image,
        segmentation=canvas.segmentation,
        excluded=None,
        margin=canvas.margin,
        corner=(0, 0, 0),
    )
    flooder.add_seeds(seed_positions(options.seeds, context))
    return flooder
