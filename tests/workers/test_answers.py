"""Whatever a handler returns or raises ends its attempt: what can be understood is, and the rest has a reason."""

from __future__ import annotations

import enum
from collections import OrderedDict, UserDict, deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http import HTTPStatus
from typing import Any
from unittest.mock import MagicMock

import msgspec
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import Reject, RetryLater
from openhqm.messages import Status
from openhqm.workers.handlers import Response, Work
from tests.workers.bench import WorkerBench


class Fields(str, enum.Enum):  # noqa: UP042 - its str() has the name of the class in front
    KIND = "Content-Type"


class Whole(int):
    """As in numeric libraries: an int of another class."""


class Share(float):
    """As in numeric libraries: a float of another class."""


class Breaking:
    """Each look at it fails: its class, its text, its items."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __getattribute__(self, name: str) -> Any:
        raise object.__getattribute__(self, "error")

    def __str__(self) -> str:
        raise object.__getattribute__(self, "error")

    __repr__ = __str__


class BreakingDict(dict[str, Any]):
    def items(self) -> Any:
        raise SystemExit(3)

    def __iter__(self) -> Any:
        raise KeyboardInterrupt

    keys = values = items


class RetryLaterOfOne(RetryLater):
    """Without a call of the constructor that it inherits from."""

    def __init__(self) -> None:
        pass


class RejectOfOne(Reject):
    def __init__(self) -> None:
        pass


class RetryLaterThatBreaks(RetryLater):
    @property
    def delay(self) -> float:
        raise ZeroDivisionError

    @delay.setter
    def delay(self, value: object) -> None:
        pass


def once(raised: BaseException) -> Callable[[Work], Any]:
    """A handler whose first attempt raises, and whose second one succeeds."""

    def handle(work: Work) -> str:
        if work.attempt == 1:
            raise raised
        return "done"

    return handle


class DelayTests(SynchronousTestCase):
    """The delay of `RetryLater`"""

    def retried_after(self, delay: Any, **more: Any) -> tuple[float | None, str]:
        """The seconds between the first attempt and the second one, and the reason of the first one's failure."""
        bench = WorkerBench(once(RetryLater(delay, "later", **more)))
        correlation_id = bench.submit()
        (retrying,) = (event for event in bench.events(correlation_id) if event.type == "retrying")
        record = bench.record(correlation_id)
        if record.attempt == 2:
            return 0.0, retrying.detail["error"]  # it has begun without a delay
        return round(record.next_attempt_at - retrying.at, 3), retrying.detail["error"]

    def test_understood(self) -> None:
        """Numbers of every kind, durations, points in time and the field Retry-After as it came (RFC 9110, 10.2.3)."""
        now = WorkerBench().backend.now()
        for delay, seconds in (
            (5, 5),
            (Share(2.5), 2.5),
            (Whole(5), 5),
            (Decimal("5.5"), 5.5),
            (timedelta(minutes=2), 120),
            ("5", 5),
            (" 5 ", 5),
            ("7.5", 7.5),
            (b"5", 5),
            (0, 0),
            (datetime.fromtimestamp(now + 60, UTC), 60),
            (datetime.fromtimestamp(now - 60, UTC), 0),
            (10**400, 30 * 86400),
            (31 * 86400, 30 * 86400),
            (timedelta.max, 30 * 86400),
        ):
            self.assertEqual(self.retried_after(delay), (seconds, "later"), delay)

    def test_date(self) -> None:
        """A date of HTTP counts from now, and one that has passed is no delay."""
        bench = WorkerBench()
        at = datetime.fromtimestamp(int(bench.backend.now()) + 60, UTC)
        seconds, _ = self.retried_after(at.strftime("%a, %d %b %Y %H:%M:%S GMT"))
        self.assertAlmostEqual(seconds or 0, 60, delta=1)
        self.assertEqual(self.retried_after("Thu, 01 Jan 1970 00:00:00 GMT"), (0, "later"))

    def test_not_understood(self) -> None:
        """Anything else is replaced by the usual back-off, and the reason says so."""
        for delay in (
            -1,
            timedelta(seconds=-1),
            float("inf"),
            float("-inf"),
            float("nan"),
            Decimal("NaN"),
            Decimal("sNaN"),
            Decimal("Infinity"),
            "",
            "soon",
            "-5",
            "inf",
            "nan",
            "\ud800",
            b"\xff",
            "9" * 5000 + "x",
            True,
            1j,
            [],
            {},
            object(),
            datetime(2026, 1, 1),  # without a zone
            Breaking(ZeroDivisionError()),
            Breaking(SystemExit()),
            MagicMock(),
        ):
            seconds, reason = self.retried_after(delay)
            self.assertEqual(seconds, 1, type(delay))
            self.assertTrue(reason.startswith("later"), reason)
            self.assertIn("back-off", reason)
            self.assertLess(len(reason), 500)

    def test_none(self) -> None:
        """Without a delay it is the back-off, and the reason is the handler's alone."""
        self.assertEqual(self.retried_after(None), (1, "later"))

    def test_at_least(self) -> None:
        """``at_least`` is read like a delay."""
        for at_least, seconds in ((timedelta(seconds=9), 9), ("9", 9), (0.5, 1), (float("nan"), 1), (None, 1)):
            self.assertEqual(self.retried_after(None, at_least=at_least)[0], seconds)

    def test_errors_of_their_own(self) -> None:
        """A subclass that has not called the constructor, or breaks when it is read, is a failed attempt as well."""
        for error in (RetryLaterOfOne(), RetryLaterThatBreaks(3, "later")):
            bench = WorkerBench(once(error))
            correlation_id = bench.submit()
            self.assertEqual(bench.types(correlation_id)[-1], "retrying")
            bench.pass_time(2)
            self.assertEqual(bench.status(correlation_id), Status.COMPLETED)
        bench = WorkerBench(once(RejectOfOne()))
        self.assertEqual(bench.status(bench.submit()), Status.FAILED)
        self.flushLoggedErrors()


