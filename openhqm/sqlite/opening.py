# -*- test-case-name: tests.sqlite.test_file -*-
"""Making the embedded file, and opening it."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TypeVar

import apsw

from openhqm.errors import CannotStart
from openhqm.sqlite.schema import APPLICATION_ID, STEPS_UP, TABLES, VERSION
from openhqm.sqlite.sealed_tables import seal_tables
from openhqm.sqlite.shrinking import INCREMENTAL
from openhqm.sqlite.sql import fetch_all, fetch_one

C = TypeVar("C", bound=apsw.Connection)


def create(path: str, sealed: bool = False) -> None:
    """Make an empty database, which takes its name when it is complete: a half of one is never taken for ours.

    ``sealed``: it is encrypted.
    """
    new = f"{path}.new"
    for leftover in (new, f"{new}-journal"):
        with suppress(FileNotFoundError):
            os.remove(leftover)
    connection = open_database(new, apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE, apsw.Connection)
    try:
        connection.execute(f"PRAGMA auto_vacuum={INCREMENTAL}")  # no effect once there is a table
        with connection:
            connection.execute(TABLES)
            if sealed:
                seal_tables(connection)
            connection.execute("INSERT INTO meta VALUES ('secret', ?)", (os.urandom(32),))
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version={VERSION}")
    finally:
        connection.close()
    os.rename(new, path)
    directory = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def check_layout(connection: apsw.Connection, path: str) -> None:
    """Before anything is written: the file is ours, in this layout or one that `step_up` knows. `CannotStart`."""
    if fetch_one(connection, "PRAGMA application_id")[0] != APPLICATION_ID:
        raise CannotStart(f"{path} is some other program's database")
    version = fetch_one(connection, "PRAGMA user_version")[0]
    if version != VERSION and version not in STEPS_UP:
        raise CannotStart(
            f"{path} has layout {version}, and this OpenHQM reads layout {VERSION}: "
            "start the OpenHQM that wrote it, or move the file away to begin with an empty one"
        )


def step_up(connection: apsw.Connection) -> None:
    """Add what an older layout lacks: each step from one layout to the next as a whole."""
    while (version := fetch_one(connection, "PRAGMA user_version")[0]) in STEPS_UP:
        with connection:
            connection.execute(STEPS_UP[version])
            connection.execute(f"PRAGMA user_version={version + 1}")


def open_database(path: str, flags: int, make: type[C]) -> C:
    """A connection of the class ``make`` to the database at ``path``. It waits a second for one that is locked."""
    connection = make(path, flags=flags)
    connection.set_busy_timeout(1000)
    # Or SQLite plans some statements again for each value that they are given, which takes longer than running them.
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    return connection


def configure(connection: apsw.Connection, path: str) -> None:
    """How the connection that writes uses the file. `CannotStart` where the file system does not allow it."""
    for name, value, wanted in (
        ("journal_mode", "WAL", "wal"),
        ("synchronous", "FULL", 2),
        ("cache_size", "-8192", -8192),
        ("journal_size_limit", str(64 * 1024 * 1024), 64 * 1024 * 1024),
        ("wal_autocheckpoint", "1000", 1000),
    ):
        fetch_all(connection, f"PRAGMA {name}={value}")
        found = fetch_one(connection, f"PRAGMA {name}")[0]
        if found != wanted:
            raise CannotStart(f"{path}: PRAGMA {name} is {found}, not {wanted}, on this file system")
