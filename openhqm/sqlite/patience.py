# -*- test-case-name: tests.sqlite.test_patience -*-
"""Waiting for another program that has locked the embedded file: a backup, or a person with the ``sqlite3`` shell."""

from __future__ import annotations

import time
from threading import Lock

import apsw

LOCK_SECONDS = 2.0
"""How long a transaction waits for the lock until its writes are given up."""
PAUSE_SECONDS = 0.01
LOCKED = "another program has locked it"


def begin(connection: apsw.Connection) -> bool:
    """Begin a transaction that writes, at once. False: another program has locked the file."""
    try:
        connection.execute("BEGIN IMMEDIATE")
    except apsw.BusyError:
        return False
    return True


def begin_patiently(connection: apsw.Connection, in_use: Lock) -> None:
    """Begin a transaction that writes. Blocks while the file is locked; `apsw.BusyError` after `LOCK_SECONDS`.

    It takes ``in_use`` for each try. SQLite's own waiting would hold the connection all the time.
    """
    due = time.monotonic() + LOCK_SECONDS
    while True:
        with in_use:
            if begin(connection):
                return
        if time.monotonic() >= due:
            raise apsw.BusyError(LOCKED)
        time.sleep(PAUSE_SECONDS)
