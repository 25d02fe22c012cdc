"""Pure functions on label arrays: overlaps, connected components, other numbers."""

from floodem.labels.components import components, connected_pieces
from floodem.labels.overlaps import OverlapCounter, OverlapTable, contingency, merge_tables
from floodem.labels.relabel import compact, label_dtype, relabel
from floodem.labels.runs import require_labels, sizes

__all__ = [
    "OverlapCounter",
    "OverlapTable",
    "compact",
    "components",
    "connected_pieces",
    "contingency",
    "label_dtype",
    "merge_tables",
    "relabel",
    "require_labels",
    "sizes",
]
