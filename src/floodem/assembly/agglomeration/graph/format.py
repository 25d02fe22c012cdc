"""The file of a segment graph: a path in, a checked SQLite connection out; and what it holds.

For other programs: the file is an SQLite 3 database with the application id 0x464C4D47
("FLMG") and the version of its tables as user_version. It has these tables and nothing else,
no views, triggers or further indices; a file with more is refused here::

    header     one row: text, a JSON object (floodem.assembly.agglomeration.graph.records)
    rules      number, time, rule, note      thresholds as JSON; the highest number is in force
    decisions  number, time, action, id_a, id_b, entry, note      what people decided, in order
    edges      id_a, id_b, z, y, x, distance_nm, then the fields of PointScores in their order

**Ids** are 64 bits without a sign, and integers of SQLite have one: an id of 2^63 or more is
stored less 2^64 (two's complement). Ids below are stored as they are. In order of ids a
table is by ``ORDER BY id_a < 0, id_a, id_b < 0, id_b``.

**edges**: id_a is the smaller id, and a pair occurs once. z, y, x is the voxel of the
decision point in the frame of the segmentation. Yes and no are 1 and 0, lengths nanometres.

**decisions**: ``merge`` and ``split`` name a pair and overrule the rule for it; ``undo``
names an earlier entry, which then counts as not written; ``undo-all`` turns all merges off,
those of the rule and of earlier entries. Entries are never removed, so that an undo can be
undone (floodem.assembly.agglomeration.graph.ledger).

Times are UTC, and empty for what the graph was made with.
"""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
from jaxtyping import Int64, Shaped, UInt64

from floodem.assembly.agglomeration.resegmentation.scores import PointScores
from floodem.errors import (
    FloodemError,
    RunConflictError,
    StorageError,
    UnsafeFileError,
    VolumeFormatError,
    VolumeNotFoundError,
)
from floodem.files import storage_error

APPLICATION_ID = 0x464C4D47
GRAPH_VERSION = 1

MAX_TEXT_BYTES = 2**20
"""No header, rule or note is longer, and no row read from a file may be."""

WAITS_S = 10.0
"""So long a command waits for another that is changing the file, which takes milliseconds."""

PLACE_COLUMNS = ("z", "y", "x")
SCORE_COLUMNS: dict[str, type] = {"distance_nm": float, **get_type_hints(PointScores)}
"""What is known of an edge besides its ids and place, with the Python type of each."""

_SQL_TYPES = {float: "REAL", int: "INTEGER", bool: "INTEGER"}
_EDGE_TYPES = {
    **dict.fromkeys(("id_a", "id_b", *PLACE_COLUMNS), "INTEGER"),
    **{name: _SQL_TYPES[kind] for name, kind in SCORE_COLUMNS.items()},
}

TABLES = {
    "header": "CREATE TABLE header (id INTEGER PRIMARY KEY, text TEXT NOT NULL)",
    "rules": (
        "CREATE TABLE rules (number INTEGER PRIMARY KEY, time TEXT NOT NULL, "
        "rule TEXT NOT NULL, note TEXT NOT NULL)"
    ),
    "decisions": (
        "CREATE TABLE decisions (number INTEGER PRIMARY KEY, time TEXT NOT NULL, "
        "action TEXT NOT NULL, id_a INTEGER, id_b INTEGER, entry INTEGER, note TEXT NOT NULL)"
    ),
    "edges": (
        "CREATE TABLE edges ("
        + "".join(f"{name} {kind} NOT NULL, " for name, kind in _EDGE_TYPES.items())
        + "PRIMARY KEY (id_a, id_b)) WITHOUT ROWID"
    ),
}

INSERT_EDGE = f"INSERT INTO edges VALUES ({', '.join('?' * len(_EDGE_TYPES))})"  # noqa: S608 - no text of a user
_MAGIC = b"SQLite format 3\0"
_HEAD_BYTES = 100
_JOURNAL_AT, _VERSION_AT, _ID_AT = 18, 60, 68
"""Where the file's head has its two journal versions, user_version and application_id
(https://www.sqlite.org/fileformat.html, "The Database Header")."""

