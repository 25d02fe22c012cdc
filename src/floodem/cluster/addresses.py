"""What stands behind ``--cluster``: a text comes in, what kind of cluster it names goes out."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from floodem.cluster.slurm import SlurmOptions, nearest, parse_slurm
from floodem.errors import OptionError, VolumeNotFoundError
from floodem.files import storage_error

FORMAT_VERSION = 1
POSSIBLE = (
    "write local:N for N workers on this machine, tls://HOST:PORT of a Dask scheduler, or a TOML "
    "file with [slurm] or [scheduler]"
)

_LOCAL = re.compile(r"local:(\d{1,4})", re.ASCII)
_ADDRESS = re.compile(
    r"(?P<scheme>tls|tcp)://(?P<host>[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\])"
    r":(?P<port>\d{1,5})",
    re.ASCII,
)
_HIGHEST_PORT = 65535
_MOST_SHOWN = 80
_MOST_BYTES = 2**16
"""A file about a cluster has twenty lines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalWorkers:
    """Workers on this machine, which end with the run."""

    workers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerAddress:
    """A scheduler that somebody else started, with its workers.

    Attributes
    ----------
    address
        ``tls://host:port`` or ``tcp://host:port``.
    ca_file, cert_file, key_file
        PEM files for TLS; None: those of Dask's own configuration.
    """

    address: str
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    @property
    def is_encrypted(self) -> bool:
        """Tell whether both sides show certificates."""
        return self.address.startswith("tls://")


ClusterAddress = LocalWorkers | SchedulerAddress | SlurmOptions


def parse_cluster(text: str, *, is_insecure: bool = False) -> ClusterAddress:
    """Return what a text names, reading the TOML file if it is one.

    Parameters
    ----------
    text
        ``local:4``, ``tls://host:8786``, ``tcp://host:8786`` or the path of a TOML file.
    is_insecure
        Allow ``tcp://``: whoever reaches such a scheduler may run code as its user.

    Raises
    ------
    OptionError
        When it is none of these, or the file has wrong keys or values.
    VolumeNotFoundError
        When there is no such file.
    """
    if (local := _LOCAL.fullmatch(text)) is not None:
        if int(local[1]) < 1:
            raise OptionError(f"{text} has no workers: write local:N with N from 1")
        return LocalWorkers(workers=int(local[1]))
    if "://" in text:
        found = SchedulerAddress(address=_checked_address(text, source=""))
        _require_encryption(found, is_insecure=is_insecure)
        return found
    if not text.endswith(".toml"):
        raise OptionError(f"{text!r} names no cluster: {POSSIBLE}")
    return _read_file(Path(text), is_insecure=is_insecure)


def _read_file(path: Path, *, is_insecure: bool) -> ClusterAddress:
    values = _read_toml(path)
    version = values.pop("version", None)
    if version != FORMAT_VERSION:
        raise OptionError(
            f"{path} has version {version!r}: write version = {FORMAT_VERSION} in its first line"
        )
    known = ["slurm", "scheduler"]
    for key in values:
        if key not in known:
            raise OptionError(f"{path} has no key {key[:_MOST_SHOWN]!r}{nearest(key, known)}")
    if len(values) != 1 or not isinstance(table := next(iter(values.values())), dict):
        raise OptionError(f"{path} must have one table, [slurm] or [scheduler]")
    if "slurm" in values:
        return parse_slurm(table, source=str(path))
    found = _parse_scheduler(table, path=path)
    _require_encryption(found, is_insecure=is_insecure)
    return found


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        raise VolumeNotFoundError(f"no file {path} about a cluster: {POSSIBLE}") from None
    except OSError as error:
        raise storage_error("read", path, error) from error
    if len(content) > _MOST_BYTES:
        raise OptionError(f"{path} is too large to be about a cluster: give another file")
    try:
        return tomllib.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise OptionError(f"{path} is not a text in UTF-8 ({error}): save it as UTF-8") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise OptionError(f"{path} is not TOML ({error}): correct that line") from error


def _parse_scheduler(table: Mapping[str, Any], *, path: Path) -> SchedulerAddress:
    files = ["ca_file", "cert_file", "key_file"]
    known = ["address", *files]
    for key, value in table.items():
        if key not in known:
            raise OptionError(
                f"{path}: [scheduler] has no key {key[:_MOST_SHOWN]!r}{nearest(key, known)}"
            )
        if not isinstance(value, str) or not value or not value.isprintable():
            raise OptionError(
                f"{path}: [scheduler] {key} is {str(value)[:_MOST_SHOWN]!r}: write a text"
            )
    if "address" not in table:
        raise OptionError(f"{path}: [scheduler] has no address: write tls://HOST:PORT")
    address = _checked_address(table["address"], source=f"{path}: ")
    named = {name: path.parent / Path(table[name]).expanduser() for name in files if name in table}
    if named and len(named) < len(files):
        raise OptionError(f"{path}: [scheduler] needs all of {', '.join(files)}, or none")
    for name, file in named.items():
        if not file.is_file():
            raise VolumeNotFoundError(f"{path}: [scheduler] {name}: there is no file {file}")
    return SchedulerAddress(address=address, **named)


def _checked_address(text: str, *, source: str) -> str:
    match = _ADDRESS.fullmatch(text)
    if match is None or not 1 <= int(match["port"]) <= _HIGHEST_PORT:
        shown = re.sub(r"//[^/]*@", "//...@", text[:_MOST_SHOWN])  # no password
        raise OptionError(f"{source}{shown!r} is no address of a scheduler: {POSSIBLE}")
    return text


def _require_encryption(found: SchedulerAddress, *, is_insecure: bool) -> None:
    if not found.is_encrypted and not is_insecure:
        raise OptionError(
            f"{found.address} is not encrypted, and whoever reaches it may run programs as its "
            "user: start the scheduler with TLS and write tls://, or allow it with --insecure"
        )
