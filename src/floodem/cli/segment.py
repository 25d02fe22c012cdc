"""``floodem segment IMAGE DST --model MODEL``: an image in, a segmentation out."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from floodem.cli import options
from floodem.cli.copying import parse_pyramid
from floodem.cli.segmented import print_plan, print_segmentation
from floodem.cli.stopping import saving_state
from floodem.cli.values import option_value
from floodem.errors import OptionError
from floodem.geometry import Box, parse_zyx

if TYPE_CHECKING:
    from floodem.flooding.request import Segmentation

SECONDS_PER_HOUR = 3600.0


def segment(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="Image: a path or address.")],
    destination: Annotated[str, typer.Argument(metavar="DST", help="Where the labels go.")],
    *,
    model: Annotated[
        list[str],
        typer.Option(
            metavar="MODEL", help="Model file (.safetensors) or name; LEVEL=MODEL with --levels."
        ),
    ],
    network: Annotated[
        str | None,
        typer.Option(metavar="PACKAGE:FACTORY", help="Code of the model's network, if not ours."),
    ] = None,
    box: Annotated[
        str | None, typer.Option(metavar="Z:Z,Y:Y,X:X", help="Part of the image; default: all.")
    ] = None,
    seeds: Annotated[
        str, typer.Option(help='Seed policy, NAME {"argument": value}, or a CSV file of z,y,x.')
    ] = "PolicyPeaks",
    mask: Annotated[
        list[str] | None,
        typer.Option(help="Where no field of view may be centred (repeatable; see above)."),
    ] = None,
    seed_mask: Annotated[
        list[str] | None, typer.Option(help="Where no seed may lie (repeatable).")
    ] = None,
    init_segmentation: Annotated[
        str | None, typer.Option(metavar="SEG", help="Labels that are there already and stay.")
    ] = None,
    probabilities: Annotated[
        str | None,
        typer.Option(metavar="DST", help="Also write each voxel's probability (uint8) there."),
    ] = None,
    init_activation: Annotated[float, typer.Option(help="Probability written at a seed.")] = 0.95,
    pad: Annotated[
        float | None, typer.Option(help="Probability of untouched voxels; default: the model's.")
    ] = None,
    move_threshold: Annotated[
        float | None,
        typer.Option(help="Probability from which the field moves on; default: the model's."),
    ] = None,
    segment_threshold: Annotated[
        float, typer.Option(help="Probability from which a voxel is in the segment.")
    ] = 0.6,
    min_segment_size: Annotated[
        int, typer.Option(help="Smaller segments are dropped (voxels).")
    ] = 1000,
    min_boundary_dist: Annotated[
        str, typer.Option(metavar="Z,Y,X", help="Seeds this near to a segment are skipped.")
    ] = "1,1,1",
    disco_seed_threshold: Annotated[
        float,
        typer.Option(
            help="Fraction of the field of view that must be in the object before voxels "
            "once found outside may not come back (against mergers); negative: never."
        ),
    ] = 0.0,
    seed_anisotropy: Annotated[
        str, typer.Option(metavar="Z,Y,X", help="Relative voxel edges for seed distances.")
    ] = "1,1,1",
    max_calls: Annotated[
        int | None, typer.Option(help="End a flood after this many network calls.")
    ] = None,
    max_voxels: Annotated[
        int | None, typer.Option(help="End a flood once it has filled this many voxels.")
    ] = None,
    device: Annotated[
        str, typer.Option(help="auto (a usable card, else the CPU), cpu, cuda or cuda:N.")
    ] = "auto",
    dtype: Annotated[
        str, typer.Option(help="auto (float32), float32, bfloat16 or float16.")
    ] = "auto",
    block: Annotated[
        str | None,
        typer.Option(
            metavar="Z,Y,X", help="Cut into blocks of these voxels; default: only if it must be."
        ),
    ] = None,
    halo: Annotated[
        str | None, typer.Option(metavar="Z,Y,X", help="Voxels looked at around a block.")
    ] = None,
    agreement: Annotated[
        float, typer.Option(help="Part of two blocks' pieces that must be shared to be one.")
    ] = 0.6,
    min_shared: Annotated[int, typer.Option(help="Least voxels that such pieces share.")] = 10,
    levels: Annotated[
        str | None,
        typer.Option(metavar="2,1", help="Levels of IMAGE, from coarse to fine, DST the last."),
    ] = None,
    consensus: Annotated[
        str | None,
        typer.Option(
            metavar="reverse-seeds|MODEL",
            help="Segment twice, with the seeds backwards or another network, and split what "
            "only one of both joins.",
        ),
    ] = None,
    split_min_size: Annotated[
        int | None,
        typer.Option(help="With --consensus: smaller pieces are dropped; default: 1000 voxels."),
    ] = None,
    join_again: Annotated[
        bool,
        typer.Option(
            "--join-again", help="Keep the blocks flooded before and join them by other rules."
        ),
    ] = False,
    pyramid: options.Pyramid = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print blocks, hours and bytes, and do nothing.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that flood; default: one for each card.")
    ] = None,
    cluster: options.Cluster = None,
    shard: options.ShardPart = None,
    insecure: options.Insecure = False,
    time_limit: Annotated[
        float | None, typer.Option(metavar="HOURS", help="Stop, with all saved, after this time.")
    ] = None,
    block_time_limit: Annotated[
        float | None, typer.Option(metavar="HOURS", help="Give up a block that floods longer.")
    ] = None,
    checkpoint_seconds: Annotated[float, typer.Option(help="Save the state this often.")] = 60.0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Begin again, replacing DST and its record.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Segment an image of any size with a flood-filling network.

    Writes labels (uint64) to DST and the record of the run to DST.floodem. Ctrl-C
    saves the state; the same command goes on from there.

    What does not fit in memory is cut into blocks, which are flooded apart and joined
    where they agree; --block, --workers, --cluster and --shard cut smaller ones too.
    docs/large-volumes.md says how, and what it costs. With --levels a coarser level is
    segmented first and the finer one fills what is left. With --consensus both runs stay
    in DST.floodem, and `floodem consensus` splits them by other sizes without flooding.

    A mask is the address of a volume (not 0: masked), volume:ADDRESS,values=1|3,
    image:min=0,max=10 of raw grey levels, or "where: z < 10 and x > 5" in voxels of
    the volume; "not " in front turns it round.

    Seeds: PolicyPeaks (the default: between image edges), PolicyPeaks2d,
    PolicyMaxPeaks, PolicyGrid3d, PolicyFillEmptySpace and others, with their
    arguments in JSON; docs/segmenting.md lists them.
    """
    from floodem.assembly.request import CutOptions
    from floodem.flooding.masks import parse_mask
    from floodem.flooding.options import FloodOptions
    from floodem.flooding.request import SegmentRequest
    from floodem.flooding.seeds import parse_seeds

    floods = FloodOptions(
        init_activation=init_activation,
        pad_value=pad,
        move_threshold=move_threshold,
        segment_threshold=segment_threshold,
        min_segment_size=min_segment_size,
        min_boundary_dist=option_value("--min-boundary-dist", parse_zyx, text=min_boundary_dist),
        disco_seed_threshold=disco_seed_threshold,
        max_calls=max_calls,
        max_voxels=max_voxels,
        seeds=parse_seeds(seeds),
        seed_anisotropy=_parse_edges(seed_anisotropy),
    )
    request = SegmentRequest(
        options=floods,
        box=option_value("--box", Box.parse, text=box),
        masks=[parse_mask(text) for text in mask or []],
        seed_masks=[parse_mask(text) for text in seed_mask or []],
        init_segmentation=init_segmentation,
        device=device,
        dtype=dtype,
        probabilities=probabilities,
        overwrite=overwrite,
        checkpoint_seconds=checkpoint_seconds,
    )
    cut = CutOptions(
        block=option_value("--block", parse_zyx, text=block),
        halo=option_value("--halo", parse_zyx, text=halo),
        agreement=agreement,
        min_shared=min_shared,
        levels=_levels_of_result(pyramid),
        joins_again=join_again,
        block_seconds=None if block_time_limit is None else block_time_limit * SECONDS_PER_HOUR,
    )
    crew = options.chosen_crew(
        workers=1 if workers is None and cluster is None else workers,
        cluster=cluster,
        shard=shard,
        insecure=insecure,
        overwrite=overwrite,
    )
    chosen = {"request": request, "cut": cut, "crew": crew, "network": network}
    job = _job(image, destination, model, levels=levels) | chosen
    job |= _agreement(consensus, split_min_size=split_min_size, levels=levels)
    _warn_of_labels(image)
    if plan:
        _plan(job, as_json=as_json)
    else:
        _run(job, time_limit=time_limit, as_json=as_json)


