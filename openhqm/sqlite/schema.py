# -*- test-case-name: tests.sqlite.test_file -*-
"""The tables of the embedded file, and what a key says.

Accepting a request is one append to ``messages``, and nothing else: no index stands on that table. Its key
carries the place of a message::

    key = queue number (14 bits) | rank (2 bits) | running number (40 bits)

so each rank of each queue is one contiguous range of the B-tree, read in order behind a cursor
(``lanes.taken``), and the correlation id (the key, enciphered) finds its row directly. What lies behind its
cursor and is not finished stands in ``inflight``; what is finished stands in ``endings``. Everything in the
file can grow with the backlog; nothing in the process does.
"""

from __future__ import annotations

from openhqm.messages import Priority

VERSION = 1
APPLICATION_ID = 0x6F68716D  # "ohqm"

RUNNING_BITS = 40
RANKS = 4
# The usual lane lies rightmost in the tree, where an append is cheapest and leaves full pages behind.
RANK = {Priority.HIGH: 0, Priority.LOW: 1, Priority.NORMAL: 3}
HELD = 2  # not before its time: never read behind the cursor, only when it is due
BY_PRIORITY = (Priority.HIGH, Priority.NORMAL, Priority.LOW)


def lane_of(key: int) -> int:
    """The lane (queue and rank) a key lies in."""
    return key >> RUNNING_BITS


def first_key(lane: int) -> int:
    """The key before the first one of a lane; the running number begins at 1."""
    return lane << RUNNING_BITS


def last_key(lane: int) -> int:
    """The last key a lane can have."""
    return (lane + 1 << RUNNING_BITS) - 1


TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE queues (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);

-- taken: the last key read behind the cursor. given: the last key ever given out, kept when rows expire,
-- so that no id is ever given out twice and an expired one can be told from one that never was.
CREATE TABLE lanes (lane INTEGER PRIMARY KEY, taken INTEGER NOT NULL, given INTEGER NOT NULL);

CREATE TABLE messages (key INTEGER PRIMARY KEY, at REAL NOT NULL, body BLOB NOT NULL);

-- due: when it may be lent again; NULL while it is on loan. A process that starts finds loans whose holder
-- is gone: the file has one process at a time.
CREATE TABLE inflight (
    key INTEGER PRIMARY KEY, queue INTEGER NOT NULL, rank INTEGER NOT NULL,
    attempt INTEGER NOT NULL, due REAL);
CREATE INDEX inflight_due ON inflight (queue, rank, due);

CREATE TABLE events (
    key INTEGER NOT NULL, number INTEGER NOT NULL, type TEXT NOT NULL, at REAL NOT NULL, detail BLOB NOT NULL,
    PRIMARY KEY (key, number)) WITHOUT ROWID;
CREATE TABLE endings (
    key INTEGER PRIMARY KEY, number INTEGER NOT NULL, expires REAL NOT NULL, reply BLOB NOT NULL);
CREATE INDEX endings_expires ON endings (expires);

CREATE TABLE deadlines (due REAL NOT NULL, key INTEGER NOT NULL, PRIMARY KEY (due, key)) WITHOUT ROWID;
CREATE TABLE claims (
    digest BLOB PRIMARY KEY, fingerprint BLOB NOT NULL, key INTEGER NOT NULL, at REAL NOT NULL,
    expires REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX claims_expires ON claims (expires);
"""

# For requests whose queue is elsewhere (`sqlite/ledger.py`). Made where they are missing: files of before have
# none, and whoever knows nothing of them may pass them over.
LATER_TABLES = """
-- Whose copy nobody has published yet, as far as is known: since when, how many attempts the copy carries, and whether
-- somebody was told of the request already.
CREATE TABLE IF NOT EXISTS unpublished (
    key INTEGER PRIMARY KEY, at REAL NOT NULL, attempts INTEGER NOT NULL, told INTEGER NOT NULL);

-- What the copy that counts carries, where that is more than none.
CREATE TABLE IF NOT EXISTS copies (key INTEGER PRIMARY KEY, attempts INTEGER NOT NULL);

-- Which steps of a request a worker without a store has told, until it ends: one that comes again is passed over.
CREATE TABLE IF NOT EXISTS told (key INTEGER NOT NULL, step TEXT NOT NULL, PRIMARY KEY (key, step)) WITHOUT ROWID;
"""
