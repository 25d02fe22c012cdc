"""Flood-filling networks for electron microscopy."""