def _job(image: str, destination: str, models: list[str], *, levels: str | None) -> dict[str, Any]:
    """Return what is segmented where and with which networks: one level, or several."""
    from floodem.assembly.levels import parse_levels, parse_models
    from floodem.volumes.source import VolumeSource

    place = {"image": VolumeSource(uri=image), "destination": destination}
    if levels is not None:
        numbers = option_value("--levels", parse_levels, text=levels)
        return {**place, "levels": numbers, "models": parse_models(models, levels=numbers)}
    if len(models) > 1:
        raise OptionError(
            f"{len(models)} models are given, {', '.join(models)}, and one level is segmented: "
            "give one, or --levels"
        )
    return {**place, "model": models[0]}


def _agreement(
    consensus: str | None, *, split_min_size: int | None, levels: str | None
) -> dict[str, Any]:
    """Return what two runs are to agree on; nothing where there is one."""
    from floodem.assembly.consensus import ConsensusOptions

    if consensus is None:
        if split_min_size is not None:
            raise OptionError(
                f"--split-min-size {split_min_size} is for pieces of a consensus: give --consensus "
                "as well, or --min-segment-size"
            )
        return {}
    if levels is not None:
        raise OptionError(
            f"--consensus {consensus} is made for one level at a time, and --levels {levels} has "
            "several: segment twice with --levels and use floodem consensus"
        )
    chosen = ConsensusOptions()
    if split_min_size is not None:
        chosen = replace(chosen, split_min_size=split_min_size)
    return {"consensus": consensus, "options": chosen}


