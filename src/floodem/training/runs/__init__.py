"""Runs: a folder that is begun, stopped, gone on with, watched and compared."""