class ResponseTests(SynchronousTestCase):
    """A `Response`, and plain results"""

    def reply(self, make: Callable[[], Any]) -> Any:
        bench = WorkerBench(lambda work: make())
        record = bench.record(bench.submit())
        self.assertNotEqual(record.status, Status.PROCESSING)
        return record.reply

    def test_status(self) -> None:
        """Every whole number is understood, and stored as a plain int."""
        for status in (201, HTTPStatus.CREATED, Whole(201)):
            reply = self.reply(lambda status=status: Response("x", status_code=status))
            self.assertEqual((reply.status, reply.status_code), (Status.COMPLETED, 201))
            self.assertIs(type(reply.status_code), int)

    def test_headers(self) -> None:
        """Fields may be a mapping, pairs or None; names and values text, bytes or whole numbers."""
        for headers, expected in (
            (None, {}),
            ({}, {}),
            ((), {}),
            ([("A", "b")], {"A": "b"}),
            ((("A", "b"), ("C", "d")), {"A": "b", "C": "d"}),
            ((pair for pair in [("A", "b")]), {"A": "b"}),
            ({b"A": b"b"}, {"A": "b"}),
            ({"A": b"\xe9"}, {"A": "\xe9"}),
            ({"Content-Length-Guess": 5, "B": Whole(6)}, {"Content-Length-Guess": "5", "B": "6"}),
            ({Fields.KIND: "text/csv"}, {"Content-Type": "text/csv"}),
            (UserDict(A="b"), {"A": "b"}),
            (OrderedDict(A="b"), {"A": "b"}),
        ):
            reply = self.reply(lambda headers=headers: Response(body=b"x", headers=headers))
            self.assertEqual((reply.status, reply.headers), (Status.COMPLETED, expected), reply.error)
            self.assertEqual({type(text) for pair in reply.headers.items() for text in pair} - {str}, set())

    def test_bodies(self) -> None:
        """A body may be any kind of bytes."""
        for body in (b"abc", bytearray(b"abc"), memoryview(b"abc"), memoryview(b"a-b-c")[::2]):
            reply = self.reply(lambda body=body: Response(body=body))
            self.assertEqual((reply.status, reply.body), (Status.COMPLETED, b"abc"))

    def test_results(self) -> None:
        """What reads like a JSON value is one."""
        for value, text in (
            ({"a": Share(1.5)}, b'{"a":1.5}'),
            ([Whole(7)], b"[7]"),
            (UserDict(a=1), b'{"a":1}'),
            (deque([1, 2]), b"[1,2]"),
            (range(3), b"[0,1,2]"),
            ({"a": 1}.keys(), b'["a"]'),
            (Fields.KIND, b'"Content-Type"'),
            ([None, msgspec.Raw(b"[null, 1.50]")], b"[null,[null, 1.50]]"),
            (HTTPStatus.CREATED, b"201"),
        ):
            reply = self.reply(lambda value=value: value)
            self.assertEqual((reply.status, reply.result), (Status.COMPLETED, text), reply.error)

    def test_unusable(self) -> None:
        """What cannot be understood fails at once, with the reason, and is no open request."""
        circle: list[Any] = []
        circle.append(circle)
        for make in (
            lambda: Response("x", headers={"A": None}),
            lambda: Response("x", headers={"A": ["b"]}),
            lambda: Response("x", headers={"A": True}),
            lambda: Response("x", headers={"A": "\ud800"}),
            lambda: Response("x", headers={"A\n": "b"}),
            lambda: Response("x", headers=5),
            lambda: Response("x", headers="ab"),
            lambda: Response("x", headers=[("A",)]),
            lambda: Response("x", headers=Breaking(KeyError())),
            lambda: Response(body="text"),
            lambda: Response(body=Breaking(KeyError())),
            lambda: [Breaking(ZeroDivisionError())],
            lambda: UserDict(a=Breaking(ZeroDivisionError())),
            lambda: [UserDict(a=circle)],
            lambda: Share("nan"),
            lambda: [None, Share("inf")],
            lambda: iter([1]),
            lambda: (number for number in [1]),
            MagicMock,
            lambda: print,
        ):
            reply = self.reply(make)
            self.assertEqual((reply.status, reply.attempt), (Status.FAILED, 1), reply)
            self.assertTrue(reply.error)
        self.flushLoggedErrors()

    def test_breaks_at_first_sight(self) -> None:
        """An answer that cannot even be asked for its class is a failed attempt."""
        for error in (ZeroDivisionError(), SystemExit(), KeyboardInterrupt()):
            bench = WorkerBench(lambda work, error=error: Breaking(error))
            correlation_id = bench.submit()
            self.assertEqual(bench.types(correlation_id)[-1], "retrying")
            self.assertIn(type(error).__name__, bench.events(correlation_id)[-1].detail["error"])
        self.flushLoggedErrors()

    def test_answers_of_errors(self) -> None:
        """The answer that an error carries is read in the same way: the error stays the reason."""
        for answer in (Breaking(SystemExit()), MagicMock(), object(), Response(body="text")):

            def reject(work: Work, answer: object = answer) -> None:
                raise Reject("never", answer)

            bench = WorkerBench(reject)
            reply = bench.record(bench.submit()).reply
            self.assertEqual(reply.status, Status.FAILED)
            self.assertTrue(reply.error.startswith("never"), reply.error)

    def test_dict_that_breaks(self) -> None:
        """Code of the handler's that runs while its answer is written may raise anything."""
        for answer in (BreakingDict(a=1), [BreakingDict(a=1)]):
            reply = self.reply(lambda answer=answer: answer)
            self.assertIsNotNone(reply)


