"""The name under which old notebooks look for flood-filling networks; floodem does the work."""
