"""Which nodes hang together: pairs of nodes in, batch by batch, the smallest of each component out.

Nodes are numbers from 0. One array leads from each node to a smaller one of the same
component, and from the smallest to itself; it may lie in a file. A batch takes memory
for its own pairs, and the result is the same for any order of the pairs and any cut
into batches, because the smallest node always leads::

    pairs of a batch -> what leads them now -> components of those few -> their smallest leads
"""

from __future__ import annotations

from typing import Any

import numpy as np

Nodes = np.ndarray[Any, np.dtype[Any]]

BATCH = 2**20
"""Pairs that are joined at once by whoever is free to choose; they take about 100 MB."""


def node_dtype(count: int) -> np.dtype[Any]:
    """Return the narrowest type that numbers so many nodes."""
    return np.dtype(np.uint32 if count <= 2**32 else np.uint64)


class Joining:
    """Components of a growing graph.

    Parameters
    ----------
    leads
        0, 1, 2 and so on, one for each node (see `scratch_array`, `node_dtype`); changed in
        place.
    """

    def __init__(self, leads: Nodes) -> None:
        self._leads = leads

    def join(self, a: Nodes, b: Nodes) -> None:
        """Join each node of `a` with the one of `b` at the same position."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        leaders_a, leaders_b = self.leaders(a), self.leaders(b)
        is_new = leaders_a != leaders_b
        ends = np.concatenate([leaders_a[is_new], leaders_b[is_new]])
        leaders, rows = np.unique(ends, return_inverse=True)
        first, second = rows.reshape(2, -1)
        graph = coo_array(
            (np.ones(len(first), np.int8), (first, second)), shape=(len(leaders), len(leaders))
        )
        count, component = connected_components(graph, directed=False)
        smallest = np.full(count, np.iinfo(leaders.dtype).max, leaders.dtype)
        np.minimum.at(smallest, component, leaders)
        self._leads[leaders] = smallest[component]

    def leaders(self, nodes: Nodes) -> Nodes:
        """Return the smallest node of each one's component, and remember the short way to it."""
        leaders = self._leads[nodes]
        while True:
            further = self._leads[leaders]
            if np.array_equal(further, leaders):
                break
            leaders = further
        self._leads[nodes] = leaders
        return leaders
