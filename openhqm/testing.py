# -*- test-case-name: tests.test_contracts -*-
"""The contract of a backend, for everybody who writes one.

A backend is a queue and the store beside it. Describe how to make one on a `Bench`, and run the suite::

    class MyContract(backend_contract(make_my_bench)):
        pass

Every test states a promise. What a backend cannot do by itself is declared in its `Capabilities`, never skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from openhqm.errors import (
    AlreadyEnded,
    ExpiredRequest,
    IdempotencyConflict,
    LoanOver,
    OpenHQMError,
    UnknownRequest,
)
from openhqm.interfaces import IDelivery, IMessageQueue, IResultStore
from openhqm.messages import (
    Acceptance,
    Event,
    IdempotencyClaim,
    Priority,
    Reply,
    Request,
    Status,
    Submission,
)

REQUESTS = "contract-requests"
DEAD_LETTERS = "contract-dead-letters"
LEASE = 60.0
TTL = 600.0


class Bench(Protocol):
    """A backend under test, made with the constants above: queue names, lease and time to live.

    Times of a real broker may be shorter in ``pass_time`` than asked for, if the backend was told so as well.
    """

    queue: IMessageQueue
    store: IResultStore

    def now(self) -> float:
        """The backend's time."""

    def done(self, deferred: Deferred[Any]) -> Deferred[Any]:
        """The same Deferred, with whatever must turn for it to fire turned."""

    def pass_time(self, seconds: float) -> Deferred[None]:
        """Let time go by."""

    def crash(self) -> Deferred[None]:
        """Kill the process that holds the backend, and start it anew: ``queue`` and ``store`` are new objects."""

    def close(self) -> Deferred[None]:
        """Tidy up."""


def backend_contract(make: Callable[[TestCase], Bench]) -> type[TestCase]:
    """The suite for what ``make`` makes."""

    class BackendContract(_Contract):
        def make_bench(self) -> Bench:
            return make(self)

    return BackendContract


class _Base(TestCase):
    bench: Bench

    def make_bench(self) -> Bench:
        """By `backend_contract`."""
        raise self.skipTest("made into a suite by backend_contract")

    def setUp(self) -> None:
        self.bench = self.make_bench()
        self.addCleanup(lambda: self.bench.close())

    async def do(self, deferred: Deferred[Any]) -> Any:
        return await self.bench.done(deferred)

    async def accept(self, payload: bytes = b"1", claim: IdempotencyClaim | None = None, **fields: Any) -> Acceptance:
        found: Acceptance = await self.do(self.bench.queue.accept(Submission(payload, **fields), claim))
        return found

    async def lent(self, most: int = 1) -> Sequence[IDelivery]:
        found: Sequence[IDelivery] = await self.do(self.bench.queue.receive(REQUESTS, most))
        return found

    async def one(self) -> IDelivery:
        (delivery,) = await self.lent()
        return delivery

    async def nothing_is_lent(self) -> None:
        waiting = self.bench.queue.receive(REQUESTS, 1)
        await self.bench.pass_time(0.01)
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


