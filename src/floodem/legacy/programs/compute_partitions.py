"""``compute_partitions.py``: labels become partitions by how much around a voxel is its object.

| old | floodem: ``floodem partition LABELS DST`` |
|---|---|
| ``--input_volume``, ``--output_volume`` | ``LABELS``, ``DST`` |
| ``--thresholds`` list | ``--thresholds`` list |
| ``--lom_radius`` **x,y,z** | ``--lom-radius`` **z,y,x** |
| ``--id_whitelist`` list | ``--ids`` list |
| ``--exclusion_regions`` ``x:y:z:r,...`` or a list in fours | ``--exclude z,y,x,r``, repeated |
| ``--mask_configs`` text of a MaskConfigs message, or its file | ``--mask``, repeated |
| ``--min_size`` | ``--min-size`` |

What is written is the old program's: uint8, 255 within the radius of the faces, where
masked or excluded, 0 in background, else 1 to the number of thresholds + 1, with the
attributes ``bounding_boxes`` and ``partition_counts``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from floodem.counting import counted
from floodem.errors import OptionError
from floodem.legacy.addresses import file_and_dataset
from floodem.legacy.flags import Flag, Flags
from floodem.legacy.programs import Console, Program, Translation
from floodem.legacy.values import (
    numbers,
    replacement_note,
    triple_xyz,
    whole_numbers,
    written,
)

if TYPE_CHECKING:
    from floodem.flooding.masks import MaskRule
    from floodem.training.coordinates.partition_volume import PartitionResult
    from floodem.training.coordinates.partitioning import Partitioning, Sphere

_SPHERE_NUMBERS = 4

_UNWRITTEN = (
    "a mask of several rules that is inverted as a whole is obeyed here, but no --mask of floodem "
    "says it: make a volume of it, or write its rules inverted one by one"
)


def _translate(flags: Flags, words: Sequence[str]) -> Translation:
    from floodem.training.coordinates.partitioning import Partitioning

    labels = file_and_dataset(flags["input_volume"])
    destination = file_and_dataset(flags["output_volume"])
    ids = whole_numbers("id_whitelist", flags["id_whitelist"] or ())
    masks, mask_words, remarks = _masks(flags["mask_configs"] or "")
    by = Partitioning(
        thresholds=numbers("thresholds", flags["thresholds"]),
        radius=triple_xyz("lom_radius", flags["lom_radius"]),
        min_size=max(1, flags["min_size"]),
        ids=ids or None,
        masks=masks,
        spheres=parse_spheres(flags["exclusion_regions"] or ()),
    )

    def work(console: Console) -> None:
        from floodem.training.coordinates.partition_volume import partition

        made = partition(labels, destination, by=by, overwrite=True, progress=console.progress)
        _tell(made, console=console)

    return Translation(
        commands=(
            (
                "floodem",
                "partition",
                labels,
                destination,
                *_options(by),
                *mask_words,
                "--overwrite",
            ),
        ),
        notes=replacement_note(destination),
        remarks=remarks,
        work=work,
    )


def parse_spheres(entries: Sequence[str]) -> tuple[Sphere, ...]:
    """Read ``x:y:z:r`` entries, or a flat list of x, y, z, r over and over.

    Returns
    -------
    tuple
        With centres z, y, x, in voxels.

    Raises
    ------
    OptionError
        When an entry has another number of parts, or one is no number of use.
    """
    from floodem.training.coordinates.partitioning import Sphere

    if any(":" in entry for entry in entries):
        fours = [tuple(entry.split(":")) for entry in entries]
    else:
        fours = [
            tuple(entries[first : first + _SPHERE_NUMBERS])
            for first in range(0, len(entries), _SPHERE_NUMBERS)
        ]
    bad = [four for four in fours if len(four) != _SPHERE_NUMBERS]
    if bad:
        raise OptionError(
            f"--exclusion_regions: {':'.join(bad[0])} is no sphere: write x:y:z:r, and commas "
            "between spheres"
        )
    spheres = []
    for four in fours:
        numbers("exclusion_regions", four)
        x, y, z, radius = four
        spheres.append(Sphere.parse(f"{z},{y},{x},{radius}"))
    return tuple(spheres)


def _masks(text: str) -> tuple[tuple[MaskRule, ...], tuple[str, ...], tuple[str, ...]]:
    """Return the rules of a MaskConfigs message, their words, and what those leave out.

    Raises
    ------
    FloodemError
        When the text is not understood, or its file cannot be read.
    """
    if not text.strip():
        return (), (), ()
    from floodem.legacy.requests.files import text_or_file
    from floodem.legacy.requests.masks import mask_rules, mask_texts, unwritten
    from floodem.legacy.requests.text import parse_text

    found, source = text_or_file(text, source="--mask_configs")
    message = parse_text(found, message="MaskConfigs", source=source)
    rules = mask_rules(message.get("masks"), field="masks")
    words = tuple(word for one in mask_texts(rules) for word in ("--mask", one))
    return rules, words, (_UNWRITTEN,) if unwritten(rules) else ()


def _options(by: Partitioning) -> tuple[str, ...]:
    """Return the options of ``floodem partition``, without masks."""
    words = [
        "--thresholds",
        ",".join(f"{one:g}" if float(f"{one:g}") == one else repr(one) for one in by.thresholds),
        "--lom-radius",
        written(by.radius),
        "--min-size",
        str(by.min_size),
    ]
    if by.ids is not None:
        words += ["--ids", ",".join(map(str, by.ids))]
    for sphere in by.spheres:
        words += ["--exclude", ",".join(repr(one) for one in (*sphere.centre, sphere.radius))]
    return tuple(words)


def _tell(made: PartitionResult, *, console: Console) -> None:
    objects = made.objects
    all_objects = counted(objects.all_objects, "object")
    console.say(f"{made.uri}: {len(objects.ids):,} of {all_objects} in partitions")
    for value, voxels in made.counts.items():
        console.say(f"{value:5} {voxels:15,}")
    if objects.unused_ids:
        named = ", ".join(str(one) for one in objects.unused_ids)
        console.notice(f"no objects, or smaller than --min_size: {named}")


PROGRAM = Program(
    name="compute_partitions",
    summary="Sort the voxels of labels by how much of their surroundings is the same object.",
    flags=(
        Flag(
            name="input_volume",
            kind="text",
            is_required=True,
            help="Labels, FILE:DATASET or FILE@DATASET.",
        ),
        Flag(
            name="output_volume",
            kind="text",
            is_required=True,
            help="Partitions to write, FILE:DATASET or FILE@DATASET.",
        ),
        Flag(
            name="thresholds",
            kind="list",
            is_required=True,
            help="Fractions between the partitions, ascending.",
        ),
        Flag(
            name="lom_radius",
            kind="list",
            is_required=True,
            help="Half of the box around a voxel that is looked at, x,y,z.",
        ),
        Flag(
            name="id_whitelist",
            kind="list",
            help="Ids to sort; other objects stay 0, but still fill the surroundings.",
        ),
        Flag(
            name="exclusion_regions",
            kind="list",
            help="Spheres without centres, x:y:z:r, in voxels.",
        ),
        Flag(
            name="mask_configs",
            kind="text",
            help="MaskConfigs message as text, or its file: no centres near what it masks.",
        ),
        Flag(
            name="min_size",
            kind="integer",
            default=10000,
            help="Objects with fewer voxels are background.",
        ),
    ),
    translate=_translate,
)
