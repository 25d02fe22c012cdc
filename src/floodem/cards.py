"""Notice an NVIDIA card, and say which torch build fits it: system's answers in, one line out.

Standard library only, because tasks.py asks before anything is installed. What
runs on what is the published support matrix of torch 2.11 to 2.14: CUDA 13.0
builds from compute capability 7.5 on, CUDA 12.6 builds from 5.0 to 9.x, on
64-bit ARM from 8.0 (pytorch/pytorch issues 172663, 178665, 190355). torch 2.15
drops the 12.6 builds. Drivers: CUDA 13 needs 580, CUDA 12 needs 525 (528 on
Windows; CUDA Toolkit release notes, minor version compatibility).
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

TORCH_VERSION = "2.13.0"
"""The torch that floodem is tested with; equal to the pin in constraints.txt."""

TORCH_INDEX = "https://download.pytorch.org/whl"
"""Where torch's builds lie, one folder per CUDA version."""

QUERY_TIMEOUT_S = 20.0
"""nvidia-smi needs a second or two when it has to wake the card."""

NEWEST_BUILD = "cu130"
OLDER_BUILD = "cu126"
_NEWEST_CAPABILITY = (7, 5)
_OLDER_CAPABILITIES = {"x86_64": ((5, 0), (9, 9)), "arm64": ((8, 0), (9, 9))}
_NEWEST_DRIVER = 580
_OLDER_DRIVER = {"Linux": 525, "Windows": 528}

_MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}
_FULL_QUERY = ("--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader")
_SHORT_QUERY = ("--query-gpu=name,driver_version", "--format=csv,noheader")

Runner = Callable[[Sequence[str]], str | None]
"""Run a command and return what it printed, or None when it is absent or fails."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One NVIDIA card; what the system does not tell is None."""

    name: str
    capability: tuple[int, int] | None
    driver: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What to install for a card.

    Attributes
    ----------
    arguments
        What follows ``python -m pip``; empty when no build of torch fits as things are.
    sentence
        The same for a reader: the line to type, or what stands in the way.
    """

    arguments: tuple[str, ...]
    sentence: str


def run_quietly(command: Sequence[str]) -> str | None:
    """Return what a command prints, or None when it is absent, fails or hangs."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            check=True,
            timeout=QUERY_TIMEOUT_S,
            encoding="utf-8",
            errors="replace",
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def nvidia_smi() -> str | None:
    """Return the path of nvidia-smi, also where it is not on the search path."""
    found = shutil.which("nvidia-smi")
    if found:
        return found
    windows = os.environ.get("SYSTEMROOT", r"C:\Windows")
    programs = os.environ.get("PROGRAMFILES", r"C:\Program Files")
    known = (
        Path(windows, "System32", "nvidia-smi.exe"),
        Path(programs, "NVIDIA Corporation", "NVSMI", "nvidia-smi.exe"),
        Path("/usr/lib/wsl/lib/nvidia-smi"),
    )
    return next((str(path) for path in known if path.is_file()), None)


def find_card(
    *,
    run: Runner = run_quietly,
    smi: Callable[[], str | None] = nvidia_smi,
    driver_folder: Path = Path("/proc/driver/nvidia"),
) -> Card | None:
    """Return the newest NVIDIA card of this machine, or None when there is none.

    A card hidden by an empty ``CUDA_VISIBLE_DEVICES`` counts as none: someone
    decided so.
    """
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in {"", "-1", "NoDevFiles"}:
        return None
    program = smi()
    if program is not None:
        cards = parse_query(run([program, *_FULL_QUERY]))
        cards = cards or parse_query(run([program, *_SHORT_QUERY]))
        if cards:
            return max(cards, key=lambda card: card.capability or (0, 0))
    return _card_from_driver(driver_folder)


def parse_query(printed: str | None) -> list[Card]:
    """Read nvidia-smi's lines ``name, 8.6, 550.54.14`` or ``name, 390.157``."""
    cards = []
    for line in (printed or "").splitlines():
        fields = [field.strip() for field in line.rsplit(",", 2 if line.count(",") > 1 else 1)]
        if len(fields) < 2 or not re.match(r"\d+\.\d", fields[-1]):
            continue
        capability = re.fullmatch(r"(\d+)\.(\d+)", fields[1]) if len(fields) == 3 else None
        cards.append(
            Card(
                name=fields[0],
                capability=(int(capability[1]), int(capability[2])) if capability else None,
                driver=int(fields[-1].split(".")[0]),
            )
        )
    return cards


def _card_from_driver(folder: Path) -> Card | None:
    models = sorted(folder.glob("gpus/*/information"))
    if not models:
        return None
    model = re.search(r"Model:\s*(.+)", models[0].read_text(encoding="utf-8", errors="replace"))
    try:
        text = (folder / "version").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    driver = re.search(r"\s(\d{3})\.\d+", text)
    return Card(
        name=model[1].strip() if model else "NVIDIA card",
        capability=None,
        driver=int(driver[1]) if driver else None,
    )


def advise(
    card: Card, *, system: str = platform.system(), machine: str = platform.machine()
) -> Advice:
    """Say how to install the torch build that fits this card, driver and platform."""
    kind = _MACHINES.get(machine.lower())
    if system not in {"Linux", "Windows"} or kind is None:
        return _nothing(f"torch has no CUDA build for {system} on {machine}: use the CPU")
    about = f"{card.name} (driver {card.driver or 'unknown'})"
    older_from, older_to = _OLDER_CAPABILITIES[kind]
    capability = card.capability
    fits_newest = capability is None or capability >= _NEWEST_CAPABILITY
    fits_older = capability is None or older_from <= capability <= older_to
    if not fits_newest and not fits_older:
        return _nothing(
            f"{about} has compute capability {_dotted(capability)}, too old for torch "
            f"{TORCH_VERSION}: use the CPU"
        )
    driver = card.driver if card.driver is not None else _NEWEST_DRIVER
    if fits_newest and driver >= _NEWEST_DRIVER:
        return _build(NEWEST_BUILD)
    if fits_older and driver >= _OLDER_DRIVER[system]:
        return _build(OLDER_BUILD)
    needed = _OLDER_DRIVER[system] if fits_older else _NEWEST_DRIVER
    return _nothing(
        f"{about} needs driver {needed} or newer: update the NVIDIA driver and ask again"
    )


def _build(build: str) -> Advice:
    address = f"{TORCH_INDEX}/{build}"
    arguments = ("install", f"torch=={TORCH_VERSION}+{build}", "--index-url", address)
    return Advice(arguments=arguments, sentence=f"python -m pip {' '.join(arguments)}")


def _nothing(sentence: str) -> Advice:
    return Advice(arguments=(), sentence=sentence)


def _dotted(capability: tuple[int, int] | None) -> str:
    return "unknown" if capability is None else f"{capability[0]}.{capability[1]}"


def unused_card_notice(card: Card, advice: Advice, *, torch_version: str) -> str:
    """Return one sentence for someone whose torch does not use their card."""
    start = f"this machine has an NVIDIA card ({card.name}), which torch {torch_version} cannot use"
    if not advice.arguments:
        return f"{start}: {advice.sentence}"
    return f"{start}; for the build that can: {advice.sentence}"
