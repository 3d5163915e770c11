# -*- test-case-name: tests.queue.test_contracts -*-
"""The rows of requests that no fetch comes by at their key: they have a delay, or were released.

Everything here is given a connection, and runs inside an operation of `SqliteFile.write`.
"""

from __future__ import annotations

import apsw

from openhqm.sqlite.schema import queue_of_key
from openhqm.sqlite.sql import fetch_all


def delay(connection: apsw.Connection, key: int, rank: int, due: float) -> None:
    """Deliver a request whose key has the rank `DELAYED` from ``due`` on, with that rank: no fetch comes by its key."""
    connection.execute("INSERT INTO inflight VALUES (?, ?, ?, 0, ?)", (key, queue_of_key(key), rank, due))


UNBEGUN = "CREATE INDEX IF NOT EXISTS unbegun ON inflight (due) WHERE attempt = 0"


def delayed_since(connection: apsw.Connection, before: float, most: int) -> list[int]:
    """Up to ``most`` keys of what no fetch comes by, and waits for its first attempt since ``before`` or earlier.

    Its delay is over, or it was released. Where there is the index `UNBEGUN`, what was retried costs nothing.
    """
    rows = fetch_all(
        connection, "SELECT key FROM inflight WHERE attempt = 0 AND due <= ? ORDER BY due LIMIT ?", (before, most)
    )
    found = [key for (key,) in rows]
    for key in found:
        connection.execute("DELETE FROM inflight WHERE key = ?", (key,))
    return found


def oldest_delayed(connection: apsw.Connection, now: float) -> list[tuple[float, int]]:
    """Since when the one of these waits that has waited longest, and its key; nothing where there is none."""
    for key, due in connection.execute(
        "SELECT key, due FROM inflight WHERE attempt = 0 AND due <= ? AND key NOT IN (SELECT key FROM endings)"
        " ORDER BY due LIMIT 1",
        (now,),
    ):
        return [(due, key)]
    return []
