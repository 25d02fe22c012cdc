"""The segment graph: edges with scores, the rule, what people decided, and what follows."""
