# -*- test-case-name: tests.sqlite.test_file,tests.sqlite.test_soundness -*-
"""Queries on the embedded file. The type of a column is known to the author of the statement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import apsw

from openhqm.errors import NotDurable

READ_ERRORS = (apsw.CorruptError, apsw.NotADBError, apsw.IOError, apsw.CantOpenError, apsw.BusyError)


class Reader(apsw.Connection):
    """A connection that tells ``failed`` of each error in reading, whose callers get `NotDurable`."""

    failed: Callable[[apsw.Error], NotDurable]


def fetch_all(connection: apsw.Connection, statement: str, values: Sequence[Any] = ()) -> list[Any]:
    """All rows, as tuples."""
    try:
        return connection.execute(statement, tuple(values)).fetchall()
    except READ_ERRORS as error:
        raise _told(connection, error) from None


def fetch_one(connection: apsw.Connection, statement: str, values: Sequence[Any] = ()) -> Any:
    """The first row as a tuple, or None."""
    try:
        return connection.execute(statement, tuple(values)).fetchone()
    except READ_ERRORS as error:
        raise _told(connection, error) from None


def fetch_through(
    connection: apsw.Connection, statement: str, values: Sequence[Any], last: Callable[[Any], bool]
) -> list[Any]:
    """The rows, as tuples, up to and with the first for which ``last`` is true. Those behind it are not read."""
    found = []
    try:
        rows = connection.execute(statement, tuple(values))
        try:
            for row in rows:
                found.append(row)
                if last(row):
                    break
        finally:
            rows.close(True)  # else what was left unread would keep its read transaction open
    except READ_ERRORS as error:
        raise _told(connection, error) from None
    return found


def _told(connection: apsw.Connection, error: apsw.Error) -> Exception:
    return connection.failed(error) if isinstance(connection, Reader) else error
