"""Tests of the Redis backend on a Redis of their own, in real time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from openhqm.errors import NotDurable, OpenHQMError
from openhqm.messages import Reply, Status
from openhqm.policy.limits import NO_LIMITS, Limits
from tests.brokers import RedisServer
from tests.redis.bench import Instance

PATIENCE = 25.0
"""How many seconds a test waits for what is promised."""


class RealRedisTestCase(TestCase):
    """A test of instances in real time, on a server of its own that it may do anything to."""

    timeout = 240

    async def server(self, **settings: str) -> RedisServer:
        server = RedisServer(**settings)
        self.addCleanup(server.close)
        return server.start()

    async def instance(self, url: str, lease: float = 60.0, limits: Limits = NO_LIMITS) -> Instance:
        made = Instance(url, "t:", None, lease, limits)
        self.addCleanup(made.stop)
        await made.start()
        return made

    async def until(self, holds: Callable[[], Any], otherwise: str) -> None:
        """Ask again until it holds; the deadline is for a promise that is not kept."""
        from twisted.internet import reactor

        end = reactor.seconds() + PATIENCE  # type: ignore[attr-defined]
        while not holds():
            self.assertLess(reactor.seconds(), end, otherwise)  # type: ignore[attr-defined]
            await deferLater(reactor, 0.02)  # type: ignore[arg-type]

    def soon(self, step: Deferred[Any]) -> Deferred[Any]:
        """Within five seconds: far less than a lease, and than the time between two looks without a signal."""
        from twisted.internet import reactor

        return step.addTimeout(5.0, reactor)  # type: ignore[arg-type]

    async def patiently(self, step: Callable[[], Deferred[Any]]) -> Any:
        """Repeat what could not be made durable, as callers do."""
        from twisted.internet import reactor

        end = reactor.seconds() + PATIENCE  # type: ignore[attr-defined]
        while True:
            try:
                return await step()
            except NotDurable:
                if reactor.seconds() > end:  # type: ignore[attr-defined]
                    raise
                await deferLater(reactor, 0.05)  # type: ignore[arg-type]

    async def refused(self, step: Deferred[Any]) -> NotDurable:
        """It fails with `NotDurable`, and within two seconds."""
        from twisted.internet import reactor

        started = reactor.seconds()  # type: ignore[attr-defined]
        try:
            await step
        except NotDurable as error:
            self.assertLess(reactor.seconds() - started, 2.0)  # type: ignore[attr-defined]
            return error
        raise self.failureException("NotDurable was not raised")

    async def failure(self, step: Deferred[Any]) -> BaseException:
        try:
            await step
        except OpenHQMError as error:
            return error
        raise self.failureException("it did not fail")

    def reply(self, delivery: Any, result: bytes = b"2") -> Reply:
        return Reply(delivery.request.correlation_id, Status.COMPLETED, 1.0, result=result, attempt=delivery.attempt)
