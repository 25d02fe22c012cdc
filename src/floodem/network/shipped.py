"""Networks that come with floodem, by name.

They lie beside this file in ``models/``; `floodem.load_model` and ``--model`` take
their names wherever no file has that name.
"""

from __future__ import annotations

from importlib.resources import files

SHIPPED = {"synthetic": "for `floodem synthetic --preset clear`; it has never seen an animal"}
"""Every name, and what it is for."""


def shipped_model(name: str) -> bytes | None:
    """Return the model file of this name, or None when floodem ships no such network."""
    if name not in SHIPPED:
        return None
    return files("floodem.network").joinpath("models", f"{name}.safetensors").read_bytes()