NUMBERS = (
    "12345678901234567890123",
    "-" + "9" * 5000,
    "7" * 20_000,
    "8" * 150_000,
    "3.14159265358979323846264338327950288",
    "12345678901234567.89",
    "1e400",
    "0.1",
    "18446744073709551616",
)


class NumbersTests(SynchronousTestCase):
    """The numbers of the payload reach the handler as they came, and leave it so."""

    def test_round_trip(self) -> None:
        """What a handler returns of its payload has the digits of the payload: by the default handler, and by that of
        an operation which the payload names."""
        for number in NUMBERS:
            seen: list[Any] = []

            def handle(work: Work, seen: list[Any] = seen) -> Any:
                seen.append(work.payload["n"][0])
                return {"of": seen[0], "all": (None, work.payload["n"])}

            payload = f'{{"operation":"add","n":[{number}]}}'
            for bench in (WorkerBench(handle), WorkerBench(by_operation={"add": handle})):
                reply = bench.record(bench.submit(payload.encode())).reply
                self.assertEqual(reply.status, Status.COMPLETED, reply.error)
                self.assertEqual(reply.result.decode(), f'{{"of":{number},"all":[null,[{number}]]}}')
            if len(number) < 4300:
                self.assertEqual(Decimal(str(seen[0])), Decimal(number))

    def test_too_long_result(self) -> None:
        """An integer that would take minutes to write is refused at once."""
        bench = WorkerBench(lambda work: {"a": [1 << 10**7]})
        self.assertIn("digits", bench.record(bench.submit()).reply.error)


class RaisedTests(SynchronousTestCase):
    """What a handler raises, beyond the ordinary"""

    def test_stop_iteration(self) -> None:
        """``next`` of nothing is a failed attempt: it does not complete the request with null."""

        async def awaited(work: Work) -> Any:
            return next(iter(()))

        for handler in (lambda work: next(iter(())), awaited):
            bench = WorkerBench(handler)
            correlation_id = bench.submit()
            bench.pass_time(20)
            reply = bench.record(correlation_id).reply
            self.assertEqual((reply.status, reply.attempt), (Status.FAILED, 4))
            self.assertIn("StopIteration", reply.error)
        self.flushLoggedErrors()

    def test_canceller_that_raises(self) -> None:
        """A Deferred whose canceller raises is given up all the same, with the reason for which it was cancelled."""

        def cancel(answer: Deferred[Any]) -> None:
            raise ZeroDivisionError

        bench = WorkerBench(lambda work: Deferred(cancel))
        correlation_id = bench.submit(timeout=5.0)
        bench.pass_time(6)
        self.assertEqual(bench.status(correlation_id), Status.TIMEOUT)
        self.assertIn("deadline", bench.record(correlation_id).reply.error)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_error_of_ours(self) -> None:
        """Where ending an attempt breaks down, the attempt has failed: the lease does not run out."""
        bench = WorkerBench(once(KeyError("first")))
        broken: list[Any] = []
        context = bench.consumer._context

        class Policy:
            max_retries = 3

            def exhausted(self, attempt: int) -> bool:
                if not broken:
                    broken.append(attempt)
                    raise ZeroDivisionError("of ours")
                return False

            def delay(self, attempt: int, random: Any) -> float:
                return 1.0

        context.policy = Policy()  # type: ignore[assignment]
        correlation_id = bench.submit()
        self.assertEqual(bench.types(correlation_id)[-1], "retrying")
        self.assertIn("of ours", bench.events(correlation_id)[-1].detail["error"])
        bench.pass_time(2)
        self.assertEqual(bench.status(correlation_id), Status.COMPLETED)
        self.assertEqual((len(broken), len(self.flushLoggedErrors(ZeroDivisionError))), (1, 1))
        self.flushLoggedErrors()
