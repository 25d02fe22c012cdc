"""A run on disk: tensors and facts come in, and come back exactly, or from the file before.

``checkpoints/step-00001234.safetensors`` holds weights, optimiser, averages and
the examples in flight; its metadata is one JSON text with counters and the
SHA-256 of all tensors. Nothing in it is executed. Files are replaced in one
piece, and the newest few stay.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as serialise_safetensors
from torch import Tensor

from floodem.errors import ModelError, RunConflictError
from floodem.files import making_folders, replacing, require_free_disk, storage_error

FORMAT_VERSION = 1
METADATA_KEY = "floodem-checkpoint"
DAMAGED_SUFFIX = ".damaged"

_NAME = re.compile(r"step-(\d{8,})\.safetensors", re.ASCII)
_HEADER_LENGTH_BYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One moment of a run.

    Attributes
    ----------
    tensors
        By name, on the CPU.
    facts
        Plain values, ready for JSON; ``step`` is among them.
    """

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]

    @property
    def step(self) -> int:
        """How many steps it has behind it."""
        return int(self.facts["step"])

    def to_bytes(self) -> bytes:
        """Return the whole file."""
        tensors = {name: stored(one) for name, one in self.tensors.items()}
        about = {
            "version": FORMAT_VERSION,
            "sha256": _digest(tensors),
            "facts": dict(self.facts),
        }
        return serialise_safetensors(tensors, {METADATA_KEY: json.dumps(about)})

    @classmethod
    def from_bytes(cls, data: bytes) -> Checkpoint:
        """Read a whole file.

        Raises
        ------
        ModelError
            When it is not what `to_bytes` wrote.
        """
        try:
            tensors = parse_safetensors(data)
            length = int.from_bytes(data[:_HEADER_LENGTH_BYTES], "little")
            header = json.loads(data[_HEADER_LENGTH_BYTES : _HEADER_LENGTH_BYTES + length])
            about = json.loads(header["__metadata__"][METADATA_KEY])
            version, digest, facts = about["version"], about["sha256"], about["facts"]
            if version != FORMAT_VERSION:
                raise ValueError(f"it has version {version!r}, this floodem reads {FORMAT_VERSION}")
            if digest != _digest(tensors):
                raise ValueError("its values are not those that were written")
            if not isinstance(facts["step"], int):
                raise TypeError("it names no step")
        except (SafetensorError, KeyError, RecursionError, TypeError, ValueError) as error:
            raise ModelError(f"it is no whole checkpoint ({error})") from error
        return cls(tensors=tensors, facts=facts)


def stored(tensor: Tensor) -> Tensor:
    """Return a tensor as files want it: on the CPU, in C order, in memory of its own."""
    return tensor.detach().to("cpu", copy=True).contiguous()


def checkpoint_paths(folder: Path) -> list[Path]:
    """Return the checkpoints of a folder, newest first."""
    found = [(int(match[1]), path) for path in folder.glob("step-*") if (match := _match(path))]
    return [path for _, path in sorted(found, reverse=True)]


def save_checkpoint(folder: Path, checkpoint: Checkpoint, *, keep: int) -> Path:
    """Write a checkpoint in one piece, then remove all but the newest `keep`.

    Raises
    ------
    ResourceError
        When the disk has no room for it; what was saved before stays.
    StorageError
        When the file system refuses; what was saved before stays.
    """
    data = checkpoint.to_bytes()
    path = folder / f"step-{checkpoint.step:08}.safetensors"
    require_free_disk(folder, needed_bytes=len(data), purpose=f"checkpoint {path.name}")
    with making_folders(folder), replacing(path) as partial:
        partial.write_bytes(data)
    for old in checkpoint_paths(folder)[keep:]:
        with contextlib.suppress(OSError):  # it only takes space
            old.unlink()
    return path


def load_newest(folder: Path, *, notice: Callable[[str], None]) -> Checkpoint | None:
    """Return the newest whole checkpoint, or None where there is none at all.

    A damaged one is put aside under another name, and a sentence says so.

    Raises
    ------
    RunConflictError
        When all are damaged.
    StorageError
        When one cannot be read.
    """
    paths = checkpoint_paths(folder)
    for path in paths:
        try:
            return Checkpoint.from_bytes(path.read_bytes())
        except OSError as error:
            raise storage_error("read", path, error) from error
        except ModelError as error:
            with contextlib.suppress(OSError):
                os.replace(path, path.with_name(path.name + DAMAGED_SUFFIX))
            notice(f"{path} is damaged ({error}), so the run goes on from the one before")
    if paths:
        raise RunConflictError(
            f"all checkpoints in {folder} are damaged: begin again with --overwrite, or take "
            "latest.safetensors beside them with --network.init"
        )
    return None


def _match(path: Path) -> re.Match[str] | None:
    return _NAME.fullmatch(path.name)


def _digest(tensors: Mapping[str, Tensor]) -> str:
    total = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
