r"""Networks by name: a word comes in, a model file or what is known about it goes out.

Three kinds have names: those that floodem ships (`floodem.network.shipped`), published
ones that ``floodem fetch`` has brought to this user's data folder, and published ones
that it could bring. `floodem.load_model` and ``--model`` take the first two wherever no
file has that name.

The data folder is ``FLOODEM_HOME``, or else ``$XDG_DATA_HOME/floodem``
(``~/.local/share/floodem``), ``~/Library/Application Support/floodem`` on macOS and
``%LOCALAPPDATA%\floodem`` on Windows.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from floodem.errors import ModelError, OptionError
from floodem.files import storage_error
from floodem.network.shipped import SHIPPED, shipped_model

HOME_VARIABLE = "FLOODEM_HOME"
"""Environment variable that names another data folder."""

FETCHABLE = ("fib25", "snemi3d")
"""Published networks that ``floodem fetch`` brings; floodem.legacy.published knows from where."""

SUFFIX = ".safetensors"

_LENGTH_BYTES = 8
_LONGEST_HEADER = 2**20
"""Of a model file's description and list of tensors; those of published networks take 6 kB."""

_METADATA_KEY = "floodem"

Kind = Literal["shipped", "fetched", "fetchable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedNetwork:
    """A network that has a name.

    Attributes
    ----------
    kind
        ``fetchable`` where it is not on this machine.
    path
        Its file, where it is one of its own.
    facts
        What the file says of itself, as in its description; empty when it is not here or
        damaged.
    damage
        Why it cannot be used, or "".
    """

    name: str
    kind: Kind
    path: Path | None
    facts: dict[str, Any]
    damage: str = ""


def data_folder() -> Path:
    """Return this user's folder for what floodem keeps between runs; it need not exist.

    Raises
    ------
    OptionError
        When the system does not say where users' data are.
    """
    named = os.environ.get(HOME_VARIABLE)
    if named:
        return Path(named)
    try:
        return _users_data() / "floodem"
    except RuntimeError as error:  # no home folder
        raise OptionError(
            f"this system names no folder for your data ({error}): set {HOME_VARIABLE} to one"
        ) from error


def _users_data() -> Path:
    """Return where programs keep a user's data on this system."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support"
    named = os.environ.get("XDG_DATA_HOME", "")
    # The XDG Base Directory Specification has relative paths ignored.
    return Path(named) if os.path.isabs(named) else Path.home() / ".local" / "share"


def model_path(name: str) -> Path:
    """Return where the fetched network of this name belongs."""
    return data_folder() / "models" / f"{name}{SUFFIX}"


def named_model(name: str) -> bytes | None:
    """Return the model file of a shipped or fetched network, or None where there is none.

    Raises
    ------
    StorageError
        When the system refuses to read it.
    """
    data = shipped_model(name)
    if data is not None or name not in FETCHABLE:
        return data
    path = model_path(name)
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error("read", path, error) from error


def is_fetched(name: str) -> bool:
    """Tell whether the published network of this name is on this machine."""
    return model_path(name).is_file()


def unknown_model(name: str) -> str:
    """Say in one sentence that a name or path is no model, and what could be given instead."""
    beside = Path(f"{name}{SUFFIX}")
    if beside.is_file():
        return f"no model file {name}: give --model {beside}, which is there"
    fetched = ", ".join(one for one in FETCHABLE if is_fetched(one))
    missing = ", ".join(one for one in FETCHABLE if not is_fetched(one))
    ways = f"give the path of a .safetensors model, one that floodem ships ({', '.join(SHIPPED)})"
    if fetched:
        ways += f", one that was fetched ({fetched})"
    if missing and name not in FETCHABLE:
        ways += f", fetch a published one ({missing}) with `floodem fetch NAME`"
    ways += (
        ", or make one with `floodem train` or, from a TensorFlow checkpoint, with "
        "`floodem import-model`"
    )
    if name in FETCHABLE:
        return f"no model file {name}: `floodem fetch {name}` brings the published one; or {ways}"
    return f"no model file {name}: {ways}"


def networks() -> list[NamedNetwork]:
    """Return all networks that have a name: shipped, fetched, fetchable.

    Raises
    ------
    StorageError
        When the system refuses to read one.
    """
    found = [_described(name, kind="shipped", path=None) for name in SHIPPED]
    for name in FETCHABLE:
        if is_fetched(name):
            found.append(_described(name, kind="fetched", path=model_path(name)))
        else:
            found.append(NamedNetwork(name=name, kind="fetchable", path=None, facts={}))
    return found


def _described(name: str, *, kind: Kind, path: Path | None) -> NamedNetwork:
    data = named_model(name)
    assert data is not None
    try:
        facts, damage = read_facts(data), ""
    except ModelError as error:
        facts, damage = {}, str(error)
    return NamedNetwork(name=name, kind=kind, path=path, facts=facts, damage=damage)


def read_facts(data: bytes) -> dict[str, Any]:
    """Return the description in a model file as plain values, without its weights or torch.

    Raises
    ------
    ModelError
        When it has none.
    """
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    header = data[_LENGTH_BYTES : _LENGTH_BYTES + min(length, _LONGEST_HEADER)]
    try:
        facts = json.loads(json.loads(header)["__metadata__"][_METADATA_KEY])
    except (KeyError, RecursionError, TypeError, ValueError) as error:
        raise ModelError(
            f"its description cannot be read ({type(error).__name__}): fetch or copy it again"
        ) from error
    if not isinstance(facts, dict):
        raise ModelError("its description is no JSON object: fetch or copy it again")
    return facts
