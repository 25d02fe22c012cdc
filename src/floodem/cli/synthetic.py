"""``floodem synthetic IMAGE LABELS``: a seed in, synthetic tissue with its truth out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from floodem.cli import options
from floodem.cli.copying import copying_to, parse_pyramid, report
from floodem.cli.values import option_value
from floodem.errors import OptionError
from floodem.geometry import VoxelSize, parse_zyx


def synthetic(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="Image to make (uint8).")],
    labels: Annotated[str, typer.Argument(metavar="LABELS", help="Its labels to make.")],
    *,
    preset: Annotated[
        str,
        typer.Option(
            help="fib: isotropic 8 nm; clear: fib made easy; atum: 30,6,6 nm with defects of "
            "sections."
        ),
    ] = "fib",
    seed: Annotated[int, typer.Option(min=0, help="Another number is other tissue.")] = 0,
    shape: Annotated[
        str | None, typer.Option(metavar="Z,Y,X", help="Voxels; default 128,128,128 for fib.")
    ] = None,
    voxel_size: Annotated[
        str | None, typer.Option(metavar="Z,Y,X", help="In nanometres, instead of the preset's.")
    ] = None,
    skeletons: Annotated[
        Path | None, typer.Option(metavar="FILE.swc", help="Write the exact skeletons, too.")
    ] = None,
    spacing: Annotated[
        float | None, typer.Option(metavar="NM", help="Distance of neighbouring neurites.")
    ] = None,
    calibre: Annotated[
        float | None, typer.Option(help="Spread of calibres, 0 to 1.5; 0.7 is usual.")
    ] = None,
    noise: Annotated[
        float | None, typer.Option(help="Noise of each voxel in grey levels; 12 is usual.")
    ] = None,
    faint: Annotated[
        float | None, typer.Option(help="How faint membranes are in places, 0 to 1; 0.5 is usual.")
    ] = None,
    texture: Annotated[
        float | None, typer.Option(help="Texture of cytoplasm in grey levels; 9 is usual.")
    ] = None,
    glia: Annotated[float | None, typer.Option(help="Amount of glia: 0 none, 1 usual.")] = None,
    mitochondria: Annotated[float | None, typer.Option(help="Amount of mitochondria.")] = None,
    vesicles: Annotated[float | None, typer.Option(help="Amount of vesicle clusters.")] = None,
    contrast: Annotated[
        float | None, typer.Option(help="How sections' contrast varies; 0.06 in atum.")
    ] = None,
    brightness: Annotated[
        float | None, typer.Option(help="How sections' grey values vary; 5 in atum.")
    ] = None,
    missing: Annotated[float | None, typer.Option(help="Share of lost sections.")] = None,
    folded: Annotated[float | None, typer.Option(help="Share of sections with a fold.")] = None,
    shift: Annotated[
        float | None, typer.Option(metavar="NM", help="Misalignment of sections.")
    ] = None,
    defects: Annotated[
        bool | None,
        typer.Option("--defects/--no-defects", help="All of atum's section defects, or none."),
    ] = None,
    chunks: options.Chunks = None,
    pyramid: options.Pyramid = None,
    threads: options.Threads = None,
    overwrite: options.Replace = False,
) -> None:
    """Make synthetic electron microscopy with exact labels and skeletons.

    Neurites that branch, touch, thin out and vary in calibre fill the volume, with
    membranes, mitochondria, vesicles and sheets of glia. The same options give the
    same voxels, and nothing is ever held as a whole.

    As with `floodem convert`, both volumes get receipts and are read back and
    compared, and what was stopped goes on with the same command.
    """
    from floodem.volumes.synthetic import SyntheticOptions, write_synthetic

    changes: dict[str, Any] = {
        "shape": option_value("--shape", parse_zyx, text=shape),
        "voxel_size": option_value("--voxel-size", VoxelSize.parse, text=voxel_size),
        "spacing_nm": spacing,
        "calibre": calibre,
        "noise": noise,
        "faint": faint,
        "texture": texture,
        "glia": glia,
        "mitochondria": mitochondria,
        "vesicles": vesicles,
    }
    wrong: dict[str, Any] = {
        "contrast": contrast,
        "brightness": brightness,
        "missing": missing,
        "folded": folded,
        "shift_nm": shift,
    }
    made = SyntheticOptions.preset(preset, seed=seed, **_given(changes))
    if defects is not None:
        made = dataclasses.replace(made, sections=_all_or_no_defects(defects))
    made = dataclasses.replace(made, sections=dataclasses.replace(made.sections, **_given(wrong)))
    if skeletons is not None and skeletons.suffix.lower() != ".swc":
        raise OptionError(f"--skeletons {skeletons} is no SWC file: let its name end with .swc")
    with copying_to(image, overwrite=overwrite) as control:
        written = write_synthetic(
            made,
            image=image,
            labels=labels,
            skeleton_file=skeletons,
            chunks=option_value("--chunks", parse_zyx, text=chunks),
            pyramid=parse_pyramid(pyramid),
            threads=threads,
            overwrite=overwrite,
            **control,
        )
    for one, destination in zip(written, (image, labels), strict=True):
        report(one, destination)
    if skeletons is not None:
        print(f"{skeletons}: exact skeletons, x y z in nanometres")


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _all_or_no_defects(wanted: bool) -> Any:
    from floodem.volumes.synthetic import SectionOptions, SyntheticOptions

    return SyntheticOptions.preset("atum").sections if wanted else SectionOptions()
