"""Everything about the systems floodem replaces: their files, flags and requests."""
