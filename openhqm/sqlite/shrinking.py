# -*- test-case-name: tests.sqlite.test_shrinking -*-
"""The embedded file gives pages back to the disk once it needs few of them: after a day without a line, say.

SQLite's incremental vacuum moves the last pages of the file into free ones in front of them and cuts the file off
there (https://sqlite.org/pragma.html#pragma_incremental_vacuum). A portion of that is a part of a sweep, in a
transaction with whatever else is written then.
"""

from __future__ import annotations

import apsw

from openhqm.sqlite.sql import fetch_all, fetch_one

PORTION = 32
"""Pages, of 4 KiB. Moving them takes about a millisecond, and some ten where a gigabyte is free."""
MOST_FREE = 2048
"""Pages that are kept for what comes next, however little is in use."""
INCREMENTAL = 2
MORE = 1000  # as much as a full sweep: the next one follows soon


def shrink(connection: apsw.Connection, now: float = 0.0) -> int:
    """Within an operation of the file: give some pages back, where more are free than in use, and more than
    `MOST_FREE`. Returns `MORE`, or 0 where there is nothing to give back, or the file was made before it was possible.
    """
    (free,) = fetch_one(connection, "PRAGMA freelist_count")
    if free <= MOST_FREE:
        return 0
    (pages,) = fetch_one(connection, "PRAGMA page_count")
    if 2 * free <= pages or fetch_one(connection, "PRAGMA auto_vacuum")[0] != INCREMENTAL:
        return 0
    fetch_all(connection, f"PRAGMA incremental_vacuum({PORTION})")
    return MORE
