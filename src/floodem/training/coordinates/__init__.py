"""Where training examples are centred: labels, partitions, an index of them, draws."""
