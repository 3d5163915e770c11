"""An attempt ends in exactly one way, whatever the handler does."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import NotDurable, Reject, RetryLater
from openhqm.messages import Status
from openhqm.testing import LEASE
from openhqm.workers.handlers import Response, Work
from tests.benches import SqliteBench
from tests.workers.bench import Hand, Workshop


class Answers(SynchronousTestCase):
    """What a handler returns becomes the reply."""

    def test_echo(self) -> None:
        """Without a handler the payload comes back, byte for byte."""
        shop = Workshop()
        record = shop.record(shop.submit(b'{"a":  12345678901234567890123}'))
        self.assertEqual((record.status, record.attempt), (Status.COMPLETED, 1))
        self.assertEqual(record.reply.result, b'{"a":  12345678901234567890123}')

    def test_coroutine(self) -> None:
        """An async def is awaited, and sees what it was sent."""
        seen: list[Any] = []

        async def handle(work: Work) -> Any:
            seen.append((work.payload, work.header("x-a"), work.metadata, work.attempt, work.time_left))
            return {"ok": True}

        shop = Workshop(handle)
        record = shop.record(shop.submit(b'{"n": 1}', headers={"X-A": "b"}, metadata={"own": 2}))
        self.assertEqual(record.reply.result, b'{"ok":true}')
        self.assertEqual(seen, [({"n": 1}, "b", {"own": 2}, 1, 50.0)])

    def test_deferred(self) -> None:
        """A Deferred is waited for; the request is PROCESSING meanwhile."""
        hand = Hand()
        shop = Workshop(hand)
        correlation_id = shop.submit()
        self.assertEqual(shop.status(correlation_id), Status.PROCESSING)
        shop.pass_time(7)
        hand.answers[0].callback([1, None])
        record = shop.record(correlation_id)
        self.assertEqual((record.reply.result, record.reply.processing_time_ms), (b"[1,null]", 7000))

    def test_response(self) -> None:
        """A handler may answer with bytes, a status and headers of its own."""
        shop = Workshop(lambda work: Response(body=b"\x00\xff", status_code=201, headers={"Content-Type": "image/x"}))
        reply = shop.record(shop.submit()).reply
        self.assertEqual(
            (reply.body, reply.status_code, reply.headers), (b"\x00\xff", 201, {"Content-Type": "image/x"})
        )

    def test_not_json(self) -> None:
        """An answer that JSON cannot carry fails the request at once, with words; nothing is lost."""
        for answer in (object(), float("nan"), {1, 2, complex(1, 2)}, {"a": float("inf")}):
            shop = Workshop(lambda work, answer=answer: answer)
            reply = shop.record(shop.submit()).reply
            self.assertEqual(reply.status, Status.FAILED)
            self.assertIn("not JSON", reply.error)
            self.assertEqual([letter.reason for letter in shop.letters()], ["unusable answer"])

    def test_body_that_is_no_bytes(self) -> None:
        """A text where bytes belong fails the request at once, with words."""
        for bench in (None, SqliteBench()):
            shop = Workshop(lambda work: Response(body="a text"), bench=bench)  # type: ignore[arg-type]
            reply = shop.record(shop.submit()).reply
            self.assertEqual((reply.status, reply.attempt), (Status.FAILED, 1))
            self.assertIn("not bytes but str", reply.error)

    def test_too_large(self) -> None:
        """An answer past the limit fails with words, not with memory."""
        shop = Workshop(lambda work: "x" * (11 * 1024 * 1024))
        self.assertIn("larger than", shop.record(shop.submit()).reply.error)


class Failures(SynchronousTestCase):
    """What a handler raises is tried again, and then kept."""

    def test_more_than_an_exception(self) -> None:
        """What is no Exception, and what cannot say what it is, are failed attempts like any other."""

        class Speechless(Exception):
            def __str__(self) -> str:
                raise ZeroDivisionError

        for error in (KeyboardInterrupt("stop"), GeneratorExit(), asyncio.CancelledError(), Speechless()):
            for kind in (False, True):

                def plain(work: Work, error: BaseException = error) -> Any:
                    raise error

                async def awaited(work: Work, error: BaseException = error) -> Any:
                    raise error

                shop = Workshop(awaited if kind else plain)
                correlation_id = shop.submit()
                shop.pass_time(20)
                reply = shop.record(correlation_id).reply
                self.assertEqual((reply.status, reply.attempt), (Status.FAILED, 4), error)
                self.assertIn(type(error).__name__, reply.error)
        self.flushLoggedErrors()

    def test_back_off(self) -> None:
        """Attempts follow after 1, 2 and 4 seconds; then it is a dead letter, with reason and last answer."""
        calls: list[float] = []
        shop = Workshop()

        def handle(work: Work) -> None:
            calls.append(shop.bench.now())
            raise RuntimeError(f"no luck {work.attempt}")

        shop = Workshop(handle)
        correlation_id = shop.submit()
        shop.pass_time(20)
        self.assertEqual([round(later - earlier) for earlier, later in pairwise(calls)], [1, 2, 4])
        reply = shop.record(correlation_id).reply
        self.assertEqual((reply.status, reply.error, reply.attempt), (Status.FAILED, "RuntimeError: no luck 4", 4))
        (letter,) = shop.letters()
        self.assertEqual((letter.reason, letter.reply), ("4 attempts failed", reply))
        self.assertEqual(
            shop.types(correlation_id), ["pending", *["processing", "retrying"] * 3, "processing", "failed"]
        )
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 4)

    def test_recovers(self) -> None:
        """An attempt that succeeds ends it, and leaves no dead letter."""

        def handle(work: Work) -> int:
            if work.attempt < 3:
                raise KeyError("not yet")
            return work.attempt

        shop = Workshop(handle)
        correlation_id = shop.submit()
        shop.pass_time(10)
        self.assertEqual(shop.record(correlation_id).reply.result, b"3")
        self.assertEqual(shop.letters(), [])
        self.flushLoggedErrors(KeyError)

    def test_reject(self) -> None:
        """A handler that rejects has no second attempt."""

        def handle(work: Work) -> None:
            raise Reject("never")

        shop = Workshop(handle)
        correlation_id = shop.submit()
        reply = shop.record(correlation_id).reply
        self.assertEqual((reply.status, reply.error, reply.attempt), (Status.FAILED, "never", 1))
        self.assertEqual([letter.reason for letter in shop.letters()], ["rejected by the handler"])

    def test_retry_later(self) -> None:
        """A handler that knows better says when; an absurd time is not taken."""

        def handle(work: Work) -> int:
            if work.attempt == 1:
                raise RetryLater(30)
            if work.attempt == 2:
                raise RetryLater(float("nan"))
            return work.attempt

        shop = Workshop(handle)
        correlation_id = shop.submit()
        shop.pass_time(29)
        self.assertEqual(shop.record(correlation_id).attempt, 1)
        shop.pass_time(2)
        self.assertEqual(shop.record(correlation_id).attempt, 2)
        shop.pass_time(3)
        self.assertEqual(shop.status(correlation_id), Status.COMPLETED)

    def test_unknown_operation(self) -> None:
        """Without a handler for everything else, an operation nobody knows is a dead letter that says so."""
        shop = Workshop(by_operation={"add": lambda work: 1 + 1})
        self.assertEqual(shop.record(shop.submit(b'{"operation": "add"}')).reply.result, b"2")
        self.assertEqual(shop.record(shop.submit(b"1", metadata={"operation": "add"})).reply.result, b"2")
        self.assertIn("'sub'", shop.record(shop.submit(b'{"operation": "sub"}')).reply.error)

    def test_exit(self) -> None:
        """sys.exit in a handler is a failed attempt, not the end of the process."""

        def handle(work: Work) -> None:
            raise SystemExit(3)

        shop = Workshop(handle)
        correlation_id = shop.submit()
        shop.pass_time(20)
        self.assertEqual(shop.status(correlation_id), Status.FAILED)
        self.flushLoggedErrors(SystemExit)

    def test_poison(self) -> None:
        """What takes the process down with each attempt is a dead letter after the last, unhandled."""
        hand = Hand()
        shop = Workshop(hand, bench=SqliteBench())
        self.addCleanup(shop.bench.close)
        correlation_id = shop.submit()
        for _ in range(4):
            self.assertEqual(shop.status(correlation_id), Status.PROCESSING)
            shop.crash()
        reply = shop.record(correlation_id).reply
        self.assertEqual(reply.status, Status.FAILED)
        self.assertIn("the process ended with them", reply.error)
        self.assertEqual([letter.reason for letter in shop.letters()], ["poison"])
        self.assertEqual(len(hand.works), 4)

    def test_retry_survives(self) -> None:
        """The back-off goes on where it was after a crash."""
        calls: list[int] = []

        def handle(work: Work) -> int:
            calls.append(work.attempt)
            if work.attempt == 1:
                raise RetryLater(30)
            return 1

        shop = Workshop(handle, bench=SqliteBench())
        self.addCleanup(shop.bench.close)
        correlation_id = shop.submit()
        shop.crash()
        shop.pass_time(28)
        self.assertEqual(calls, [1])
        shop.pass_time(3)
        self.assertEqual(calls, [1, 2])
        self.assertEqual(shop.status(correlation_id), Status.COMPLETED)


class Limits(SynchronousTestCase):
    """No attempt goes on for ever."""

    def test_hanging(self) -> None:
        """A handler that hangs is stopped at its limit and tried again; the last time it is TIMEOUT."""
        hand = Hand()
        shop = Workshop(hand)
        correlation_id = shop.submit()
        shop.pass_time(50.5)
        self.assertEqual((hand.cancelled, shop.types(correlation_id)[-1]), (1, "retrying"))
        shop.pass_time(4 * 50 + 7)
        reply = shop.record(correlation_id).reply
        self.assertEqual((reply.status, reply.attempt, hand.cancelled), (Status.TIMEOUT, 4, 4))
        self.assertEqual(len(shop.letters()), 1)

    def test_deadline(self) -> None:
        """The request's own deadline stops its handler and ends it, without another attempt."""
        hand = Hand()
        shop = Workshop(hand)
        correlation_id = shop.submit(timeout=5.0)
        self.assertEqual(hand.works[0].time_left, 5.0)
        shop.pass_time(6)
        self.assertEqual((shop.status(correlation_id), hand.cancelled), (Status.TIMEOUT, 1))
        shop.pass_time(100)
        self.assertEqual((len(hand.works), shop.consumer.in_hand), (1, 0))

    def test_cancelled(self) -> None:
        """A caller who cancels stops the handler."""
        hand = Hand()
        shop = Workshop(hand)
        correlation_id = shop.submit()
        shop.bench.store.cancel(correlation_id)
        shop.bench.turn()
        self.assertEqual((hand.cancelled, shop.consumer.in_hand), (1, 0))
        self.assertEqual(shop.status(correlation_id), Status.CANCELLED)

    def test_long(self) -> None:
        """A handler that works for hours keeps its loan."""
        hand = Hand()
        shop = Workshop(hand, timeout=5 * 3600)
        correlation_id = shop.submit()
        shop.pass_time(2 * 3600)
        self.assertEqual(len(hand.works), 1)
        hand.answers[0].callback("done")
        self.assertEqual(shop.record(correlation_id).attempt, 1)

    def test_stubborn_thread(self) -> None:
        """A thread that does not come back keeps its slot; the request ends, and its late answer is dropped."""
        shop = Workshop(lambda work: None, in_threads=True, count=1)
        correlation_id = shop.submit(timeout=5.0)
        other = shop.submit()
        shop.pass_time(LEASE * 2)
        self.assertEqual(shop.status(correlation_id), Status.TIMEOUT)
        self.assertEqual((shop.consumer.in_hand, shop.status(other)), (1, Status.PENDING))
        self.assertIn("does not return", shop.consumer.unavailable_reason or "")
        shop.threads[0].callback("too late")
        shop.bench.turn()
        self.assertIsNone(shop.consumer.unavailable_reason)
        shop.threads[1].callback("in time")
        self.assertEqual(shop.record(other).reply.result, b'"in time"')
        self.assertEqual(shop.status(correlation_id), Status.TIMEOUT)


