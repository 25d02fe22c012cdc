"""``floodem segment IMAGE DST --model MODEL``: an image in, a segmentation out."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from floodem.cli.stopping import saving_state
from floodem.cli.values import option_value
from floodem.counting import counted
from floodem.errors import OptionError
from floodem.geometry import Box, parse_zyx

if TYPE_CHECKING:
    from floodem.flooding.request import Segmentation


def segment(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="Image: a path or address.")],
    destination: Annotated[str, typer.Argument(metavar="DST", help="Where the labels go.")],
    *,
    model: Annotated[str, typer.Option(help="Model file (.safetensors).")],
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
    checkpoint_seconds: Annotated[float, typer.Option(help="Save the state this often.")] = 60.0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Begin again, replacing DST and its record.")
    ] = False,
) -> None:
    """Segment an image with a flood-filling network.

    Writes labels (uint64) to DST and the record of the run to DST.floodem. Ctrl-C
    saves the state; the same command goes on from there.

    A mask is the address of a volume (not 0: masked), volume:ADDRESS,values=1|3,
    image:min=0,max=10 of raw grey levels, or "where: z < 10 and x > 5" in voxels of
    the volume; "not " in front turns it round.

    Seeds: PolicyPeaks (the default: between image edges), PolicyPeaks2d,
    PolicyMaxPeaks, PolicyGrid3d, PolicyFillEmptySpace and others, with their
    arguments in JSON; docs/segmenting.md lists them.
    """
    from floodem.flooding.masks import parse_mask
    from floodem.flooding.options import FloodOptions
    from floodem.flooding.request import SegmentRequest
    from floodem.flooding.seeds import parse_seeds
    from floodem.flooding.segment import segment as run

    options = FloodOptions(
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
        options=options,
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
    if network is not None:
        from floodem.network.registry import register_network

        register_network(network)
    _warn_of_labels(image)
    with saving_state(overwrite=overwrite) as listening:
        made = run(image, destination, model=model, request=request, **listening)
    _print(made)


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


def _print(made: Segmentation) -> None:
    if made.was_finished:
        print(f"{made.uri} was finished by an earlier run of this command; --overwrite repeats it")
    summary = made.summary
    print(
        f"{made.uri}: {counted(made.segments, 'segment')} in box {made.box}, "
        f"{made.covered:.1%} of the voxels, "
        f"{counted(summary['counters']['network_calls'], 'network call')}; record in {made.folder}"
    )
    if summary["cut_short"]:
        ids = ", ".join(str(label) for label in summary["cut_short"])
        print(f"note: floods that hit a limit, perhaps mergers: {ids}", file=sys.stderr)