class _Lending(_Base):
    async def test_interfaces(self) -> None:
        """What is made provides what it says."""
        verifyObject(IMessageQueue, self.bench.queue)
        verifyObject(IResultStore, self.bench.store)
        await self.accept()
        verifyObject(IDelivery, await self.one())

    async def test_intact(self) -> None:
        """What was submitted is lent as it came, down to the byte."""
        payload = b'{"z": 1e400, "a": 12345678901234567890123,  "k": "\\u00e4 \xc3\xa4"}'
        metadata = {"own": [1, {"deep": None}], "priority": "high"}
        accepted = await self.accept(payload, headers={"X-A": "b"}, metadata=metadata, priority=Priority.HIGH)
        delivery = await self.one()
        self.assertEqual(
            delivery.request,
            Request(
                accepted.correlation_id,
                accepted.submitted_at,
                Submission(payload, {"X-A": "b"}, metadata, Priority.HIGH),
            ),
        )
        self.assertEqual(delivery.attempt, 1)

    async def test_oldest_first(self) -> None:
        """Within one priority, the oldest is lent first."""
        accepted = [await self.accept() for _ in range(5)]
        lent = [(await self.one()).request.correlation_id for _ in range(5)]
        self.assertEqual(lent, [each.correlation_id for each in accepted])

    async def test_priority(self) -> None:
        """High is lent before normal, and normal before low, whenever they came."""
        for priority in (Priority.LOW, Priority.NORMAL, Priority.HIGH, Priority.LOW, Priority.HIGH):
            await self.accept(priority=priority)
        lent = [delivery.request.submission.priority.value for delivery in await self.lent(5)]
        self.assertEqual(lent, ["high", "high", "normal", "low", "low"])

    async def test_most(self) -> None:
        """No more is lent than was asked for."""
        for _ in range(5):
            await self.accept()
        self.assertEqual(len(await self.lent(3)), 3)
        self.assertEqual(len(await self.lent(3)), 2)

    async def test_waits(self) -> None:
        """Whoever receives from an empty queue waits, and gets what comes."""
        waiting = self.bench.queue.receive(REQUESTS, 5)
        await self.bench.pass_time(1)
        self.assertNoResult(waiting)
        accepted = await self.accept()
        (delivery,) = await self.do(waiting)
        self.assertEqual(delivery.request.correlation_id, accepted.correlation_id)

    async def test_cancelled_receive(self) -> None:
        """Giving up waiting loses nothing and counts no attempt, at whatever moment it comes."""
        waiting = self.bench.queue.receive(REQUESTS, 5)
        await self.bench.pass_time(1)
        accepting = self.bench.queue.accept(Submission(b"1"), None)
        waiting.cancel()  # the lending may be on its way already, or done
        try:
            for delivery in await self.do(waiting):
                await self.do(delivery.give_back())
        except CancelledError:
            pass  # it came in time
        accepted = await self.do(accepting)
        delivery = await self.one()
        self.assertEqual((delivery.request.correlation_id, delivery.attempt), (accepted.correlation_id, 1))

    async def test_not_twice(self) -> None:
        """What is on loan is lent to nobody else."""
        await self.accept()
        await self.one()
        await self.nothing_is_lent()

    async def test_delay(self) -> None:
        """What is not to begin before its time is not lent before it, and in its priority after."""
        await self.accept(not_before=self.bench.now() + 30, priority=Priority.HIGH)
        await self.nothing_is_lent()
        await self.bench.pass_time(31)
        await self.accept()
        self.assertEqual((await self.one()).request.submission.priority, Priority.HIGH)

    async def test_other_queue(self) -> None:
        """A message published to another queue is lent from there, and gone once it is acknowledged."""
        message = Request("11111111-1111-4111-8111-111111111111", self.bench.now(), Submission(b'"x"'))
        await self.do(self.bench.queue.publish("other", message, priority=Priority.NORMAL, delay=0))
        await self.nothing_is_lent()
        (delivery,) = await self.do(self.bench.queue.receive("other", 1))
        self.assertEqual(delivery.request, message)
        await self.do(delivery.ack())
        depth = self.bench.queue.depth("other")
        self.assertEqual((depth.ready, depth.delayed, depth.in_flight), (0, 0, 0))

    async def test_depth(self) -> None:
        """The depth tells what is ready, delayed and on loan, and how old the oldest is."""
        first = await self.accept()
        await self.accept(not_before=self.bench.now() + 1000)
        await self.bench.pass_time(5)
        await self.accept()
        await self.accept()
        depth = self.bench.queue.depth(REQUESTS)
        self.assertEqual((depth.ready, depth.delayed, depth.in_flight), (3, 1, 0))
        self.assertEqual(depth.oldest, first.submitted_at)
        await self.one()
        depth = self.bench.queue.depth(REQUESTS)
        self.assertEqual((depth.ready, depth.delayed, depth.in_flight), (2, 1, 1))


