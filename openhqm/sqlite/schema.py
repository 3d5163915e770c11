# -*- test-case-name: tests.sqlite.test_file -*-
"""The tables of the embedded file, and what a key says.

Accepting a request is one append to ``messages``, and nothing else: no index stands on that table. Its key says where
the message waits::

    key = queue number (14 bits) | rank (2 bits) | running number (40 bits)

so each rank of each queue, a channel, is one contiguous range of the B-tree, read in order behind a cursor
(``channels.cursor``), and the correlation id (the key, enciphered) finds its row directly. What lies before its cursor
and is not finished stands in ``inflight``; what is finished stands in ``endings``. Everything in the file can grow with
the backlog; nothing in the process does.

What a queue over a broker has accepted for later waits in the same way, in a queue for each channel of the broker
(`openhqm.sqlite.journal`): a process that knows only layout 4 would never publish it. One that knows only layout 5
would not find the claims of keys with numbers (`openhqm.sqlite.claims`).
"""

from __future__ import annotations

from openhqm.messages import Priority

VERSION = 6
APPLICATION_ID = 0x6F68716D  # "ohqm"

RUNNING_BITS = 40
RANKS = 4
# The usual channel lies rightmost in the tree, where an append is cheapest and leaves full pages behind.
RANK = {Priority.HIGH: 0, Priority.LOW: 1, Priority.NORMAL: 3}
DELAYED = 2  # not before its time: never read behind the cursor, only when it is due
BY_PRIORITY = (Priority.HIGH, Priority.NORMAL, Priority.LOW)


def channel_of(key: int) -> int:
    """The channel (queue and rank) of a key."""
    return key >> RUNNING_BITS


def queue_of_key(key: int) -> int:
    """The number of the queue of a key."""
    return channel_of(key) // RANKS


def first_key(channel: int) -> int:
    """The key before the first one of a channel; the running number begins at 1."""
    return channel << RUNNING_BITS


def last_key(channel: int) -> int:
    """The last key a channel can have."""
    return (channel + 1 << RUNNING_BITS) - 1


STEPS_UP = {
    3: """
CREATE TABLE children (
    parent INTEGER NOT NULL, place INTEGER NOT NULL, key INTEGER NOT NULL UNIQUE, stage INTEGER NOT NULL,
    name TEXT NOT NULL, joined INTEGER NOT NULL, status TEXT NOT NULL, reply BLOB, PRIMARY KEY (parent, place));
""",
    4: "",  # the same tables
    5: "INSERT OR REPLACE INTO meta SELECT 'plain_claims_until', coalesce(max(expires), 0) FROM claims;",
}
"""What a file of an older layout lacks, up to the next one. See `sealed_tables` for the names in an encrypted file."""

TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE queues (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);

-- cursor: the last key that a fetch has read. highest: the highest key ever given out, kept when rows expire, so that
-- no id is given out twice, and an expired one can be told from one that never was.
CREATE TABLE channels (channel INTEGER PRIMARY KEY, cursor INTEGER NOT NULL, highest INTEGER NOT NULL);

CREATE TABLE messages (key INTEGER PRIMARY KEY, at REAL NOT NULL, body BLOB NOT NULL);

-- due: when it is delivered again; NULL while its delivery is out. The deliveries that a process finds when it starts
-- were those of a process that is gone: the file has one at a time.
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

-- How much has not ended: one row where that is limited, else none.
CREATE TABLE load (requests INTEGER NOT NULL, bytes INTEGER NOT NULL);

-- Requests that are held back until another one has ended.
CREATE TABLE held (parent INTEGER NOT NULL, key INTEGER NOT NULL, PRIMARY KEY (parent, key)) WITHOUT ROWID;

-- The steps of requests that consist of some. status: HELD until it begins. reply: kept until its stage has completed.
CREATE TABLE children (
    parent INTEGER NOT NULL, place INTEGER NOT NULL, key INTEGER NOT NULL UNIQUE, stage INTEGER NOT NULL,
    name TEXT NOT NULL, joined INTEGER NOT NULL, status TEXT NOT NULL, reply BLOB, PRIMARY KEY (parent, place));

-- AUTOINCREMENT, so that the number of a dead letter that is gone is not given to another one.
CREATE TABLE dead_letters (number INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, body BLOB NOT NULL);
CREATE INDEX dead_letters_at ON dead_letters (at);

-- For requests that wait in a broker (`openhqm.sqlite.ledger`).
-- What is to be published, from the acceptance to the first attempt, and from a retry to the next.
-- state: 0 due at a time, 1 published (due: since when), 2 behind another request of its line, 3 due and its channel
-- full, 4 stale: the request has ended, and its message lies in its channel. claimed: the process publishes it now.
-- told: a caller knows the id, or more than the first message was published.
CREATE TABLE outbox (
    key INTEGER PRIMARY KEY, state INTEGER NOT NULL, due REAL NOT NULL, channel TEXT NOT NULL,
    generation INTEGER NOT NULL, claimed INTEGER NOT NULL, told INTEGER NOT NULL);
CREATE INDEX outbox_due ON outbox (due) WHERE state = 0;
CREATE INDEX outbox_published ON outbox (channel, due) WHERE state = 1;

-- Which message of a request counts, where that is not the first one.
CREATE TABLE generations (key INTEGER PRIMARY KEY, generation INTEGER NOT NULL);

-- Requests that are worked on one at a time, by the queue of their partition. out: this one is in the broker.
CREATE TABLE line (key INTEGER PRIMARY KEY, name TEXT NOT NULL, out INTEGER NOT NULL);
CREATE INDEX line_name ON line (name, key);
CREATE INDEX line_waiting ON line (key) WHERE out = 0;

-- Which steps of a request a worker without a store has reported, until it ends: one that comes again is passed over.
CREATE TABLE steps (key INTEGER NOT NULL, step TEXT NOT NULL, PRIMARY KEY (key, step)) WITHOUT ROWID;
"""
