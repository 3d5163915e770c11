"""Rules broken on purpose, in the server's process, to show that the crash test sees it."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed

from openhqm.messages import Acceptance, Submission
from openhqm.redis import local_queue as redis_loans
from openhqm.sqlite import local_queue as sqlite_loans
from openhqm.sqlite.queue import SqliteQueue


def answer_first() -> None:
    """Answer 202 a moment before the request is written."""
    accept = SqliteQueue.accept

    def hasty(self: SqliteQueue, submission: Submission, claim: Any) -> Deferred[Acceptance]:
        write = self._file.write
        held: list[Any] = []
        self._file.write = lambda operation: held.append(operation) or Deferred()  # type: ignore[method-assign,func-returns-value]
        try:
            accept(self, submission, claim)
        finally:
            self._file.write = write  # type: ignore[method-assign]
        self._clock.callLater(0.05, lambda: [write(operation) for operation in held])
        return succeed(held[0](_Pretending()))

    SqliteQueue.accept = hasty  # type: ignore[method-assign]


class _Pretending:
    """A connection that takes everything and keeps nothing."""

    def execute(self, statement: str, values: Any = ()) -> Any:
        return self

    def fetchone(self) -> None:
        return None


def ack_first() -> None:
    """Take the request out of the books when it is lent, before anybody has worked on it."""
    lent = sqlite_loans.Place._delivery

    def hasty(self: Any, key: int, attempt: int, body: bytes) -> Any:
        self.file.write(lambda connection: self.lanes.finish(connection, key))
        return lent(self, key, attempt, body)

    sqlite_loans.Place._delivery = hasty  # type: ignore[method-assign]


def redis_ack_first() -> None:
    """The same in Redis."""
    lent = redis_loans.Place._delivery

    def hasty(self: Any, row: Any, token: str, ends: float) -> Any:
        self.redis.run("settle", int(row[0]), token, "", b"", self.ttl, self.letters, b"")
        return lent(self, row, token, ends)

    redis_loans.Place._delivery = hasty  # type: ignore[method-assign]