class _Settling(_Base):
    async def test_settle(self) -> None:
        """A settled request has its reply, and is never lent again."""
        accepted = await self.accept()
        delivery = await self.one()
        reply = self.reply(delivery, b'{"big": 12345678901234567890123}')
        self.assertTrue(await self.do(delivery.settle(reply)))
        record = await self.do(self.bench.store.find(accepted.correlation_id))
        self.assertEqual((record.status, record.reply), (Status.COMPLETED, reply))
        await self.bench.pass_time(LEASE * 2)
        await self.nothing_is_lent()

    async def test_settled_once(self) -> None:
        """A loan is settled once; every other way out fails from then on."""
        await self.accept()
        delivery = await self.one()
        await self.do(delivery.settle(self.reply(delivery)))
        for step in (
            delivery.settle(self.reply(delivery)),
            delivery.ack(),
            delivery.retry(0, ""),
            delivery.give_back(),
            delivery.dead_letter("", self.reply(delivery)),
        ):
            await self.refused(step, LoanOver)

    async def test_retry(self) -> None:
        """A retry is lent after its delay, as the next attempt, and the history says when."""
        accepted = await self.accept()
        delivery = await self.one()
        due = self.bench.now() + 10
        await self.do(delivery.retry(10, "no luck"))
        record = await self.do(self.bench.store.find(accepted.correlation_id))
        self.assertEqual((record.status, record.attempt), (Status.PROCESSING, 1))
        self.assertAlmostEqual(record.next_attempt_at or 0, due, delta=1)
        await self.nothing_is_lent()
        await self.bench.pass_time(11)
        self.assertEqual((await self.one()).attempt, 2)
        self.assertEqual(await self.types(accepted.correlation_id), ["pending", "processing", "retrying", "processing"])

    async def test_give_back(self) -> None:
        """What is given back is lent again at once, and the attempt was none."""
        await self.accept()
        await self.do((await self.one()).give_back())
        self.assertEqual((await self.one()).attempt, 1)

    async def test_lost_lease(self) -> None:
        """A loan that is not extended is lent anew; its late holder learns of it and settles nothing."""
        accepted = await self.accept()
        late = await self.one()
        await self.bench.pass_time(LEASE + 1)
        again = await self.one()
        self.assertEqual((again.request.correlation_id, again.attempt), (accepted.correlation_id, 2))
        self.assertEqual(await self.do(late.revoked), "lease lost")
        await self.refused(late.settle(self.reply(late, b'"late"')), LoanOver)
        self.assertTrue(await self.do(again.settle(self.reply(again, b'"good"'))))
        record = await self.do(self.bench.store.find(accepted.correlation_id))
        self.assertEqual(record.reply and record.reply.result, b'"good"')

    async def test_extend(self) -> None:
        """A loan that is extended in time stays."""
        await self.accept()
        delivery = await self.one()
        for _ in range(3):
            await self.bench.pass_time(LEASE * 0.7)
            delivery.extend()
        self.assertTrue(await self.do(delivery.settle(self.reply(delivery))))

    async def test_dead_letter(self) -> None:
        """A dead letter keeps request, reason and last answer; its request has FAILED; it can be tried anew."""
        accepted = await self.accept(b'"hopeless"', metadata={"own": 1})
        delivery = await self.one()
        reply = self.reply(delivery, b'"last words"', Status.FAILED)
        self.assertTrue(await self.do(delivery.dead_letter("gave up", reply)))
        self.assertEqual(await self.status(accepted.correlation_id), Status.FAILED)
        await self.nothing_is_lent()
        ((number, letter),) = await self.do(self.bench.queue.dead_letters(0, 10))
        self.assertEqual((letter.request, letter.reason, letter.reply), (delivery.request, "gave up", reply))
        self.assertEqual(await self.do(self.bench.queue.dead_letters(number, 10)), [])

        redriven = await self.do(self.bench.queue.redrive(number))
        self.assertEqual(await self.do(self.bench.queue.dead_letters(0, 10)), [])
        again = await self.one()
        self.assertEqual((again.request.correlation_id, again.attempt), (redriven.correlation_id, 1))
        self.assertEqual(again.request.submission.payload, b'"hopeless"')
        self.assertEqual(again.request.submission.metadata, {"own": 1, "redriven_from": accepted.correlation_id})
        self.assertEqual(await self.status(accepted.correlation_id), Status.FAILED)
        await self.refused(self.bench.queue.redrive(number), UnknownRequest)

    async def test_first_ending_wins(self) -> None:
        """Of two endings the first stands; the second is told so and changes nothing."""
        accepted = await self.accept()
        delivery = await self.one()
        await self.do(self.bench.store.cancel(accepted.correlation_id))
        self.assertFalse(await self.do(delivery.settle(self.reply(delivery))))
        self.assertEqual(await self.status(accepted.correlation_id), Status.CANCELLED)
        self.assertEqual(await self.types(accepted.correlation_id), ["pending", "processing", "cancelled"])

    async def test_no_dead_letter_behind_an_ending(self) -> None:
        """A request that has ended otherwise leaves no dead letter."""
        accepted = await self.accept()
        delivery = await self.one()
        await self.do(self.bench.store.cancel(accepted.correlation_id))
        self.assertFalse(await self.do(delivery.dead_letter("gave up", self.reply(delivery, status=Status.FAILED))))
        self.assertEqual(await self.do(self.bench.queue.dead_letters(0, 10)), [])