def _plan(job: dict[str, Any], *, as_json: bool) -> None:
    from floodem.assembly.planning import planned

    if "levels" in job:
        raise OptionError(
            "--plan is made for one level at a time: leave --levels out, or plan each level as "
            "an image of its own"
        )
    if "consensus" in job:
        raise OptionError(
            "--plan is made for one run at a time: leave --consensus out, and count calls and "
            "hours twice"
        )
    _register(job["network"])
    print_plan(planned(**job), as_json=as_json)


def _run(job: dict[str, Any], *, time_limit: float | None, as_json: bool) -> None:
    from floodem.assembly.consensus.seed_orders import segment_by_consensus
    from floodem.assembly.levels import segment_levels
    from floodem.assembly.segment import segment as segment_one

    _register(job["network"])
    with saving_state(overwrite=job["request"].overwrite) as listening:
        should_stop = _until(time_limit, listening.pop("should_stop"))
        run: Callable[..., Segmentation] = segment_one
        if "levels" in job:
            run = segment_levels
        elif "consensus" in job:
            run = segment_by_consensus
        made = run(**job, should_stop=should_stop, **listening)
    if as_json:
        print(json.dumps(made.to_json()))
    else:
        print_segmentation(made)


def _register(network: str | None) -> None:
    if network is not None:
        from floodem.network.registry import register_network

        register_network(network)


def _levels_of_result(pyramid: str | None) -> int | Literal["auto"]:
    levels = parse_pyramid(pyramid)
    return "auto" if levels is None else levels


def _until(hours: float | None, should_stop: Callable[[], bool]) -> Callable[[], bool]:
    """Return a question that also says yes once the hours are over."""
    if hours is None:
        return should_stop
    if not hours > 0:
        raise OptionError(f"--time-limit {hours} leaves no time: give hours above 0")
    end = time.monotonic() + hours * SECONDS_PER_HOUR
    return lambda: should_stop() or time.monotonic() > end


def _warn_of_labels(image: str) -> None:
    """Say so when what is given as image looks like labels; networks see grey values in it."""
    from floodem.volumes import open_volume
    from floodem.volumes.kinds import looks_like_labels

    with open_volume(image) as volume:
        if looks_like_labels(volume):
            print(
                f"note: {image} ({volume.dtype}) looks like labels, and IMAGE is what is to be "
                "segmented: check the address",
                file=sys.stderr,
                flush=True,
            )


def _parse_edges(text: str) -> tuple[float, float, float]:
    try:
        z, y, x = (float(part) for part in text.split(","))
    except ValueError:
        raise OptionError(
            f"--seed-anisotropy: {text!r} is not three numbers: write z,y,x, for example 5,1,1"
        ) from None
    return (z, y, x)
