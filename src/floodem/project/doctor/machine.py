"""What this machine can do: nothing in, findings about versions, cores, memory and cards out."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import floodem
from floodem.cards import TORCH_VERSION, Card, advise, find_card, unused_card_notice
from floodem.counting import counted
from floodem.errors import DeviceError
from floodem.memory import available_memory
from floodem.project.doctor.findings import Finding, Level
from floodem.volumes.parallel import usable_threads

PART = "machine"

LEAST_PYTHON = (3, 11)
"""As in pyproject.toml."""

LEAST_MEMORY = 4 * 10**9
"""Bytes: a block of 400^3 voxels at 48 bytes a voxel (floodem.flooding.job) is 3.1 GB."""

CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile")
"""Of /proc/cpuinfo, that torch's CPU kernels make use of."""

_CPUINFO = Path("/proc/cpuinfo")


def look_at_machine() -> Iterator[Finding]:
    """Yield what is found about programs, cores, memory and cards of this machine."""
    yield _python()
    yield _torch()
    yield _cores()
    yield _number_formats()
    yield _memory()
    yield from _cards()


def _python() -> Finding:
    version = platform.python_version()
    return Finding(
        level=Level.OK if sys.version_info >= LEAST_PYTHON else Level.PROBLEM,
        part=PART,
        what="python",
        says=f"Python {version}, floodem {floodem.__version__}, {platform.platform(terse=True)}",
        value={"python": version, "floodem": floodem.__version__},
        advice="" if sys.version_info >= LEAST_PYTHON else "install Python 3.11 or newer",
    )


def _torch() -> Finding:
    """Name the installed torch without loading it."""
    try:
        version = metadata.version("torch")
    except metadata.PackageNotFoundError:
        return Finding(
            level=Level.PROBLEM,
            part=PART,
            what="torch",
            says="torch is not installed",
            advice="install floodem again: python -m pip install . -c constraints.txt",
        )
    is_tested = version.split("+")[0] == TORCH_VERSION
    return Finding(
        level=Level.OK if is_tested else Level.NOTE,
        part=PART,
        what="torch",
        says=f"torch {version}",
        value=version,
        reason="" if is_tested else f"floodem is tested with torch {TORCH_VERSION}",
        advice="" if is_tested else "install with -c constraints.txt to have the tested versions",
    )


def _cores() -> Finding:
    there, usable = os.cpu_count() or 1, usable_threads()
    named = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    limits = {name: text for name, text in named.items() if text and text.isdecimal()}
    fewest = min([usable, *(int(text) for text in limits.values())])
    says = f"{counted(there, 'CPU core')}, of which this process may use {usable}"
    if fewest < usable:
        told = ", ".join(f"{name}={text}" for name, text in limits.items())
        return Finding(
            level=Level.NOTE,
            part=PART,
            what="cores",
            says=f"{says}; {told} holds the network to {fewest}",
            value={"cores": there, "usable": usable, "threads": fewest},
            advice=f"unset {' and '.join(limits)} where floodem runs alone",
        )
    return Finding(
        level=Level.OK,
        part=PART,
        what="cores",
        says=says,
        value={"cores": there, "usable": usable, "threads": usable},
    )


def cpu_flags() -> tuple[str, ...] | None:
    """Return those of `CPU_FLAGS` that this CPU has; None where the system does not say."""
    try:
        text = _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    lines = [line for line in text.splitlines() if line.startswith("flags")]
    if not lines:
        return None
    flags = set(lines[0].partition(":")[2].split())
    return tuple(name for name in CPU_FLAGS if name in flags)


def _number_formats() -> Finding:
    flags = cpu_flags()
    if flags is None:
        says = f"{platform.machine()} CPU; the system does not tell what it computes in"
    else:
        fast = {"avx512_bf16", "amx_bf16"} & set(flags)
        bfloat16 = "computes in bfloat16" if fast else "only imitates bfloat16"
        says = f"the CPU {bfloat16} ({', '.join(flags) or 'no vector extension that counts'})"
    return Finding(
        level=Level.OK,
        part=PART,
        what="number formats",
        says=f"{says}; --dtype auto is float32 there",
        value=None if flags is None else list(flags),
        reason="float32 is the only format whose results equal the reference voxel by voxel",
    )


def _memory() -> Finding:
    free = available_memory()
    if free is None:
        return Finding(
            level=Level.NOTE,
            part=PART,
            what="memory",
            says="the system does not tell how much memory is free",
            advice="give --block, as no block can be proposed from memory",
        )
    is_enough = free >= LEAST_MEMORY
    return Finding(
        level=Level.OK if is_enough else Level.WARNING,
        part=PART,
        what="memory",
        says=f"{free / 1e9:.1f} GB of memory are free",
        value=free,
        reason=""
        if is_enough
        else "a block of 400^3 voxels takes 3.1 GB while seeds are looked for",
        advice="" if is_enough else "end other programs, or give a small --block",
    )


def _cards() -> Iterator[Finding]:
    """Yield one finding for each card that torch can use, or for one that lies idle."""
    import torch

    from floodem.network.device import ask_torch, runs_on

    cuda = ask_torch()
    usable = [
        number
        for number, capability in enumerate(cuda.capabilities)
        if runs_on(cuda.architectures, capability=capability)
    ]
    for number in usable:
        yield _card(torch.device("cuda", number))
    if usable:
        return
    idle = find_card()
    if idle is None:
        yield Finding(
            level=Level.OK,
            part=PART,
            what="cards",
            says="no NVIDIA card: networks run on the CPU",
            value=[],
        )
    else:
        yield _idle_card(idle, torch_version=cuda.version)


def _card(device: object) -> Finding:
    import torch

    from floodem.network.device import DTYPE_NAMES, choose_dtype

    assert isinstance(device, torch.device)
    facts = torch.cuda.get_device_properties(device)
    free, total = torch.cuda.mem_get_info(device)
    able = []
    for name in DTYPE_NAMES:
        try:
            choose_dtype(name, device)
        except DeviceError:
            continue
        able.append(name)
    return Finding(
        level=Level.OK,
        part=PART,
        what="cards",
        says=(
            f"{device} is {facts.name}, compute capability {facts.major}.{facts.minor}, "
            f"{free / 1e9:.1f} of {total / 1e9:.1f} GB free; computes in {', '.join(able)}; "
            "--dtype auto is float32"
        ),
        value={
            "device": str(device),
            "name": facts.name,
            "capability": [facts.major, facts.minor],
            "free": free,
            "total": total,
            "dtypes": able,
        },
    )


def _idle_card(card: Card, *, torch_version: str) -> Finding:
    advice = advise(card)
    return Finding(
        level=Level.WARNING,
        part=PART,
        what="cards",
        says=unused_card_notice(card, advice, torch_version=torch_version),
        value={"name": card.name, "driver": card.driver},
        advice=advice.sentence,
    )
