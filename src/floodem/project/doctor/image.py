"""What an image declares, before a voxel is looked at: an open volume in, findings out.

Order of files, voxel size, type, chunks, and its size against field of view and memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from floodem.counting import counted
from floodem.flooding.job import MEMORY_BYTES_PER_VOXEL
from floodem.geometry import VoxelSize, Zyx
from floodem.project.doctor.findings import Finding, Level
from floodem.volumes.kinds import SMALL_BYTES
from floodem.volumes.volume import Kind, Volume

PART = "image"

PLAUSIBLE_NM = (1.0, 500.0)
"""Voxel edges of volume electron microscopy lie between 2 nm (TEM) and 200 nm (SBEM sections)."""

ANISOTROPIC = 1.5
"""Sections this many times thicker than pixels are wide call for a flatter field of view. Data
that published networks were trained on with cubes have 1 (FIB-25), those with 17,33,33 have 2.2
and more (j0126, 9 x 9 x 20 nm; SNEMI3D, 6 x 6 x 30 nm)."""

LARGEST_CHUNK = 2**26
"""Bytes. A block of 512^3 voxels is 128 MB: a chunk of half of that is mostly read in vain."""

SMALLEST_CHUNK = 2**13
"""Bytes. Below 20 x 20 x 20 voxels opening a file takes longer than reading it."""

LEAST_INNER = 0.25
"""Share of the voxels at which a field of view can be centred; SNEMI3D has 0.72, FIB-25 0.66."""


def look_at_description(volume: Volume) -> Iterator[Finding]:
    """Yield what is found without reading voxels."""
    yield _finding(
        Level.OK,
        "shape",
        f"{'x'.join(map(str, volume.shape))} voxels (z,y,x) of {volume.dtype}, "
        f"{volume.box.size * volume.dtype.itemsize / 1e9:.3g} GB",
        value=list(volume.shape),
    )
    for sentence in volume.notices:
        yield _finding(Level.WARNING, "files", sentence)
    yield from _order(volume)
    yield from _type(volume)
    yield from look_at_voxel_size(volume.voxel_size, part=PART)
    yield from _chunks(volume)


def is_anisotropic(size: VoxelSize | None) -> bool:
    """Tell whether sections are much thicker than pixels are wide; unknown sizes are not."""
    return size is not None and size.z_nm >= ANISOTROPIC * min(size.y_nm, size.x_nm)


def _finding(
    level: Level, what: str, says: str, *, value: object = None, reason: str = "", advice: str = ""
) -> Finding:
    return Finding(
        level=level, part=PART, what=what, says=says, value=value, reason=reason, advice=advice
    )


def _order(volume: Volume) -> Iterator[Finding]:
    """Tell users of stacks in which order their files are taken."""
    names: Sequence[str] = getattr(volume, "section_names", ())
    if len(names) < 2:
        return
    by_letters = sorted(names)
    differs = [
        at for at, (ours, other) in enumerate(zip(names, by_letters, strict=True)) if ours != other
    ]
    says = f"{counted(len(names), 'file')} from {names[0]} to {names[-1]}"
    if not differs:
        yield _finding(Level.OK, "file order", says, value=[names[0], names[-1]])
        return
    at = differs[0]
    yield _finding(
        Level.NOTE,
        "file order",
        f"{says}, by number: section {at} is {names[at]}; sorted by letters it would be "
        f"{by_letters[at]}",
        value=[names[0], names[-1]],
        reason="floodem sorts by number; programs that sort by letters mix the sections up",
        advice="check that labels and other volumes were made in this order",
    )


def _type(volume: Volume) -> Iterator[Finding]:
    dtype = volume.dtype
    is_wide = dtype.kind in "ui" and dtype.itemsize > SMALL_BYTES
    if volume.kind is Kind.LABELS or is_wide:
        yield _finding(
            Level.PROBLEM,
            "type",
            f"the image holds {dtype}"
            + (" and says that it holds labels" if volume.kind is Kind.LABELS else ""),
            value=dtype.name,
            reason="numbers of more than 16 bits are ids of objects, not grey values",
            advice="give the image here and labels with --labels; real images are converted with "
            "floodem convert --dtype",
        )


def look_at_voxel_size(size: VoxelSize | None, *, part: str) -> Iterator[Finding]:
    """Yield what is odd about a voxel size, or that it is in order."""
    if size is None:
        yield Finding(
            level=Level.WARNING,
            part=part,
            what="voxel size",
            says="the voxel size is not known: the file does not state it",
            reason="field of view, mesh sizes and lengths follow from it",
            advice="write it down: floodem convert SRC DST --voxel-size z,y,x (nm)",
        )
        return
    z, y, x = size.zyx_nm
    low, high = PLAUSIBLE_NM
    level, reason, advice = Level.OK, "", ""
    if size.zyx_nm == (1.0, 1.0, 1.0):
        level, reason = Level.WARNING, "1,1,1 is what programs write when they do not know it"
        advice = "write it down: floodem convert SRC DST --voxel-size z,y,x (nm)"
    elif min(size.zyx_nm) < low or max(size.zyx_nm) > high:
        level = Level.PROBLEM
        reason = f"voxels of electron microscopy have {low:g} to {high:g} nm on each edge"
        advice = (
            "it may be in other units, micrometres say: floodem convert --voxel-size z,y,x (nm)"
        )
    elif z < min(y, x) / ANISOTROPIC:
        level = Level.WARNING
        reason = "sections are rarely thinner than pixels are wide: it may be written as x,y,z"
        advice = "correct it (floodem convert --voxel-size z,y,x), or name the axes with --axes"
    elif max(y, x) / min(y, x) >= ANISOTROPIC:
        level = Level.WARNING
        reason = "pixels are square in nearly all microscopes: y or x may be the z axis"
        advice = "name the axes as they are stored with --axes, for example --axes xyz"
    yield Finding(
        level=level,
        part=part,
        what="voxel size",
        says=f"voxels have {size} nm (z,y,x)",
        value=list(size.zyx_nm),
        reason=reason,
        advice=advice,
    )


def _chunks(volume: Volume) -> Iterator[Finding]:
    chunk_bytes = math.prod(volume.chunks) * volume.dtype.itemsize
    whole = volume.box.size * volume.dtype.itemsize
    named = "x".join(map(str, volume.chunks))
    if chunk_bytes > LARGEST_CHUNK and whole > 2 * LARGEST_CHUNK:
        level, reason = Level.WARNING, "whoever reads a block reads all chunks that it touches"
    elif chunk_bytes < SMALLEST_CHUNK and whole > 2 * LARGEST_CHUNK:
        level, reason = Level.WARNING, f"{whole // chunk_bytes:,} of them are opened one by one"
    else:
        yield _finding(Level.OK, "chunks", f"chunks of {named} voxels", value=list(volume.chunks))
        return
    yield _finding(
        level,
        "chunks",
        f"chunks of {named} voxels (z,y,x) have {chunk_bytes / 1e6:.3g} MB each: slow to read",
        value=list(volume.chunks),
        reason=reason,
        advice="floodem convert SRC DST.zarr --chunks 64,64,64",
    )


def look_at_room(shape: Zyx, *, fov: Zyx) -> Finding:
    """Say at how many voxels a field of view (z, y, x) can be centred."""
    inner = [max(0, size - edge + 1) for size, edge in zip(shape, fov, strict=True)]
    view = ",".join(map(str, fov))
    if not math.prod(inner):
        return _finding(
            Level.PROBLEM,
            "room",
            f"the image ({','.join(map(str, shape))}) is smaller than a field of view of {view} "
            "(z,y,x): nothing can be segmented",
            value=inner,
            advice="give a larger image, or a network with a smaller field of view",
        )
    share = math.prod(inner) / math.prod(shape)
    level = Level.OK if share >= LEAST_INNER else Level.WARNING
    return _finding(
        level,
        "room",
        f"a field of view of {view} can be centred at {share:.0%} of the voxels",
        value=inner,
        reason="" if level is Level.OK else "within half a field of view of a face no flood begins",
        advice="" if level is Level.OK else "segment a larger box",
    )


def look_at_memory(shape: Zyx, *, free: int | None) -> Finding:
    """Say whether a volume fits into memory as one block.

    Parameters
    ----------
    free
        Bytes that can be taken; None: not known.
    """
    needed = math.prod(shape) * MEMORY_BYTES_PER_VOXEL
    if free is None or needed <= free:
        there = "" if free is None else f" of {free / 1e9:.1f} GB free"
        return _finding(
            Level.OK,
            "memory",
            f"segmenting it as one block takes {needed / 1e9:.1f} GB{there}",
            value=needed,
        )
    return _finding(
        Level.NOTE,
        "memory",
        f"segmenting it as one block takes {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free: "
        "it will be cut into blocks",
        value=needed,
        reason=f"{MEMORY_BYTES_PER_VOXEL} bytes a voxel at the peak, while seeds are looked for",
    )
