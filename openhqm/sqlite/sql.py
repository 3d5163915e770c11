# -*- test-case-name: tests.sqlite.test_file,tests.sqlite.test_soundness -*-
"""Queries on the embedded file. The type of a column is known to the author of the statement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import apsw

from openhqm.errors import NotDurable

READ_ERRORS = (apsw.CorruptError, apsw.NotADBError, apsw.IOError, apsw.CantOpenError)


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


def _told(connection: apsw.Connection, error: apsw.Error) -> Exception:
    return connection.failed(error) if isinstance(connection, Reader) else error
