"""Measure what floodem promises, as ratios within one run: python3 tasks.py bench

    network    milliseconds a call, both published shapes, float32 and bfloat16,
               against the arithmetic at the matrix product's measured peak
    overhead   a whole step of a flood against the bare forward pass
    start      `import floodem` and `floodem --help` against bare Python
    reads      fields of view read at random places a second, in every format
    convert    512^3 between chunked formats against a plain copy, stacks against reading
    training   a step of training against its arithmetic, and where its time goes
    augmentation  milliseconds for one example, by preset and by part
    partitions partitions of the shared SNEMI3D labels, index, draws, historic coordinates
    records    coordinates of old trainings read, and lists of centres made of them
    viewer     chunks of the viewer with eight clients, and the time to its first picture
    meshes     `floodem mesh` on the shared FIB-25 segmentation, against marching cubes alone
    skeletons  `floodem skeletonize` and `measure` on it as well, against distances alone
    evaluation scores of volumes block by block, against scores of arrays in memory
    consensus  consensus of two segmentations against reading both
    points     decision points against bare distances and against reading
    resegmentation  decision points flooded again, and how much of that is the network's
    erl        scores along 10,000 skeletons against reading their blocks
    stitching  blocks compared, joined and numbered, against reading their labels
    tasks      what a task costs beside its work, and reading many receipts again
    slots      blocks flooded two at a time in a worker against one at a time, over a slow server
    clahe      contrast of 100 x 512 x 512, and its error by density of tables

Name some to run only those: python3 tasks.py bench -- network. Everything but
partitions, viewer, meshes, skeletons, evaluation and resegmentation is random or
hand-made and needs no data.
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]


def main() -> int:
    """Run the benchmarks that were named, or all."""
    import augmentation_speed
    import clahe_speed
    import consensus_speed
    import conversion_speed
    import decision_points_speed
    import erl_speed
    import evaluation_speed
    import flood_overhead
    import flood_slots
    import mesh_speed
    import network_speed
    import partition_speed
    import random_reads
    import record_speed
    import resegmentation_speed
    import skeleton_speed
    import start_time
    import stitching_speed
    import task_overhead
    import torch
    import training_speed
    import viewer_latency

    benchmarks = {
        "network": network_speed.run,
        "overhead": flood_overhead.run,
        "start": start_time.run,
        "training": training_speed.run,
        "augmentation": augmentation_speed.run,
        "convert": conversion_speed.run,
        "reads": random_reads.run,
        "viewer": viewer_latency.run,
        "clahe": clahe_speed.run,
        "partitions": partition_speed.run,
        "records": record_speed.run,
        "meshes": mesh_speed.run,
        "skeletons": skeleton_speed.run,
        "tasks": task_overhead.run,
        "slots": flood_slots.run,
        "evaluation": evaluation_speed.run,
        "stitching": stitching_speed.run,
        "consensus": consensus_speed.run,
        "points": decision_points_speed.run,
        "resegmentation": resegmentation_speed.run,
        "erl": erl_speed.run,
    }
    names = sys.argv[1:] or list(benchmarks)
    unknown = [name for name in names if name not in benchmarks]
    if unknown:
        print(f"no benchmark is called {unknown[0]!r}: choose from {', '.join(benchmarks)}")
        return 2
    print(
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, torch {torch.__version__}, {torch.get_num_threads()} threads"
    )
    for name in names:
        print(f"\n{name}")
        benchmarks[name]()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