class _Recording(_Base):
    async def test_unknown(self) -> None:
        """An id that was never given out is unknown, whatever it looks like."""
        await self.accept()
        for correlation_id in ("11111111-1111-4111-8111-111111111111", "nonsense", "", "../etc/passwd", "\x00"):
            await self.refused(self.bench.store.find(correlation_id), UnknownRequest)
            await self.refused(self.bench.store.history(correlation_id, 0), UnknownRequest)
            await self.refused(self.bench.store.cancel(correlation_id), UnknownRequest)

    async def test_history(self) -> None:
        """Events are numbered from 1 without a gap, and can be had from any number on."""
        accepted = await self.accept()
        delivery = await self.one()
        await self.do(delivery.progress({"percent": 50}))
        await self.do(delivery.settle(self.reply(delivery)))
        events = await self.do(self.bench.store.history(accepted.correlation_id, 0))
        self.assertEqual([event.number for event in events], [1, 2, 3, 4])
        self.assertEqual([event.type for event in events], ["pending", "processing", "progress", "completed"])
        self.assertEqual(events[2].detail, {"attempt": 1, "percent": 50})
        self.assertEqual(await self.do(self.bench.store.history(accepted.correlation_id, 2)), events[2:])
        self.assertEqual(await self.do(self.bench.store.history(accepted.correlation_id, 99)), [])

    async def test_progress_is_bounded(self) -> None:
        """A history does not grow without end, and says so to whoever would make it."""
        await self.accept()
        delivery = await self.one()
        await self.refused(delivery.progress({"large": "x" * 20_000}), ValueError)
        for step in range(998):
            await self.do(delivery.progress({"step": step}))
        await self.refused(delivery.progress({"step": "one too many"}), ValueError)
        self.assertTrue(await self.do(delivery.settle(self.reply(delivery))))

    async def test_watch(self) -> None:
        """A listener hears each event once it is durable, in order, until it stops listening."""
        accepted = await self.accept()
        heard: list[Event] = []
        ignored: list[Event] = []
        stop = self.bench.store.watch(accepted.correlation_id, heard.append)
        self.bench.store.watch(accepted.correlation_id, ignored.append)()
        delivery = await self.one()
        await self.do(delivery.progress({"percent": 1}))
        await self.do(delivery.settle(self.reply(delivery)))
        self.assertEqual([event.type for event in heard], ["processing", "progress", "completed"])
        self.assertEqual(heard, (await self.do(self.bench.store.history(accepted.correlation_id, 1))))
        self.assertEqual(ignored, [])
        stop()

    async def test_endings_are_told(self) -> None:
        """Whoever counts endings hears of each one once."""
        heard: list[str] = []
        self.bench.store.on_ending.append(lambda key, status: heard.append(status))
        accepted = await self.accept()
        delivery = await self.one()
        await self.do(self.bench.store.cancel(accepted.correlation_id))
        await self.do(delivery.settle(self.reply(delivery)))
        self.assertEqual(heard, ["CANCELLED"])

    async def test_cancel_waiting(self) -> None:
        """What is cancelled while it waits is never lent."""
        accepted = await self.accept()
        other = await self.accept()
        before = await self.do(self.bench.store.cancel(accepted.correlation_id))
        self.assertEqual(before.status, Status.PENDING)
        self.assertEqual((await self.one()).request.correlation_id, other.correlation_id)
        await self.nothing_is_lent()
        await self.refused(self.bench.store.cancel(accepted.correlation_id), AlreadyEnded)

    async def test_cancel_processing(self) -> None:
        """What is cancelled while it is on loan is revoked, and not lent again after a lost lease."""
        accepted = await self.accept()
        delivery = await self.one()
        before = await self.do(self.bench.store.cancel(accepted.correlation_id))
        self.assertEqual(before.status, Status.PROCESSING)
        self.assertEqual(await self.do(delivery.revoked), "CANCELLED")
        await self.bench.pass_time(LEASE + 1)
        await self.nothing_is_lent()

    async def test_cancel_retrying(self) -> None:
        """What is cancelled between two attempts has no further one."""
        accepted = await self.accept()
        await self.do((await self.one()).retry(10, "no luck"))
        await self.do(self.bench.store.cancel(accepted.correlation_id))
        await self.bench.pass_time(11)
        await self.nothing_is_lent()

    async def test_deadline_waiting(self) -> None:
        """A request whose deadline passes before anybody works on it ends with TIMEOUT, without a worker."""
        accepted = await self.accept(timeout=30.0)
        await self.bench.pass_time(29)
        self.assertEqual(await self.status(accepted.correlation_id), Status.PENDING)
        await self.bench.pass_time(2)
        self.assertEqual(await self.status(accepted.correlation_id), Status.TIMEOUT)
        await self.nothing_is_lent()

    async def test_deadline_processing(self) -> None:
        """A deadline that passes during an attempt ends the request and revokes the loan."""
        accepted = await self.accept(timeout=30.0)
        delivery = await self.one()
        await self.bench.pass_time(31)
        self.assertEqual(await self.do(delivery.revoked), "TIMEOUT")
        self.assertFalse(await self.do(delivery.settle(self.reply(delivery))))
        self.assertEqual(await self.status(accepted.correlation_id), Status.TIMEOUT)

    async def test_deadline_after_the_end(self) -> None:
        """A deadline that passes after the ending changes nothing."""
        accepted = await self.accept(timeout=30.0)
        delivery = await self.one()
        await self.do(delivery.settle(self.reply(delivery)))
        await self.bench.pass_time(31)
        self.assertEqual(await self.status(accepted.correlation_id), Status.COMPLETED)

    async def test_expiry(self) -> None:
        """An answer is kept until its published expiry, and its id is told apart from one never given out."""
        accepted = await self.accept()
        unfinished = await self.accept()
        delivery = await self.one()
        await self.do(delivery.settle(self.reply(delivery)))
        record = await self.do(self.bench.store.find(accepted.correlation_id))
        self.assertEqual(record.expires_at, self.bench.now() + TTL)
        await self.bench.pass_time(TTL - 10)
        self.assertEqual(await self.status(accepted.correlation_id), Status.COMPLETED)
        await self.bench.pass_time(20)
        await self.refused(self.bench.store.find(accepted.correlation_id), ExpiredRequest)
        await self.refused(self.bench.store.history(accepted.correlation_id, 0), ExpiredRequest)
        await self.refused(self.bench.store.cancel(accepted.correlation_id), ExpiredRequest)
        self.assertEqual(await self.status(unfinished.correlation_id), Status.PENDING)


