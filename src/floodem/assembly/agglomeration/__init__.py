"""Which segments belong together: decision points, resegmentation, scores, a graph of merges."""
