"""``build_coordinates.py``: partitions become the file of shuffled centres that training reads.

| old | floodem: ``floodem sample NAME=PARTITIONS... DST --tfrecord`` |
|---|---|
| ``--partition_volumes`` list of ``name:file:dataset`` | ``name=file@dataset`` words |
| ``--coordinate_output`` | ``DST`` |
| ``--margin`` z,y,x | ``--margin`` z,y,x; 0 works |
| background among the centres | left out; ``--legacy-background`` keeps it |

The file is a GZIP TFRecord of ``center`` (x, y, z) and ``label_volume_name``: every
partition but 255 resampled to the size of the largest, all shuffled.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from floodem.counting import counted
from floodem.errors import FloodemError, UsageError
from floodem.geometry import Zyx
from floodem.legacy.addresses import named_addresses
from floodem.legacy.flags import Flag, Flags
from floodem.legacy.programs import Console, Program, Translation
from floodem.legacy.values import replacement_note, triple_zyx, written

_FLAT_DEPTH, _FLAT_STEP = 17, 4
_FLAT_MARGIN = _FLAT_DEPTH // 2 + _FLAT_STEP
"""What a field of view 17 deep that moves by 4 reaches in z, as for sections cut at 30 nm."""

_FLAT_RATIO = 2
"""A volume so many times as wide as it has sections is one of thick sections."""

_BACKGROUND_LEFT_OUT = (
    "background centres, whose target is empty, are left out, while the old program kept one for "
    "each partition's share: --legacy-background keeps them"
)
_BACKGROUND_KEPT = (
    "background centres are kept, as by the old program: their target is empty, and the network "
    "learns from them only to stop"
)


def _translate(flags: Flags, words: Sequence[str]) -> Translation:
    named = named_addresses(flags["partition_volumes"])
    if not named:
        raise UsageError("--partition_volumes is empty: write NAME:FILE:DATASET")
    volumes: dict[str, str | Path] = {one.name: one.address for one in named}
    margin = _margin(flags["margin"])
    output = Path(flags["coordinate_output"])
    keeps_background: bool = flags["legacy_background"]

    def work(console: Console) -> None:
        from floodem.legacy.records.balanced import write_tfrecord
        from floodem.training.coordinates.sampling import gathered

        with gathered(
            volumes,
            beside=output,
            margin=margin,
            background=keeps_background,
            progress=console.progress,
        ) as index:
            made = write_tfrecord(index, output, overwrite=True, progress=console.progress)
        console.say(f"{output}: {counted(made.records, 'record')}; different voxels by partition:")
        for partition, voxels in made.voxels.items():
            console.say(f"{partition:5} {voxels:15,}")

    return Translation(
        commands=(
            (
                "floodem",
                "sample",
                *(f"{one.name}={one.address}" for one in named),
                str(output),
                "--margin",
                written(margin),
                "--tfrecord",
                *(("--legacy-background",) if keeps_background else ()),
                "--overwrite",
            ),
        ),
        notes=(
            *replacement_note(output),
            *_margin_note(margin, addresses=[one.address for one in named]),
            _BACKGROUND_KEPT if keeps_background else _BACKGROUND_LEFT_OUT,
        ),
        work=work,
    )


def _margin(entries: Sequence[str]) -> Zyx:
    """Return z, y, x; one number alone is meant for all axes."""
    return triple_zyx("margin", tuple(entries) * 3 if len(entries) == 1 else entries)


def _margin_note(margin: Zyx, *, addresses: Sequence[str]) -> tuple[str, ...]:
    """Return the sentence for a margin that was copied for images it does not suit, or nothing."""
    is_copied = len(set(margin)) == 1 and margin[0] > _FLAT_MARGIN
    if not is_copied or not any(_is_flat(address) for address in addresses):
        return ()
    sentence = (
        f"a margin of {margin[0]} in z is more than a field of view {_FLAT_DEPTH} deep needs: with "
        f"moves of {_FLAT_STEP} that is {_FLAT_MARGIN}, as in --margin "
        f"{_FLAT_MARGIN},{margin[1]},{margin[2]}, and a stack of few sections keeps more centres"
    )
    return (sentence,)


def _is_flat(address: str) -> bool:
    """Tell whether a volume has few sections for its width, as those of thick sections have."""
    from floodem.volumes import open_volume

    try:
        with open_volume(address) as volume:
            z, y, x = volume.shape
    except FloodemError:
        return False  # the work says what is wrong with it
    return _FLAT_RATIO * z <= min(y, x)


PROGRAM = Program(
    name="build_coordinates",
    summary="Write the shuffled centres of training examples, every partition alike often.",
    flags=(
        Flag(
            name="partition_volumes",
            kind="list",
            is_required=True,
            help="Partitions to take centres from, each NAME:FILE:DATASET.",
        ),
        Flag(
            name="coordinate_output",
            kind="text",
            is_required=True,
            help="The GZIP TFRecord file to write.",
        ),
        Flag(
            name="margin",
            kind="list",
            is_required=True,
            help="Voxels z,y,x at each face of each volume that hold no centre.",
        ),
        Flag(
            name="legacy_background",
            kind="boolean",
            default=False,
            help="Also take centres in the background, as the old program did (floodem's own).",
        ),
    ),
    translate=_translate,
)
