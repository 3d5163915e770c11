"""Attempts: each one ends in exactly one way, whatever its handler does."""

from __future__ import annotations

import asyncio
import gc
from itertools import pairwise
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import NotDurable, Reject, RetryLater
from openhqm.messages import Status
from openhqm.testing import LEASE
from openhqm.workers.handlers import Response, Work, echo
from tests.benches import SqliteBench
from tests.workers.bench import ManualHandler, WorkerBench


class AnswersTests(SynchronousTestCase):
    """What a handler returns becomes the reply."""

    def test_echo(self) -> None:
        """From the echo the payload comes back, byte for byte."""
        bench = WorkerBench(echo)
        record = bench.record(bench.submit(b'{"a":  12345678901234567890123}'))
        self.assertEqual((record.status, record.attempt), (Status.COMPLETED, 1))
        self.assertEqual(record.reply.result, b'{"a":  12345678901234567890123}')

    def test_coroutine(self) -> None:
        """A coroutine is awaited, and sees payload, headers, metadata, attempt and time left."""
        seen: list[Any] = []

        async def handle(work: Work) -> Any:
            seen.append((work.payload, work.header("x-a"), work.metadata, work.attempt, work.time_left))
            return {"ok": True}

        bench = WorkerBench(handle)
        record = bench.record(bench.submit(b'{"n": 1}', headers={"X-A": "b"}, metadata={"own": 2}))
        self.assertEqual(record.reply.result, b'{"ok":true}')
        self.assertEqual(seen, [({"n": 1}, "b", {"own": 2}, 1, 50.0)])

    def test_deferred(self) -> None:
        """A Deferred is awaited, and the request is PROCESSING until it fires."""
        handler = ManualHandler()
        bench = WorkerBench(handler)
        correlation_id = bench.submit()
        self.assertEqual(bench.status(correlation_id), Status.PROCESSING)
        bench.pass_time(7)
        handler.answers[0].callback([1, None])
        record = bench.record(correlation_id)
        self.assertEqual((record.reply.result, record.reply.processing_time_ms), (b"[1,null]", 7000))

    def test_response(self) -> None:
        """A handler may answer with bytes, a status and headers of its own."""
        bench = WorkerBench(
            lambda work: Response(body=b"\x00\xff", status_code=201, headers={"Content-Type": "image/x"})
        )
        reply = bench.record(bench.submit()).reply
        self.assertEqual(
            (reply.body, reply.status_code, reply.headers), (b"\x00\xff", 201, {"Content-Type": "image/x"})
        )

    def test_result_not_kept(self) -> None:
        """Where no caller asks for it, a completed request keeps its status code; a failed one keeps the answer."""
        for answer in (
            Response({"a": 1}, status_code=202, headers={"X-A": "b"}),
            Response(body=b"bytes", status_code=202),
        ):
            for backend in (None, SqliteBench()):
                bench = WorkerBench(lambda work, answer=answer: answer, backend=backend)  # type: ignore[arg-type]
                reply = bench.record(bench.submit(keeps_result=False)).reply
                self.assertEqual((reply.status, reply.status_code), (Status.COMPLETED, 202))
                self.assertEqual((reply.result, reply.body, reply.headers), (None, None, {}))

        def refuse(work: Work) -> None:
            raise Reject("no", Response("why", status_code=409))

        bench = WorkerBench(refuse)
        reply = bench.record(bench.submit(keeps_result=False)).reply
        self.assertEqual((reply.status, reply.result, reply.status_code), (Status.FAILED, b'"why"', 409))

    def test_not_json(self) -> None:
        """An answer that JSON cannot carry fails the request at once and is named in the error; the request is
        dead-lettered."""
        for answer in (object(), float("nan"), {1, 2, complex(1, 2)}, {"a": float("inf")}):
            bench = WorkerBench(lambda work, answer=answer: answer)
            reply = bench.record(bench.submit()).reply
            self.assertEqual(reply.status, Status.FAILED)
            self.assertIn("not JSON", reply.error)
            self.assertEqual(bench.reasons(), [("unusable answer", "unusable_answer")])

    def test_body_of_wrong_type(self) -> None:
        """A body that is text instead of bytes fails the request at once, and the error names the type."""
        for bench in (None, SqliteBench()):
            bench = WorkerBench(lambda work: Response(body="a text"), backend=bench)  # type: ignore[arg-type]
            reply = bench.record(bench.submit()).reply
            self.assertEqual((reply.status, reply.attempt), (Status.FAILED, 1))
            self.assertIn("not bytes but str", reply.error)

    def test_too_large(self) -> None:
        """An answer beyond the limit fails the request, and the error names the limit."""
        bench = WorkerBench(lambda work: "x" * (11 * 1024 * 1024))
        self.assertIn("larger than", bench.record(bench.submit()).reply.error)