class _Claiming(_Base):
    async def test_repeat(self) -> None:
        """The same claim again is the same request: one id, lent once."""
        claim = IdempotencyClaim("key", b"print")
        first = await self.accept(claim=claim)
        await self.bench.pass_time(5)
        again = await self.accept(claim=claim)
        self.assertEqual(again, Acceptance(first.correlation_id, first.submitted_at, replayed=True))
        await self.one()
        await self.nothing_is_lent()

    async def test_conflict(self) -> None:
        """The same key for another request is refused, and accepts nothing."""
        await self.accept(claim=IdempotencyClaim("key", b"print"))
        await self.refused(
            self.bench.queue.accept(Submission(b"2"), IdempotencyClaim("key", b"other")), IdempotencyConflict
        )
        await self.one()
        await self.nothing_is_lent()

    async def test_at_once(self) -> None:
        """A hundred repeats at the same time make one request."""
        claim = IdempotencyClaim("key", b"print")
        accepted = await self.do(gatherResults([self.bench.queue.accept(Submission(b"1"), claim) for _ in range(100)]))
        self.assertEqual(len({each.correlation_id for each in accepted}), 1)
        self.assertEqual([each.replayed for each in accepted].count(False), 1)
        await self.one()
        await self.nothing_is_lent()

    async def test_lifetime(self) -> None:
        """A key is free again once its time is over."""
        claim = IdempotencyClaim("key", b"print", lifetime=100.0)
        first = await self.accept(claim=claim)
        await self.bench.pass_time(101)
        again = await self.accept(claim=claim)
        self.assertNotEqual(first.correlation_id, again.correlation_id)


