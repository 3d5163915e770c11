# -*- test-case-name: tests.queue.test_contracts -*-
"""The bench that a backend is tested on, and the steps that all parts of the contract take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import TestCase

from openhqm.interfaces import IDelivery, IMessageQueue, IResultStore
from openhqm.messages import (
    Acceptance,
    Depth,
    IdempotencyClaim,
    Reply,
    Status,
    Submission,
)
from openhqm.policy.limits import Limits

REQUESTS = "contract-requests"
DEAD_LETTERS = "contract-dead-letters"
LEASE = 60.0
TTL = 600.0


class Bench(Protocol):
    """A backend under test, made with the constants above: queue names, lease and time to live in seconds.

    ``pass_time`` on a real broker may take less time than asked for, if the backend was told shorter times as well.
    """

    queue: IMessageQueue
    store: IResultStore
    limits: Limits
    """Those of the queue; what is written here holds after the next `crash`. `NO_LIMITS` at first."""

    def now(self) -> float:
        """The backend's time."""

    def done(self, deferred: Deferred[Any]) -> Deferred[Any]:
        """The same Deferred, after everything has run that it needs to fire."""

    def pass_time(self, seconds: float) -> Deferred[None]:
        """Let time go by."""

    def crash(self) -> Deferred[None]:
        """Kill the process that has the backend, and start another: ``queue`` and ``store`` are new objects."""

    def close(self) -> Deferred[None]:
        """Stop the backend and remove what it has stored."""


class Base(TestCase):
    bench: Bench

    def make_bench(self) -> Bench | Deferred[Bench]:
        """By `backend_contract`."""
        raise self.skipTest("made into a suite by backend_contract")

    async def setUp(self) -> None:  # type: ignore[override]
        made = self.make_bench()
        self.bench = await made if isinstance(made, Deferred) else made
        self.addCleanup(lambda: self.bench.close())

    async def do(self, deferred: Deferred[Any]) -> Any:
        return await self.bench.done(deferred)

    async def accept(self, payload: bytes = b"1", claim: IdempotencyClaim | None = None, **fields: Any) -> Acceptance:
        found: Acceptance = await self.do(self.bench.queue.accept(Submission(payload, **fields), claim))
        return found

    async def receive(self, most: int = 1) -> Sequence[IDelivery]:
        found: Sequence[IDelivery] = await self.do(self.bench.queue.receive(REQUESTS, most))
        return found

    async def receive_one(self) -> IDelivery:
        (delivery,) = await self.receive()
        return delivery

    async def depth(self, queue: str = REQUESTS) -> Depth:
        found: Depth = await self.do(self.bench.queue.depth(queue))
        return found

    async def receive_in_time(self, queue: str) -> IDelivery:
        """A broker may have to make the channel first, and a process that crashed may have claimed the message."""
        waiting = self.bench.queue.receive(queue, 1)
        for seconds in (1, *[8] * 5):
            if waiting.called:
                break
            await self.bench.pass_time(seconds)
        delivery: IDelivery
        (delivery,) = await self.do(waiting)
        return delivery

    async def nothing_is_delivered(self, queue: str = REQUESTS, seconds: float = 0.01) -> None:
        waiting = self.bench.queue.receive(queue, 1)
        await self.bench.pass_time(seconds)
        self.assertNoResult(waiting)
        waiting.cancel()
        await self.refused(waiting, CancelledError)

    async def refused(self, deferred: Deferred[Any], kind: type[BaseException]) -> Any:
        try:
            await self.do(deferred)
        except kind as error:
            return error
        raise self.failureException(f"{kind.__name__} was not raised")

    def assertNoResult(self, deferred: Deferred[Any]) -> None:
        self.assertFalse(deferred.called, "it fired")

    def reply(self, delivery: IDelivery, result: bytes = b"2", status: Status = Status.COMPLETED) -> Reply:
        return Reply(delivery.request.correlation_id, status, self.bench.now(), result=result, attempt=delivery.attempt)

    async def status(self, correlation_id: str) -> Status:
        status: Status = (await self.do(self.bench.store.find(correlation_id))).status
        return status

    async def types(self, correlation_id: str, after: int = 0) -> list[str]:
        return [event.type for event in await self.do(self.bench.store.history(correlation_id, after))]
