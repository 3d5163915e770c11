# -*- test-case-name: tests.queue.test_ending_logs,tests.redis.test_ending_log -*-
"""The log of endings in Redis: a stream that the step of an ending adds to, in whatever process it happens."""

from __future__ import annotations

import os
from collections.abc import Callable

import msgspec
from zope.interface import implementer

from openhqm.interfaces import IEndingLog
from openhqm.messages import LoggedEnding, LogPage, Status, Submission
from openhqm.policy.tags import KEPT_SECONDS, MOST_KEPT, logged_tags
from openhqm.queue.watchers import Nudges
from openhqm.redis.connection import Redis
from openhqm.runtime.deferreds import deferred

_NOT_LOGGED = "-"
_VALUES = 6  # that `log_read.lua` returns for each ending


@implementer(IEndingLog)
class RedisEndingLog:
    """The log in ``redis``. ``most`` is how many endings it has at most, about."""

    def __init__(self, redis: Redis, most: int = MOST_KEPT) -> None:
        self._redis = redis
        self._most = most
        self._nudges = Nudges()
        self._watching = 0
        self._stop: Callable[[], None] | None = None

    @deferred
    async def keep(self) -> None:
        await self._redis.run("log_keep", os.urandom(8).hex(), KEPT_SECONDS, self._most)

    @deferred
    async def read(self, after: int, most: int) -> LogPage:
        name, first, last, *found = await self._redis.run("log_read", after, most)
        endings = [
            LoggedEnding(
                int(number),
                self._redis.ids.issue(int(request)),
                Status(status.decode()),
                float(at),
                tuple(msgspec.json.decode(tags)) if tags else (),
                tenant.decode() or None,
            )
            for number, request, status, at, tags, tenant in zip(*[iter(found)] * _VALUES, strict=True)
        ]
        return LogPage(name.decode(), int(first), int(last), endings)

    def watch(self, listener: Callable[[], None]) -> Callable[[], None]:
        remove = self._nudges.add(listener)
        self._watching += 1
        if self._stop is None:
            tell = self._nudges.tell
            self._stop = self._redis.listen(f"{self._redis.prefix}log", lambda message: tell(), tell)

        def stop() -> None:
            remove()
            self._watching -= 1
            if not self._watching and self._stop is not None:
                self._stop()
                self._stop = None

        return stop


def log_mark(submission: Submission) -> bytes | str:
    """What a record says of the log: the tags of its ending as JSON, `_NOT_LOGGED`, or nothing where there are none."""
    tags = logged_tags(submission)
    if tags is None:
        return _NOT_LOGGED
    return msgspec.json.encode(tags) if tags else ""
