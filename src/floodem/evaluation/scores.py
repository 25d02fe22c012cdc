"""How alike two labelings are: a table of label pairs in, numbers out.

Table rows are pairs (segment, truth object) with their voxel counts, as
`floodem.labels.contingency` gives them; nothing here sees a voxel. What is
counted and what is left out is decided before (floodem.evaluation.comparison) and
written down in docs/scores.md.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from floodem.errors import LabelError
from floodem.labels import OverlapTable

Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Adapted Rand error and variation of information over one choice of voxels.

    Attributes
    ----------
    voxels
        Number of voxels counted.
    segments, objects
        Number of segments and of truth objects among them.
    adapted_rand_error
        1 - F score of `rand_precision` and `rand_recall`; 0 is perfect.
    rand_precision
        Of the voxel pairs in one segment, the share in one truth object too:
        mergers lower it.
    rand_recall
        Of the voxel pairs in one truth object, the share in one segment too:
        splits lower it.
    voi_split_bits, voi_merge_bits
        Conditional entropies H(segmentation | truth) and H(truth | segmentation)
        in bits; 0 is perfect.
    """

    voxels: int
    segments: int
    objects: int
    adapted_rand_error: float
    rand_precision: float
    rand_recall: float
    voi_split_bits: float
    voi_merge_bits: float

    @property
    def voi_sum_bits(self) -> float:
        """The variation of information: split and merge together."""
        return self.voi_split_bits + self.voi_merge_bits

    def to_dict(self) -> dict[str, Any]:
        """Return the same as JSON values, the sum among them."""
        return asdict(self) | {"voi_sum_bits": self.voi_sum_bits}


def scores(table: OverlapTable) -> Scores:
    """Score a segmentation against truth; every row of the table counts.

    Parameters
    ----------
    table
        Pairs with segments as `ids_a` and truth objects as `ids_b`. Id 0 is an
        object like any other: select the rows that should count first.

    Raises
    ------
    LabelError
        When the table is empty.

    References
    ----------
    Arganda-Carreras et al. 2015, Frontiers in Neuroanatomy 9:142, "Rand scoring",
    with the names of the SNEMI3D and CREMI challenges (scikit-image has precision
    and recall the other way round). Meila 2007, J. Multivariate Analysis 98:873.
    """
    if not len(table):
        raise LabelError("no voxel is left to score: nothing is labelled where it counts")
    counts = table.counts.astype(np.float64)
    segment_sizes, _, segments = group_sizes(table.ids_a, table.counts)
    object_sizes, _, objects = group_sizes(table.ids_b, table.counts)
    pairs = np.sum(counts**2)
    precision = float(pairs / np.sum(segment_sizes**2))
    recall = float(pairs / np.sum(object_sizes**2))
    return Scores(
        voxels=int(table.counts.sum()),
        segments=len(segment_sizes),
        objects=len(object_sizes),
        adapted_rand_error=1 - 2 * precision * recall / (precision + recall),
        rand_precision=precision,
        rand_recall=recall,
        voi_split_bits=float(np.sum(conditional_entropy_bits(counts, object_sizes[objects]))),
        voi_merge_bits=float(np.sum(conditional_entropy_bits(counts, segment_sizes[segments]))),
    )


def group_sizes(
    ids: np.ndarray[Any, np.dtype[np.uint64]], counts: np.ndarray[Any, np.dtype[np.int64]]
) -> tuple[Floats, np.ndarray[Any, np.dtype[np.uint64]], np.ndarray[Any, np.dtype[np.intp]]]:
    """Sum the counts of each id.

    Returns
    -------
    sizes, ids, group
        Voxels of each id, the ids ascending, and for every row the index of its
        id among them.
    """
    unique, group = np.unique(ids, return_inverse=True)
    # Sums of integers below 2**53 are exact in float64.
    return np.bincount(group, weights=counts).astype(np.float64), unique, group


def conditional_entropy_bits(counts: Floats, whole: Floats) -> Floats:
    """Return what each pair adds to the entropy, given the object it is a part of.

    Parameters
    ----------
    counts
        Voxels of each pair.
    whole
        Voxels of the object that the pair is a part of.

    Returns
    -------
    bits
        ``-p * log2(counts / whole)`` with p the pair's share of all voxels;
        exactly 0 where the pair is the whole object.
    """
    share: Floats = counts / counts.sum()
    # whole / counts is at least 1, so that no term becomes -0.0.
    return share * np.log2(whole / counts)
