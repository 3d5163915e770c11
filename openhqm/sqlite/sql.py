# -*- test-case-name: tests.sqlite.test_file -*-
"""Queries on the embedded file. The type of a column is known to the author of the statement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import apsw


def fetch_all(connection: apsw.Connection, statement: str, values: Sequence[Any] = ()) -> list[Any]:
    """All rows, as tuples."""
    return connection.execute(statement, tuple(values)).fetchall()


def fetch_one(connection: apsw.Connection, statement: str, values: Sequence[Any] = ()) -> Any:
    """The first row as a tuple, or None."""
    return connection.execute(statement, tuple(values)).fetchone()
