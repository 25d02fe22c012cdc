"""Which files a name means: a path, glob or sharded name comes in, files in order go out.

``coords@25`` and ``coords-*-of-00025`` mean the shards ``coords-00000-of-00025`` to
``coords-00024-of-00025``, with whatever follows (``.gz``); all of them have to be there.
They are found by counting, so that http, which has no lists, can be asked for them too.
Other globs are listed: on a disk, in gs and in s3.
"""

from __future__ import annotations

import fnmatch
import glob
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from floodem.errors import UsageError, VolumeNotFoundError
from floodem.volumes.servers.addresses import (
    HTTP_SCHEMES,
    child_address,
    is_remote,
    split_address,
    without_secrets,
)
from floodem.volumes.servers.patience import AccessDeniedError
from floodem.volumes.servers.size import find_http_file
from floodem.volumes.servers.transport import open_store

MOST_SHARDS = 10**5 - 1
"""They are numbered with five digits."""

_AT = re.compile(r"@(\d+)")
_COUNTED = re.compile(r"-(?:\*|\?{5})-of-(\d{5})(?!\d)")
_BARE = re.compile(r"(?<!-\d{5})-of-(\d{5})(?!\d)")
_ALL_SETS = re.compile(r"-(?:\*|\?{5})-of-(?:\*|\?{5})")
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})(?!\d)")
_WILD = re.compile(r"[*?\[]")
_NAMED = 3
_ASKED_AT_ONCE = 16


def record_files(pattern: str) -> list[str]:
    """Return the TFRecord files that a name means, in their order.

    Parameters
    ----------
    pattern
        A file, a glob (``coords-*``), ``path@N`` or ``path-*-of-000NN`` for N shards, or
        several of these by commas; on a disk, or at http(s), gs or s3 addresses.

    Raises
    ------
    UsageError
        When it cannot be understood, or http is to be listed.
    VolumeNotFoundError
        When nothing is there; or shards are missing, which are named.
    StorageError
        When a server refuses.
    """
    if not pattern.strip():
        raise UsageError("the name of the coordinates is empty: give a file, a glob or path@N")
    if not is_remote(pattern) and Path(pattern).is_file():
        return [pattern]
    found = [file for part in pattern.split(",") for file in _expanded(part.strip())]
    return list(dict.fromkeys(found))


def _expanded(part: str) -> list[str]:
    if not part:
        raise UsageError("one of the names of coordinates is empty: take out a comma")
    if not is_remote(part) and Path(part).is_file():
        return [part]
    folder, name, query = _split(part)
    for counted in (_AT, _COUNTED, _BARE):
        match = counted.search(name)
        before, after = (name[: match.start()], name[match.end() :]) if match else ("", "")
        if match is not None and not _WILD.search(before + after):
            count = _shard_count(match[1], part=part)
            files = [
                f"{folder}{before}-{one:05}-of-{count:05}{after}{query}" for one in range(count)
            ]
            _require_all(files, _missing(files, folder, prefix=f"{before}-"), part=part)
            return files
    if _WILD.search(name if is_remote(part) else part):
        return _listed(part)
    return [part]


def _split(part: str) -> tuple[str, str, str]:
    """Take a name apart: what lies before it, the name itself, and the query behind it."""
    path, mark, query = part.partition("?") if is_http(part) else (part, "", "")
    at = max(path.rfind("/"), path.rfind("\\") if not is_remote(part) else -1) + 1
    return path[:at], path[at:], mark + query


def is_http(address: str) -> bool:
    """Tell whether an address is one of http, where ? begins a query."""
    return is_remote(address) and split_address(address)[0] in HTTP_SCHEMES


def _shard_count(digits: str, *, part: str) -> int:
    count = int(digits[: len(str(MOST_SHARDS)) + 1])
    if not 1 <= count <= MOST_SHARDS:
        raise UsageError(f"{without_secrets(part)} means {count} shards: 1 to {MOST_SHARDS} exist")
    return count


def _require_all(files: Sequence[str], missing: Sequence[str], *, part: str) -> None:
    if not missing:
        return
    shown = without_secrets(part)
    if len(missing) == len(files):
        raise VolumeNotFoundError(
            f"there is none of the {len(files)} files of {shown}, as {_name(files[0])}: check the "
            "address"
        )
    more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
    raise VolumeNotFoundError(
        f"of the {len(files)} files of {shown}, {', '.join(map(_name, missing[:_NAMED]))}{more} "
        "are missing: bring them there too, or name those to use, as in coords-0000[0-3]-of-00025"
    )


def _name(file: str) -> str:
    return without_secrets(file).replace("\\", "/").rpartition("/")[2]


def _missing(files: Sequence[str], folder: str, *, prefix: str) -> list[str]:
    if not is_remote(files[0]):
        return [file for file in files if not Path(file).is_file()]
    if not is_http(files[0]):
        names = [file.removeprefix(folder) for file in files]
        try:
            there = set(open_store(folder).names(prefix))
        except AccessDeniedError:  # some buckets give what they do not list
            return []
        return [file for file, name in zip(files, names, strict=True) if name not in there]
    with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
        return [
            file
            for file, is_there in zip(files, pool.map(_is_there, files), strict=True)
            if not is_there
        ]


def _is_there(address: str) -> bool:
    try:
        find_http_file(address)
    except VolumeNotFoundError:
        return False
    return True


def _listed(part: str) -> list[str]:
    """Return what a glob matches, sorted; sets of shards that it means have to be complete."""
    files = sorted(_remote_matches(part) if is_remote(part) else glob.iglob(part))
    if not is_remote(part):
        files = [file for file in files if Path(file).is_file()]
    if not files:
        raise VolumeNotFoundError(f"no file is called {without_secrets(part)}: check the address")
    if _ALL_SETS.search(_split(part)[1]):
        for wanted in _sets(files):
            _require_all(wanted, sorted(set(wanted) - set(files)), part=part)
    return files


def _sets(files: Iterable[str]) -> Iterator[list[str]]:
    """Yield, for each set of shards of which there is one, the names of all."""
    known = set()
    for match in (match for match in map(_SHARD.search, files) if match):
        before, after = match.string[: match.start()], match.string[match.end() :]
        if (before, match[2], after) not in known and int(match[2]) <= MOST_SHARDS:
            known.add((before, match[2], after))
            yield [f"{before}-{one:05}-of-{match[2]}{after}" for one in range(int(match[2]))]


def _remote_matches(part: str) -> list[str]:
    scheme, place, path, _ = split_address(part)
    if scheme in HTTP_SCHEMES:
        raise UsageError(
            f"{without_secrets(part)} cannot be looked for, as http has no lists: say how many "
            "there are, as in coords-*-of-00025 or coords@25"
        )
    folders = list(itertools.takewhile(lambda one: not _WILD.search(one), path.split("/")[:-1]))
    base = f"{scheme}://{place}/{'/'.join(folders)}"
    wanted = path.split("/")[len(folders) :]
    fixed = _WILD.split(wanted[0], maxsplit=1)[0]
    names = open_store(base).names(fixed)
    return [child_address(base, name) for name in names if _matches(name.split("/"), wanted)]


def _matches(parts: Sequence[str], wanted: Sequence[str]) -> bool:
    return len(parts) == len(wanted) and all(
        fnmatch.fnmatchcase(part, one) for part, one in zip(parts, wanted, strict=True)
    )