class FailuresTests(SynchronousTestCase):
    """A request whose handler raises is tried again, and becomes a dead letter after the last attempt."""

    def test_base_exceptions(self) -> None:
        """A BaseException, and an exception whose text cannot be read, are failed attempts like any other."""

        class Speechless(Exception):
            def __str__(self) -> str:
                raise ZeroDivisionError

        for error in (KeyboardInterrupt("stop"), GeneratorExit(), asyncio.CancelledError(), Speechless()):
            for kind in (False, True):

                def plain(work: Work, error: BaseException = error) -> Any:
                    raise error

                async def awaited(work: Work, error: BaseException = error) -> Any:
                    raise error

                bench = WorkerBench(awaited if kind else plain)
                correlation_id = bench.submit()
                bench.pass_time(20)
                reply = bench.record(correlation_id).reply
                self.assertEqual((reply.status, reply.attempt), (Status.FAILED, 4), error)
                self.assertIn(type(error).__name__, reply.error)
        self.flushLoggedErrors()

    def test_back_off(self) -> None:
        """Attempts follow after 1, 2 and 4 seconds.

        Then the request is a dead letter, with the reason and the last answer.
        """
        calls: list[float] = []
        bench = WorkerBench()

        def handle(work: Work) -> None:
            calls.append(bench.backend.now())
            raise RuntimeError(f"no luck {work.attempt}")

        bench = WorkerBench(handle)
        correlation_id = bench.submit()
        bench.pass_time(20)
        self.assertEqual([round(later - earlier) for earlier, later in pairwise(calls)], [1, 2, 4])
        reply = bench.record(correlation_id).reply
        self.assertEqual((reply.status, reply.error, reply.attempt), (Status.FAILED, "RuntimeError: no luck 4", 4))
        (letter,) = bench.letters()
        self.assertEqual((letter.reason, letter.reply), ("4 attempts failed", reply))
        self.assertEqual(reply.reason_class, "attempts_exhausted")
        self.assertEqual(
            bench.types(correlation_id), ["pending", *["processing", "retrying"] * 3, "processing", "failed"]
        )
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 4)

    def test_recovers(self) -> None:
        """An attempt that succeeds ends the request, which is no dead letter."""

        def handle(work: Work) -> int:
            if work.attempt < 3:
                raise KeyError("not yet")
            return work.attempt

        bench = WorkerBench(handle)
        correlation_id = bench.submit()
        bench.pass_time(10)
        self.assertEqual(bench.record(correlation_id).reply.result, b"3")
        self.assertEqual(bench.letters(), [])
        self.flushLoggedErrors(KeyError)

    def test_reject(self) -> None:
        """A request that the handler rejects has no second attempt."""

        def handle(work: Work) -> None:
            raise Reject("never")

        bench = WorkerBench(handle)
        correlation_id = bench.submit()
        reply = bench.record(correlation_id).reply
        self.assertEqual((reply.status, reply.error, reply.attempt), (Status.FAILED, "never", 1))
        self.assertEqual(bench.reasons(), [("rejected by the handler", "rejected")])

    def test_retry_later(self) -> None:
        """A handler may choose the delay of the retry. A delay that is no finite number is replaced by the back-off."""

        def handle(work: Work) -> int:
            if work.attempt == 1:
                raise RetryLater(30)
            if work.attempt == 2:
                raise RetryLater(float("nan"))
            return work.attempt

        bench = WorkerBench(handle)
        correlation_id = bench.submit()
        bench.pass_time(29)
        self.assertEqual(bench.record(correlation_id).attempt, 1)
        bench.pass_time(2)
        self.assertEqual(bench.record(correlation_id).attempt, 2)
        bench.pass_time(3)
        self.assertEqual(bench.status(correlation_id), Status.COMPLETED)

    def test_unknown_operation(self) -> None:
        """Without a default handler, a request with an unknown operation fails, and the error names the operation."""
        bench = WorkerBench(by_operation={"add": lambda work: 1 + 1})
        self.assertEqual(bench.record(bench.submit(b'{"operation": "add"}')).reply.result, b"2")
        self.assertEqual(bench.record(bench.submit(b"1", metadata={"operation": "add"})).reply.result, b"2")
        self.assertIn("'sub'", bench.record(bench.submit(b'{"operation": "sub"}')).reply.error)

    def test_exit(self) -> None:
        """sys.exit in a handler is a failed attempt, not the end of the process."""

        def handle(work: Work) -> None:
            raise SystemExit(3)

        bench = WorkerBench(handle)
        correlation_id = bench.submit()
        bench.pass_time(20)
        self.assertEqual(bench.status(correlation_id), Status.FAILED)
        self.flushLoggedErrors(SystemExit)

    def test_poison(self) -> None:
        """A request that ends the process during each attempt is a dead letter after the last one, and is not handled
        again."""
        handler = ManualHandler()
        bench = WorkerBench(handler, backend=SqliteBench())
        self.addCleanup(bench.backend.close)
        correlation_id = bench.submit()
        for _ in range(4):
            self.assertEqual(bench.status(correlation_id), Status.PROCESSING)
            bench.crash()
        reply = bench.record(correlation_id).reply
        self.assertEqual(reply.status, Status.FAILED)
        self.assertIn("the worker process ended during each of the 4 attempts", reply.error)
        self.assertEqual(bench.reasons(), [("poison", "poison")])
        self.assertEqual(len(handler.works), 4)

    def test_retry_survives(self) -> None:
        """After a crash the retry comes when it was due before."""
        calls: list[int] = []

        def handle(work: Work) -> int:
            calls.append(work.attempt)
            if work.attempt == 1:
                raise RetryLater(30)
            return 1

        bench = WorkerBench(handle, backend=SqliteBench())
        self.addCleanup(bench.backend.close)
        correlation_id = bench.submit()
        bench.crash()
        bench.pass_time(28)
        self.assertEqual(calls, [1])
        bench.pass_time(3)
        self.assertEqual(calls, [1, 2])
        self.assertEqual(bench.status(correlation_id), Status.COMPLETED)