class _Crashing(_Base):
    """These need a backend that says it is durable; for one that is not, they show that it says so."""

    async def crash(self) -> bool:
        await self.bench.crash()
        return self.bench.queue.capabilities.durable

    async def test_crash_accepted(self) -> None:
        """What was accepted is there after a crash, intact."""
        accepted = await self.accept(b'{"a":  1}', metadata={"b": 2}, priority=Priority.LOW)
        if await self.crash():
            delivery = await self.one()
            self.assertEqual(delivery.request.correlation_id, accepted.correlation_id)
            self.assertEqual(delivery.request.submission, Submission(b'{"a":  1}', {}, {"b": 2}, Priority.LOW))
        else:
            await self.refused(self.bench.store.find(accepted.correlation_id), OpenHQMError)

    async def test_crash_on_loan(self) -> None:
        """What was on loan is lent anew after a crash, and the attempt was counted."""
        accepted = await self.accept()
        await self.one()
        if await self.crash():
            delivery = await self.one()
            self.assertEqual((delivery.request.correlation_id, delivery.attempt), (accepted.correlation_id, 2))

    async def test_crash_retry(self) -> None:
        """A retry keeps its time across a crash."""
        await self.accept()
        await self.do((await self.one()).retry(30, "no luck"))
        if await self.crash():
            await self.nothing_is_lent()
            await self.bench.pass_time(31)
            self.assertEqual((await self.one()).attempt, 2)

    async def test_crash_ended(self) -> None:
        """What had ended has the same ending after a crash, and its history; it is not lent."""
        accepted = await self.accept()
        delivery = await self.one()
        reply = self.reply(delivery)
        await self.do(delivery.settle(reply))
        if await self.crash():
            record = await self.do(self.bench.store.find(accepted.correlation_id))
            self.assertEqual(record.reply, reply)
            self.assertEqual(await self.types(accepted.correlation_id), ["pending", "processing", "completed"])
            await self.nothing_is_lent()

    async def test_crash_cancelled(self) -> None:
        """What was cancelled stays cancelled."""
        accepted = await self.accept()
        await self.do(self.bench.store.cancel(accepted.correlation_id))
        if await self.crash():
            self.assertEqual(await self.status(accepted.correlation_id), Status.CANCELLED)
            await self.nothing_is_lent()

    async def test_crash_deadline(self) -> None:
        """A deadline is kept across a crash."""
        accepted = await self.accept(timeout=30.0)
        if await self.crash():
            await self.bench.pass_time(31)
            self.assertEqual(await self.status(accepted.correlation_id), Status.TIMEOUT)

    async def test_crash_delay(self) -> None:
        """What was not to begin before its time begins then, after a crash as well."""
        await self.accept(not_before=self.bench.now() + 30)
        if await self.crash():
            await self.nothing_is_lent()
            await self.bench.pass_time(31)
            await self.one()

    async def test_crash_claim(self) -> None:
        """A claim is kept across a crash."""
        claim = IdempotencyClaim("key", b"print")
        first = await self.accept(claim=claim)
        if await self.crash():
            self.assertEqual((await self.accept(claim=claim)).correlation_id, first.correlation_id)

    async def test_crash_dead_letter(self) -> None:
        """Dead letters are kept across a crash."""
        await self.accept()
        delivery = await self.one()
        await self.do(delivery.dead_letter("gave up", self.reply(delivery, status=Status.FAILED)))
        if await self.crash():
            ((_, letter),) = await self.do(self.bench.queue.dead_letters(0, 10))
            self.assertEqual(letter.reason, "gave up")

    async def test_crash_no_id_twice(self) -> None:
        """No id is given out a second time, not even after everything has expired and the process was new."""
        accepted = await self.accept()
        delivery = await self.one()
        await self.do(delivery.settle(self.reply(delivery)))
        await self.bench.pass_time(TTL + 10)
        if await self.crash():
            await self.refused(self.bench.store.find(accepted.correlation_id), ExpiredRequest)
            self.assertNotEqual((await self.accept()).correlation_id, accepted.correlation_id)


class _Contract(_Lending, _Settling, _Recording, _Claiming, _Crashing):
    """All of it."""
