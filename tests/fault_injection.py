"""Faults injected into a server process, to show that the crash tests find them.

`tests.crash` runs one before the server starts.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater

from openhqm.bridges.bridge import Bridge
from openhqm.messages import Acceptance, Submission
from openhqm.redis import local_queue as redis_queue
from openhqm.sqlite import local_queue as sqlite_queue
from openhqm.sqlite.queue import SqliteQueue


def answer_first() -> None:
    """Answer 202 some time before the request is written."""
    accept = SqliteQueue.accept

    def faulty(self: SqliteQueue, submission: Submission, claim: Any, *more: Any) -> Deferred[Acceptance]:
        write = self._file.write
        delayed: list[Any] = []
        self._file.write = lambda operation: delayed.append(operation) or Deferred()  # type: ignore[method-assign,func-returns-value]
        try:
            accept(self, submission, claim, *more)
        finally:
            self._file.write = write  # type: ignore[method-assign]
        self._clock.callLater(0.05, lambda: [write(operation) for operation in delayed])
        return succeed(delayed[0](_NullConnection()))

    SqliteQueue.accept = faulty  # type: ignore[method-assign]


class _NullConnection:
    """A database connection that drops what is written."""

    def execute(self, statement: str, values: Any = ()) -> Any:
        return self

    def fetchone(self) -> None:
        return None


def ack_first() -> None:
    """Remove the request from the queue when it is delivered, before a handler has worked on it."""
    fetched = sqlite_queue.LocalQueue._fetched

    def faulty(self: Any, found: Any, most: int) -> Any:
        for key, _, _ in found[0]:
            self._file.write(lambda connection, key=key: self.rows.finish(connection, key))
        return fetched(self, found, most)

    sqlite_queue.LocalQueue._fetched = faulty  # type: ignore[method-assign]


def redis_ack_first() -> None:
    """Remove the request from Redis when it is delivered."""
    delivery_of = redis_queue.LocalQueue._delivery

    def faulty(self: Any, row: Any, token: str, lease_end: float) -> Any:
        self._redis.run("settle", int(row[0]), token, "", b"", self._ttl, self._letters, b"")
        return delivery_of(self, row, token, lease_end)

    redis_queue.LocalQueue._delivery = faulty  # type: ignore[method-assign]


def none() -> None:
    """No fault."""


def bridge_ack_first() -> None:
    """Acknowledge a message some time before it is accepted."""
    take = Bridge._take

    async def faulty(self: Any, entry: Any) -> None:
        self._acks.done(entry.delivery)
        await deferLater(self._clock, 0.3)
        await take(self, entry)

    Bridge._take = faulty  # type: ignore[method-assign]
