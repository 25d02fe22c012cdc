"""Skeletons as SWC, the text format of neuron tracing: a skeleton in, lines out, and back.

One line for each vertex: id, type, x, y, z, radius, parent. Ids count from 1,
parents come before their children, and the first vertex of each piece has parent
-1. The unit is micrometres by custom and nanometres in much of electron
microscopy; here a comment at the head says it.

References
----------
Cannon et al. 1998, Journal of Neuroscience Methods 84:49.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int64

from floodem.errors import GeometryError, OptionError, VolumeFormatError
from floodem.files import storage_error
from floodem.shapes.skeletons.skeleton import Skeleton
from floodem.volumes.damage import damaged

Unit = Literal["nm", "um"]
NM_PER_UNIT: dict[str, float] = {"nm": 1.0, "um": 1000.0}

MAX_FILE_BYTES = 2**30
"""More than ten million vertices; the largest traced neurons have some hundred thousand."""

_UNDEFINED = 0
_ROOT = -1
_COLUMNS = 7
_UNIT_COMMENT = re.compile(r"#\s*unit:\s*(nm|um)\s*")
_DIGITS = 9
"""Enough to give a float32 back as it was."""


def swc_text(skeleton: Skeleton, *, unit: Unit = "nm", source: str = "") -> str:
    """Return a skeleton as the text of an SWC file.

    Parameters
    ----------
    unit
        Of positions and radii: ``nm`` or ``um``.
    source
        Where it is from, for a comment at the head: "id 7 of seg.zarr".

    Raises
    ------
    OptionError
        When there is no such unit.
    GeometryError
        When the skeleton has a loop: every line has one parent.
    """
    scale = _scale(unit)
    order, parents = _as_trees(skeleton)
    row_of = np.empty(len(order), np.int64)
    row_of[order] = np.arange(1, len(order) + 1)
    numbers = np.where(parents < 0, _ROOT, row_of[parents])[order]
    positions = skeleton.vertices_zyx_nm[order].astype(np.float64) / scale
    radii = skeleton.radii_nm[order].astype(np.float64) / scale
    lines = [
        f"# source: {' '.join(source.split())}" if source else "# source: floodem",
        f"# unit: {unit}",
        "# id type x y z radius parent",
    ]
    lines += [
        f"{row} {_UNDEFINED} {x:.{_DIGITS}g} {y:.{_DIGITS}g} {z:.{_DIGITS}g} "
        f"{radius:.{_DIGITS}g} {parent}"
        for row, ((z, y, x), radius, parent) in enumerate(
            zip(positions.tolist(), radii.tolist(), numbers.tolist(), strict=True), start=1
        )
    ]
    return "\n".join(lines) + "\n"


def _as_trees(
    skeleton: Skeleton,
) -> tuple[Int64[np.ndarray, "vertices"], Int64[np.ndarray, "vertices"]]:
    """Return vertices with parents before children, and the parent of each vertex (-1: root)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import breadth_first_order

    count, ends = len(skeleton), skeleton.edges.astype(np.int64)
    numbers = skeleton.component_numbers
    if len(ends) != count - (int(numbers.max(initial=-1)) + 1):
        raise GeometryError(
            "a skeleton with a loop (or with one edge twice) cannot be written as SWC, where each "
            "vertex has one parent: write it as precomputed"
        )
    graph = coo_array((np.ones(len(ends), np.int8), ends.T), shape=(count, count)).tocsr()
    orders, parents = [np.zeros(0, np.int64)], np.full(count, -1, np.int64)
    for root in np.unique(numbers, return_index=True)[1]:
        order, before = breadth_first_order(graph, root, directed=False)
        orders.append(order.astype(np.int64))
        parents[order[1:]] = before[order[1:]]
    return np.concatenate(orders), parents


def read_swc(path: Path, *, unit: Unit | None = None) -> Skeleton:
    """Read an SWC file.

    Parameters
    ----------
    unit
        Of the numbers in the file; by default what a comment ``# unit: nm`` says.

    Returns
    -------
    Skeleton
        Vertices in the order of the lines; edges from each vertex to its parent.

    Raises
    ------
    OptionError
        When neither the file nor the caller says the unit.
    VolumeFormatError
        When the file is damaged or too large; the message gives the line.
    StorageError
        When the file system refuses.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise storage_error("read", path, error) from error
    if len(data) > MAX_FILE_BYTES:
        raise _damaged(path, f"it has more than {MAX_FILE_BYTES} bytes")
    return parse_swc(data.decode("utf-8", errors="replace"), unit=unit, uri=path)


def parse_swc(text: str, *, unit: Unit | None = None, uri: object) -> Skeleton:
    """Read the text of an SWC file; see `read_swc`."""
    lines = text.splitlines()
    if unit is None:
        unit = _stated_unit(lines, uri)
    scale = _scale(unit)
    rows = [
        _numbers(line, at, uri)
        for at, line in enumerate(lines, start=1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    row_of = {row[0]: number for number, row in enumerate(rows)}
    if len(row_of) != len(rows):
        raise _damaged(uri, "two of its lines have one id")
    edges = [(row_of[row[0]], row_of.get(row[5], -1)) for row in rows if row[5] != _ROOT]
    unknown = next((row for row in rows if row[5] != _ROOT and row[5] not in row_of), None)
    if unknown is not None:
        raise _damaged(uri, f"vertex {unknown[0]} has the parent {unknown[5]}, which is not there")
    with np.errstate(over="ignore"):
        table = (np.array([row[1:5] for row in rows]).reshape(-1, 4) * scale).astype(np.float32)
    if not np.isfinite(table).all():
        raise _damaged(uri, "a position or radius is beyond what 32 bits hold")
    skeleton = Skeleton(
        table[:, 2::-1].copy(),
        np.array(edges, np.uint32).reshape(-1, 2),
        table[:, 3].copy(),
    )
    if len(edges) != len(rows) - (int(skeleton.component_numbers.max(initial=-1)) + 1):
        raise _damaged(uri, "its parents go round in a circle")
    return skeleton


def _stated_unit(lines: Iterable[str], uri: object) -> Unit:
    found = (_UNIT_COMMENT.fullmatch(line.strip()) for line in lines)
    stated = next((match[1] for match in found if match), None)
    if stated is None:
        raise OptionError(f"{uri} does not say its unit: give nm or um")
    return "nm" if stated == "nm" else "um"


def _numbers(line: str, at: int, uri: object) -> tuple[int, float, float, float, float, int]:
    """Return id, x, y, z, radius and parent of a line."""
    words = line.split()
    if len(words) < _COLUMNS:
        raise _damaged(uri, f"line {at} has {len(words)} numbers and not {_COLUMNS}")
    try:
        number, parent = int(words[0]), int(words[6])
        x, y, z, radius = (float(word) for word in words[2:6])
    except ValueError as error:
        raise _damaged(uri, f"line {at}: {error}") from error
    if not all(math.isfinite(value) for value in (x, y, z, radius)):
        raise _damaged(uri, f"line {at} has a position or radius that is not finite")
    return number, x, y, z, radius, parent


def _scale(unit: str) -> float:
    if unit not in NM_PER_UNIT:
        raise OptionError(f"{unit!r} is no unit for SWC: use {' or '.join(NM_PER_UNIT)}")
    return NM_PER_UNIT[unit]


def _damaged(uri: object, reason: Any) -> VolumeFormatError:
    return damaged(uri, kind="an SWC file", reason=reason)
