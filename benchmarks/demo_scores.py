"""Score the shipped network on tissue it never saw: python benchmarks/demo_scores.py

Does what `floodem demo` does for ten seeds, none of which it was trained on, and prints the
table of docs/demo.md: scores over all voxels that the truth labels, those over the voxels
that both label, and the seconds from making the tissue to its score.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import floodem
from floodem.cli.demo import (
    BORDER,
    DISCO_SEED_THRESHOLD,
    MIN_SEGMENT_SIZE,
    PRESET,
    SEGMENT_THRESHOLD,
    TRAINED_SEEDS,
)
from floodem.flooding.options import FloodOptions
from floodem.geometry import parse_zyx
from floodem.volumes.synthetic import SyntheticOptions, write_synthetic

SHAPE = (96, 96, 96)


def main(model: str = "synthetic", dtype: str = "auto") -> None:
    """Print a line for each seed, and the mean and the worst."""
    print("| seed | objects | Rand error | where both label | VOI split | merge | filled | s |")
    print("|---|---|---|---|---|---|---|---|")
    errors = []
    for seed in range(TRAINED_SEEDS, TRAINED_SEEDS + 10):
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            image, truth, labels = (
                str(Path(folder, f"{name}.zarr")) for name in ("tissue", "truth", "labels")
            )
            options = SyntheticOptions.preset(PRESET, seed=seed, shape=SHAPE)
            write_synthetic(options, image=image, labels=truth)
            flood = FloodOptions(
                min_segment_size=MIN_SEGMENT_SIZE,
                segment_threshold=SEGMENT_THRESHOLD,
                disco_seed_threshold=DISCO_SEED_THRESHOLD,
            )
            request = floodem.SegmentRequest(options=flood, dtype=dtype)
            floodem.segment(image, labels, model=model, request=request)
            with floodem.open_volume(labels) as made, floodem.open_volume(truth) as true:
                found = floodem.evaluate(made, true, border=parse_zyx(BORDER), worst=0)
        every, both = found.all_truth, found.where_both_label
        errors.append(every.adapted_rand_error)
        print(
            f"| {seed} | {every.objects} | {every.adapted_rand_error:.3f} "
            f"| {both.adapted_rand_error if both else 1:.3f} | {every.voi_split_bits:.2f} "
            f"| {every.voi_merge_bits:.2f} | {found.coverage:.1%} "
            f"| {time.monotonic() - began:.0f} |",
            flush=True,
        )
    print(f"\nmean {sum(errors) / len(errors):.3f}, worst {max(errors):.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
