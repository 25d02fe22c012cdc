"""What stands around floodem: packages, a browser, disks and folders in; findings out."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from floodem.counting import counted
from floodem.project.doctor.findings import Finding, Level
from floodem.viewer.screenshot import BROWSER_PLACES, BROWSERS, DRIVER

PART = "machine"

EXTRAS = {
    "dm": "images of Digital Micrograph (.dm3, .dm4)",
    "tiff": "compressed TIFF files",
    "labels": "faster connected components",
    "train": "TensorBoard files while training",
    "shapes": "meshes and distances",
    "cluster": "Dask and SLURM",
    "view": "the viewer and screenshots",
    "notebooks": "the notebooks",
}
"""Extras that a user may want, and what each is for."""

LEAST_DISK = 10 * 10**9
"""Bytes: labels and records of a run on 1000^3 voxels, 8 and about 0.2 bytes a voxel."""

LONGEST_NAME = 143
"""Bytes: what eCryptfs, of encrypted home folders, leaves of the 255 of most file systems."""

_REQUIREMENT = re.compile(r"[A-Za-z0-9_.-]+")
_EXTRA = re.compile(r"""extra\s*==\s*["']([^"']+)["']""")


def look_around(destination: Path) -> Iterator[Finding]:
    """Yield what is found about extras, browser, disk, file names and the temporary folder.

    Parameters
    ----------
    destination
        Where results will go; it need not exist.
    """
    yield _extras()
    yield _browser()
    folder = _existing(destination)
    yield _disk(folder)
    yield _names(folder)
    yield _temporary()


def missing_packages(extra: str) -> list[str]:
    """Return the packages of an extra that are not installed."""
    missing = []
    for line in metadata.requires("floodem") or []:
        named, about = _REQUIREMENT.match(line), _EXTRA.search(line)
        if named is None or about is None or about[1] != extra or named[0] == "floodem":
            continue
        try:
            metadata.version(named[0])
        except metadata.PackageNotFoundError:
            missing.append(named[0])
    return missing


def _extras() -> Finding:
    try:
        missing = {name: gone for name in EXTRAS if (gone := missing_packages(name))}
    except metadata.PackageNotFoundError:
        return Finding(
            level=Level.NOTE,
            part=PART,
            what="extras",
            says="floodem runs from a folder that is not installed: its extras cannot be listed",
            advice="install it: python -m pip install -e . -c constraints.txt",
        )
    if not missing:
        return Finding(
            level=Level.OK,
            part=PART,
            what="extras",
            says=f"all extras are installed: {', '.join(EXTRAS)}",
            value={name: [] for name in EXTRAS},
        )
    named = "; ".join(f"{name} ({EXTRAS[name]})" for name in missing)
    return Finding(
        level=Level.NOTE,
        part=PART,
        what="extras",
        says=f"not installed: {named}",
        value={name: missing.get(name, []) for name in EXTRAS},
        advice=f'where needed: python -m pip install ".[{",".join(missing)}]" -c constraints.txt',
    )


def _browser() -> Finding:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    found = found or next((one for one in BROWSER_PLACES if Path(one).is_file()), None)
    driver = shutil.which(DRIVER)
    if found and driver:
        return Finding(
            level=Level.OK,
            part=PART,
            what="browser",
            says=f"{Path(found).name} and {DRIVER} for screenshots of the viewer",
            value=found,
        )
    return Finding(
        level=Level.NOTE,
        part=PART,
        what="browser",
        says=f"there is no {DRIVER if found else 'Chromium'}, which screenshots of the viewer need",
        value=found,
        advice="install chromium and chromium-driver for `floodem view --screenshot`; the viewer "
        "itself runs in any browser",
    )


def _existing(destination: Path) -> Path:
    folder = destination.absolute()
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return folder


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    is_enough = free >= LEAST_DISK
    return Finding(
        level=Level.OK if is_enough else Level.WARNING,
        part=PART,
        what="disk",
        says=f"{free / 1e9:.1f} GB are free in {folder}",
        value=free,
        reason="" if is_enough else "labels of 1000^3 voxels take 8 GB before compression",
        advice="" if is_enough else "free some room, or write results elsewhere",
    )


def _names(folder: Path) -> Finding:
    pathconf = getattr(os, "pathconf", None)
    longest = None
    with contextlib.suppress(OSError, ValueError):
        longest = None if pathconf is None else int(pathconf(folder, "PC_NAME_MAX"))
    if longest is None:
        return Finding(
            level=Level.OK,
            part=PART,
            what="file names",
            says=f"the system does not tell how long names in {folder} may be",
        )
    is_enough = longest >= LONGEST_NAME
    return Finding(
        level=Level.OK if is_enough else Level.WARNING,
        part=PART,
        what="file names",
        says=f"names of files in {folder} may have {longest} bytes",
        value=longest,
        advice="" if is_enough else "write results to another file system",
    )


def _temporary() -> Finding:
    try:
        folder = Path(tempfile.gettempdir())
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"floodem")
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Finding(
            level=Level.PROBLEM,
            part=PART,
            what="temporary folder",
            says=f"temporary files cannot be written: {error.strerror or error}",
            advice="set TMPDIR to a folder that can be written",
        )
    return Finding(
        level=Level.OK,
        part=PART,
        what="temporary folder",
        says=f"temporary files go to {folder}, where {counted(free // 10**9, 'GB', many='GB')} are "
        "free",
        value={"folder": str(folder), "free": free},
    )
