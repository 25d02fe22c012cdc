"""What a stage needs to know of a segment graph: its file in, digests of two parts out.

Edges and scores are what networks computed; rules and decisions are what people said
afterwards. The first makes later stages stale, the second only those that apply merges.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from floodem.project.pipeline.digests import digest_of


def graph_digest(path: Path) -> str:
    """Return a digest of edges and scores, whatever the rule and people say of them.

    Raises
    ------
    FloodemError
        When the graph cannot be read.
    """
    from floodem.assembly.agglomeration.graph.graph import SegmentGraph

    digest = hashlib.sha256()
    with SegmentGraph.open(path) as graph:
        edges = graph.edges()
    arrays = {"a": edges.ids_a, "b": edges.ids_b, "at": edges.positions, **edges.columns}
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()


def decisions_digest(path: Path, *, with_rule: bool) -> str:
    """Return a digest of what people decided in a graph.

    Parameters
    ----------
    with_rule
        Whether the rule in force counts; not where the project file states one.
    """
    from floodem.assembly.agglomeration.graph.graph import SegmentGraph

    with SegmentGraph.open(path) as graph:
        said = [[str(one.action), list(one.pair or ()), one.entry] for one in graph.entries()]
        rule = graph.rule.to_json() if with_rule else None
    return digest_of([said, rule])


def decisions(path: Path) -> int:
    """Return how many decisions people made in a graph."""
    from floodem.assembly.agglomeration.graph.graph import SegmentGraph

    with SegmentGraph.open(path) as graph:
        return len(graph.entries())