class LimitsTests(SynchronousTestCase):
    """The limits of an attempt: time-out, deadline, cancellation and lease."""

    def test_hanging(self) -> None:
        """A handler that hangs is cancelled at the limit, and the request is tried again; after the last attempt it is
        TIMEOUT."""
        handler = ManualHandler()
        bench = WorkerBench(handler)
        correlation_id = bench.submit()
        bench.pass_time(50.5)
        self.assertEqual((handler.cancelled, bench.types(correlation_id)[-1]), (1, "retrying"))
        bench.pass_time(4 * 50 + 7)
        reply = bench.record(correlation_id).reply
        self.assertEqual((reply.status, reply.attempt, handler.cancelled), (Status.TIMEOUT, 4, 4))
        self.assertEqual(len(bench.letters()), 1)

    def test_deadline(self) -> None:
        """The deadline of the request cancels the handler and ends the request, without another attempt."""
        handler = ManualHandler()
        bench = WorkerBench(handler)
        correlation_id = bench.submit(timeout=5.0)
        self.assertEqual(handler.works[0].time_left, 5.0)
        bench.pass_time(6)
        self.assertEqual((bench.status(correlation_id), handler.cancelled), (Status.TIMEOUT, 1))
        self.assertIn("deadline", bench.record(correlation_id).reply.error)
        bench.pass_time(100)
        self.assertEqual((len(handler.works), bench.consumer.in_progress), (1, 0))

    def test_cancelled(self) -> None:
        """Cancelling a request cancels its handler."""
        handler = ManualHandler()
        bench = WorkerBench(handler)
        correlation_id = bench.submit()
        bench.backend.store.cancel(correlation_id)
        bench.backend.turn()
        self.assertEqual((handler.cancelled, bench.consumer.in_progress), (1, 0))
        self.assertEqual(bench.status(correlation_id), Status.CANCELLED)

    def test_lease_extended(self) -> None:
        """The lease of a delivery is extended for as long as its handler works."""
        handler = ManualHandler()
        bench = WorkerBench(handler, timeout=5 * 3600)
        correlation_id = bench.submit()
        bench.pass_time(2 * 3600)
        self.assertEqual(len(handler.works), 1)
        handler.answers[0].callback("done")
        self.assertEqual(bench.record(correlation_id).attempt, 1)

    def test_thread_that_does_not_return(self) -> None:
        """A thread that does not return keeps its slot. Its request ends, and its late answer is dropped."""
        bench = WorkerBench(lambda work: None, in_threads=True, count=1)
        correlation_id = bench.submit(timeout=5.0)
        other = bench.submit()
        bench.pass_time(LEASE * 2)
        self.assertEqual(bench.status(correlation_id), Status.TIMEOUT)
        self.assertEqual((bench.consumer.in_progress, bench.status(other)), (1, Status.PENDING))
        self.assertIn("has not returned", bench.consumer.unavailable_reason or "")
        bench.threads[0].callback("too late")
        bench.backend.turn()
        self.assertIsNone(bench.consumer.unavailable_reason)
        bench.threads[1].callback("in time")
        self.assertEqual(bench.record(other).reply.result, b'"in time"')
        self.assertEqual(bench.status(correlation_id), Status.TIMEOUT)