_LEFT_BESIDE = ("-journal", "-wal", "-shm")
"""What SQLite puts beside a file while it is changed."""

_NO_WAL = b"\x01\x01"
_PRIMARY_CODE = 0xFF
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_REFUSED = frozenset(
    {
        *(sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY),
        *(sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM),
    }
)


def stored_ids(ids: UInt64[np.ndarray, "ids"]) -> Int64[np.ndarray, "ids"]:
    """Return ids as they stand in the file."""
    return np.ascontiguousarray(ids).view(np.int64)


def ids_of(stored: Int64[np.ndarray, "ids"]) -> UInt64[np.ndarray, "ids"]:
    """Return the ids that `stored_ids` gave."""
    return np.ascontiguousarray(stored).view(np.uint64)


def stored_id(one: int) -> int:
    """Return an id as it stands in the file."""
    return one - 2**64 if one >= 2**63 else one


def id_of(stored: int) -> int:
    """Return the id that `stored_id` gave."""
    return stored % 2**64


@contextlib.contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Turn what SQLite says about a graph's file into one sentence.

    Raises
    ------
    RunConflictError
        When another process is changing the file.
    StorageError
        When the disk refuses.
    UnsafeFileError
        When a text in it is absurdly long.
    VolumeFormatError
        When the file is damaged.
    """
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError) as error:
        # What SQLite says about a damaged file may quote it.
        raise _refusal(path, error) from error


def _refusal(path: Path, error: sqlite3.Error | UnicodeDecodeError) -> FloodemError:
    code = getattr(error, "sqlite_errorcode", None)
    primary = None if code is None else code & _PRIMARY_CODE
    if primary in _BUSY:
        return RunConflictError(
            f"another process is changing the segment graph {path}: wait for it, and run the "
            "same command again"
        )
    if primary in _REFUSED:
        return StorageError(
            f"cannot read or write {path}: {error}; check the address, the rights and the free "
            "space"
        )
    if primary == sqlite3.SQLITE_TOOBIG or isinstance(error, sqlite3.DataError):
        return UnsafeFileError(
            f"{path} holds a text of more than {MAX_TEXT_BYTES} bytes, as no segment graph does: "
            "do not use it"
        )
    return VolumeFormatError(
        f"{path} cannot be used as a segment graph, because it is damaged ({error}): make it "
        "anew with `floodem agglomerate`, or take a copy"
    )


def connect(path: Path, *, writable: bool) -> sqlite3.Connection:
    """Open the file of a segment graph; nothing in it is executed.

    Raises
    ------
    VolumeNotFoundError
        When there is none.
    VolumeFormatError
        When it is something else, damaged, or of another version.
    UnsafeFileError
        When it has tables, views or triggers that no segment graph has.
    StorageError, RunConflictError
        When the disk refuses, or another process is changing it.
    """
    _require_head(path)
    with refusing(path):
        connection = _connected(path, options="mode=rw")
    try:
        with refusing(path):
            _require_tables(connection, path)
            if not writable:
                # Opened for writing all the same: what a killed writer left half done is
                # taken back by the first reader.
                connection.execute("PRAGMA query_only = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def create(path: Path) -> sqlite3.Connection:
    """Make the file of an empty segment graph, under a name that nobody else uses.

    Raises
    ------
    StorageError
        When the disk refuses.
    """
    with refusing(path):
        connection = _connected(path, options="mode=rwc")
        # Whoever is killed leaves a file of a temporary name, which nobody opens.
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {GRAPH_VERSION}")
        for sql in TABLES.values():
            connection.execute(sql)
    return connection


def settle(path: Path) -> None:
    """Finish what a killed writer left of a file that is to be replaced.

    Its journal would otherwise be taken for that of the new file.

    Raises
    ------
    RunConflictError
        When another process is changing the file.
    StorageError
        When the disk refuses.
    """
    left = [path.with_name(path.name + ending) for ending in _LEFT_BESIDE]
    if not path.exists() and not any(one.exists() for one in left):
        return
    try:
        with contextlib.closing(connect(path, writable=True)) as connection, refusing(path):
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
    except (VolumeFormatError, VolumeNotFoundError, UnsafeFileError):
        pass  # what is replaced need not be sound
    for one in left:
        try:
            one.unlink(missing_ok=True)
        except OSError as error:
            raise storage_error("remove", one, error) from error


def _connected(path: Path, *, options: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?{options}", uri=True, timeout=WAITS_S, isolation_level=None
    )
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_TEXT_BYTES)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.text_factory = _text
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    return connection


def _text(data: bytes) -> str:
    """Return text of a file, damaged or not; what it says is checked where it is used."""
    return data.decode(errors="replace")


def _require_head(path: Path) -> None:
    """Look at the first bytes, before SQLite does."""
    try:
        with open(path, "rb") as handle:
            head = handle.read(_HEAD_BYTES)
    except FileNotFoundError:
        raise VolumeNotFoundError(
            f"there is no segment graph at {path}: check the address, or make one with `floodem "
            "agglomerate`"
        ) from None
    except OSError as error:
        raise storage_error("read", path, error) from error
    is_graph = (
        len(head) == _HEAD_BYTES
        and head.startswith(_MAGIC)
        and int.from_bytes(head[_ID_AT : _ID_AT + 4], "big") == APPLICATION_ID
    )
    if not is_graph:
        raise VolumeFormatError(
            f"{path} is no segment graph of floodem: give the file that `floodem agglomerate` made"
        )
    version = int.from_bytes(head[_VERSION_AT : _VERSION_AT + 4], "big")
    if version != GRAPH_VERSION:
        raise VolumeFormatError(
            f"{path} is a segment graph of version {version}, and this floodem reads version "
            f"{GRAPH_VERSION}: use the floodem that made it, or make it anew"
        )
    if head[_JOURNAL_AT : _JOURNAL_AT + 2] != _NO_WAL:
        raise VolumeFormatError(
            f"{path} was put into another journal mode by another program: set it back with "
            "`PRAGMA journal_mode = DELETE`"
        )


def _require_tables(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse what is not exactly our tables."""
    found = connection.execute(
        "SELECT type, name, sql FROM sqlite_master LIMIT ?", (len(TABLES) + 1,)
    ).fetchall()
    for kind, name, sql in found:
        if kind != "table" or name not in TABLES:
            raise UnsafeFileError(
                f"{path} holds the {kind} {name!r:.60}, which no segment graph has: do not use it, "
                "or remove that with the program that added it"
            )
        if sql != TABLES[name]:
            raise VolumeFormatError(
                f"{path} has other columns in {name} than this floodem writes: use the floodem "
                "that made it, or make it anew"
            )
    missing = sorted(set(TABLES) - {name for _, name, _ in found})
    if missing:
        raise VolumeFormatError(
            f"{path} is damaged: the table {missing[0]} is missing; take a copy"
        )


def columns_of(
    connection: sqlite3.Connection, names: Sequence[str], *, where: str, kind: Any
) -> Shaped[np.ndarray, "rows columns"]:
    """Return columns of the edges as one array, without keeping a Python object for a number.

    Parameters
    ----------
    names
        Of columns that all hold one type.
    where
        A clause for the rows, or nothing.
    kind
        Type of the numbers: int64 or float64.
    """
    cursor = connection.execute(f"SELECT {', '.join(names)} FROM edges {where}")  # noqa: S608 - names of ours
    return np.fromiter(itertools.chain.from_iterable(cursor), kind).reshape(-1, len(names))


def has_wrong_types(connection: sqlite3.Connection, where: str) -> bool:
    """Tell whether an edge holds what is no number of its column's type.

    Columns of SQLite hold whatever is written to them.
    """
    wrong = " OR ".join(f"typeof({name}) <> '{kind.lower()}'" for name, kind in _EDGE_TYPES.items())
    sql = f"SELECT EXISTS (SELECT 1 FROM (SELECT * FROM edges {where}) WHERE {wrong})"  # noqa: S608 - names of ours
    return bool(connection.execute(sql).fetchone()[0])