class Progress(SynchronousTestCase):
    def test_progress(self) -> None:
        """What a handler reports is part of the history, under the attempt that reported it."""

        async def handle(work: Work) -> None:
            work.progress(percent=50, note="half")

        shop = Workshop(handle)
        events = shop.events(shop.submit())
        self.assertEqual([event.type for event in events], ["pending", "processing", "progress", "completed"])
        self.assertEqual(events[2].detail, {"attempt": 1, "percent": 50, "note": "half"})

    def test_useless_progress(self) -> None:
        """A report that cannot be kept does not fail the work."""

        async def handle(work: Work) -> int:
            work.progress(thing=object())
            work.progress(large="x" * 100_000)
            return 1

        shop = Workshop(handle)
        self.assertEqual(shop.status(shop.submit()), Status.COMPLETED)


class Settling(SynchronousTestCase):
    def test_disk_full(self) -> None:
        """A reply that cannot be kept now is kept later: the work is not done twice."""
        hand = Hand()
        shop = Workshop(hand, bench=SqliteBench())
        self.addCleanup(shop.bench.close)
        correlation_id = shop.submit()
        connection = shop.bench.file.connection  # type: ignore[attr-defined]
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count={pages}")
        refused: list[Any] = []
        shop.bench.queue.accept(_large(), None).addErrback(refused.append)
        shop.bench.turn()
        self.assertTrue(refused[0].check(NotDurable))
        self.assertIn("full", shop.bench.queue.unavailable_reason)
        hand.answers[0].callback("y" * 200_000)
        shop.pass_time(5)
        self.assertEqual(shop.status(correlation_id), Status.PROCESSING)
        connection.execute("PRAGMA max_page_count=1000000")
        shop.pass_time(5)
        self.assertEqual(shop.status(correlation_id), Status.COMPLETED)
        self.assertIsNone(shop.bench.queue.unavailable_reason)
        self.assertEqual(len(hand.works), 1)


def _large() -> Any:
    from openhqm.messages import Submission

    return Submission(b'"' + b"x" * 100_000 + b'"')


class Handing(SynchronousTestCase):
    def test_handler_lets_go_late(self) -> None:
        """A coroutine that swallows its cancellation holds its slot until it is done, and nothing else."""
        inner: Deferred[None] = Deferred()

        async def handle(work: Work) -> str:
            try:
                await Deferred()
            except BaseException:
                await inner
            return "late"

        shop = Workshop(handle)
        correlation_id = shop.submit(timeout=5.0)
        shop.pass_time(6)
        self.assertEqual((shop.status(correlation_id), shop.consumer.in_hand), (Status.TIMEOUT, 1))
        inner.callback(None)
        shop.bench.turn()
        self.assertEqual((shop.status(correlation_id), shop.consumer.in_hand), (Status.TIMEOUT, 0))