class ProgressTests(SynchronousTestCase):
    def test_progress(self) -> None:
        """A progress event is part of the history, under the attempt that reported it."""

        async def handle(work: Work) -> None:
            work.progress(percent=50, note="half")

        bench = WorkerBench(handle)
        events = bench.events(bench.submit())
        self.assertEqual([event.type for event in events], ["pending", "processing", "progress", "completed"])
        self.assertEqual(events[2].detail, {"attempt": 1, "percent": 50, "note": "half"})

    def test_progress_not_stored(self) -> None:
        """A progress event that cannot be stored does not fail the attempt."""

        async def handle(work: Work) -> int:
            work.progress(thing=object())
            work.progress(large="x" * 100_000)
            return 1

        bench = WorkerBench(handle)
        self.assertEqual(bench.status(bench.submit()), Status.COMPLETED)


class SettlingTests(SynchronousTestCase):
    def test_disk_full(self) -> None:
        """A reply that cannot be stored now is stored later, and the handler is called once."""
        handler = ManualHandler()
        bench = WorkerBench(handler, backend=SqliteBench())
        self.addCleanup(bench.backend.close)
        correlation_id = bench.submit()
        connection = bench.backend.file.connection  # type: ignore[attr-defined]
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count={pages}")
        refused: list[Any] = []
        bench.backend.queue.accept(_large(), None).addErrback(refused.append)
        bench.backend.turn()
        self.assertTrue(refused[0].check(NotDurable))
        self.assertIn("full", bench.backend.queue.unavailable_reason)
        handler.answers[0].callback("y" * 200_000)
        bench.pass_time(5)
        self.assertEqual(bench.status(correlation_id), Status.PROCESSING)
        connection.execute("PRAGMA max_page_count=1000000")
        bench.pass_time(5)
        self.assertEqual(bench.status(correlation_id), Status.COMPLETED)
        self.assertIsNone(bench.backend.queue.unavailable_reason)
        self.assertEqual(len(handler.works), 1)


def _large() -> Any:
    from openhqm.messages import Submission

    return Submission(b'"' + b"x" * 100_000 + b'"')


class LateHandlersTests(SynchronousTestCase):
    def test_swallowed_cancellation(self) -> None:
        """A coroutine that swallows its cancellation keeps its slot until it returns; its request has ended before."""
        inner: Deferred[None] = Deferred()

        async def handle(work: Work) -> str:
            try:
                await Deferred()
            except BaseException:
                await inner
            return "late"

        bench = WorkerBench(handle)
        correlation_id = bench.submit(timeout=5.0)
        bench.pass_time(6)
        self.assertEqual((bench.status(correlation_id), bench.consumer.in_progress), (Status.TIMEOUT, 1))
        inner.callback(None)
        bench.backend.turn()
        self.assertEqual((bench.status(correlation_id), bench.consumer.in_progress), (Status.TIMEOUT, 0))


class GarbageTests(SynchronousTestCase):
    """An attempt that has ended is freed at once: the garbage collector would take an eighth of the time otherwise."""

    def left(self, handler: Any, answered: Any) -> int:
        """How many objects of forty attempts only the garbage collector finds; ``answered`` is called after each."""
        bench = WorkerBench(handler)
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        for _ in range(40):
            bench.submit()
            answered()
        return gc.collect()

    def test_at_once(self) -> None:
        """Handlers that answer at once."""
        self.assertLess(self.left(echo, lambda: None), 40)

    def test_later(self) -> None:
        """Handlers that answer later, and that keep the time limit themselves or not."""
        answers: list[Deferred[Any]] = []

        def handle(work: Work) -> Any:
            answers.append(Deferred())
            return answers[-1]

        for keeps_time in (True, False):
            handle.keeps_time = keeps_time  # type: ignore[attr-defined]
            self.assertLess(self.left(handle, lambda: answers.pop().callback(1)), 40)
