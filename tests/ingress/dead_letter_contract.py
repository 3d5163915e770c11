"""What the dead letters over HTTP promise on every backend."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.trial.unittest import TestCase

from openhqm.errors import NotDurable
from openhqm.ingress.answers import HTTPProblem
from openhqm.ingress.dead_letter_queries import read_drop, read_query, read_redrive
from openhqm.ingress.dead_letters import DeadLetters
from openhqm.messages import Status
from openhqm.runtime.times import rfc3339
from openhqm.testing.bench import LEASE, REQUESTS, Base, Bench


class BenchClock:
    """The time of a bench, and the turns of the real reactor."""

    def __init__(self, bench: Any) -> None:
        from twisted.internet import reactor

        self.seconds = bench.now
        self.callLater = reactor.callLater  # type: ignore[attr-defined]


class DeadLettersCase(Base):
    closed = False

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.letters = DeadLetters(self.bench.queue, BenchClock(self.bench), lambda: self.closed)  # type: ignore[arg-type]
        # What a backend does in one turn of its clock has to be done while an answer is being made.
        turning = LoopingCall(lambda: self.bench.clock.advance(0))  # type: ignore[attr-defined]
        turning.start(0.001, now=False)
        self.addCleanup(turning.stop)

    async def failed(self, payload: bytes = b"1", kind: str | None = None, **fields: Any) -> str:
        """The id of a request that is a dead letter now."""
        accepted = await self.accept(payload, **fields)
        queue = self.queue_of(fields.get("endpoint"))
        (delivery,) = await self.do(self.bench.queue.receive(queue, 1))
        reply = self.reply(delivery, status=Status.FAILED)
        await self.do(delivery.dead_letter("no luck", replace(reply, reason_class=kind, error="no luck at all")))
        return accepted.correlation_id

    def queue_of(self, endpoint: str | None) -> str:
        return REQUESTS if endpoint is None else f"{REQUESTS}.{endpoint}"

    async def list(self, **query: str) -> Any:
        answer = await self.letters.page(read_query({name.encode(): [value.encode()] for name, value in query.items()}))
        self.assertEqual(answer.status, 200)
        return json.loads(answer.body)

    async def redrive(self, filter: Any = None, **members: Any) -> Any:
        order = read_redrive(json.dumps({"filter": filter or {}, **members}).encode())
        return json.loads((await self.letters.redrive(order)).body)

    async def drop(self, **query: str) -> Any:
        order = read_drop({name.encode(): [value.encode()] for name, value in query.items()})
        return json.loads((await self.letters.drop(order)).body)

    async def numbers(self) -> list[int]:
        return [letter["number"] for letter in (await self.list())["dead_letters"]]

    async def ids(self, **query: str) -> list[str]:
        return [letter["correlation_id"] for letter in (await self.list(**query))["dead_letters"]]

    async def problem(self, work: Any, status: int) -> str:
        try:
            await work
        except HTTPProblem as error:
            self.assertEqual(error.status, status)
            return error.detail
        raise self.failureException("no problem")


class Listing(DeadLettersCase):
    async def test_clock_set(self) -> None:
        """Where the time of day was set, dead letters are shown, and asked for, by it as it is now."""
        for ahead in (3600.0, -3600.0):
            id, at = await self.failed(), self.bench.now() + ahead
            clock: Any = BenchClock(self.bench)
            self.letters = DeadLetters(self.bench.queue, clock, lambda: self.closed, lambda ahead=ahead: ahead)  # type: ignore[misc]
            (letter,) = (await self.list())["dead_letters"]
            self.assertEqual(letter["failed_at"], rfc3339(at))
            self.assertEqual(await self.ids(since=rfc3339(at - 10)), [id])
            self.assertEqual(await self.ids(since=rfc3339(at + 10)), [])
            await self.bench.pass_time(1)
            self.assertEqual((await self.drop(all="true"))["count"], 1)

    async def test_listed(self) -> None:
        """A list says of each what it takes to decide what becomes of it, and holds no payload."""
        self.assertEqual(await self.list(), {"dead_letters": [], "cursor": None})
        at = self.bench.now()
        id = await self.failed(b'"secret"', "rejected", endpoint="billing")
        found = await self.list()
        (letter,) = found["dead_letters"]
        self.assertEqual(
            letter,
            {
                "number": letter["number"],
                "correlation_id": id,
                "endpoint": "billing",
                "tenant": None,
                "reason_class": "rejected",
                "reason": "no luck",
                "status": "FAILED",
                "status_code": 200,
                "error": "no luck at all",
                "attempt": 1,
                "bytes": len(b'"secret"') + 1,
                "submitted_at": rfc3339(at),
                "first_attempt_at": rfc3339(at),
                "last_attempt_at": rfc3339(at),
                "failed_at": rfc3339(self.bench.now()),
            },
        )
        self.assertIsNone(found["cursor"])

    async def test_filtered(self) -> None:
        """By endpoint, by tenant, by class of reason and by time, and by all of them together."""
        first = await self.failed(kind="rejected", endpoint="billing")
        second = await self.failed(kind="poison", tenant="acme")
        await self.bench.pass_time(10)
        since = self.bench.now()
        third = await self.failed(kind="poison", endpoint="billing")
        for query, ids in (
            ({}, [first, second, third]),
            ({"endpoint": "billing"}, [first, third]),
            ({"endpoint": ""}, [second]),
            ({"endpoint": "mail"}, []),
            ({"tenant": "acme"}, [second]),
            ({"tenant": ""}, [first, third]),
            ({"tenant": "globex"}, []),
            ({"reason_class": "poison"}, [second, third]),
            ({"since": rfc3339(since)}, [third]),
            ({"since": rfc3339(since + 1)}, []),
            ({"endpoint": "billing", "reason_class": "rejected", "since": rfc3339(since - 100)}, [first]),
        ):
            self.assertEqual(await self.ids(**query), ids, query)

    async def test_pages(self) -> None:
        """From cursor to cursor every dead letter is listed once, in order, to the end."""
        ids = [await self.failed() for _ in range(7)]
        found: list[str] = []
        page = await self.list(limit="3")
        lengths = []
        while True:
            found += [letter["correlation_id"] for letter in page["dead_letters"]]
            lengths.append(len(page["dead_letters"]))
            if page["cursor"] is None:
                break
            page = await self.list(limit="3", cursor=page["cursor"])
        self.assertEqual((found, lengths), (ids, [3, 3, 1]))

    async def test_shown(self) -> None:
        """One dead letter is shown whole: the payload to the byte, and the last reply."""
        payload = b'{ "a":1.50,  "a": 2}'
        await self.failed(b"0")
        id = await self.failed(payload, headers={"X-A": "b"}, metadata={"own": [1]})
        numbers = [letter["number"] for letter in (await self.list())["dead_letters"]]
        answer = await self.letters.show(str(numbers[1]))
        self.assertIn(b'"payload":' + payload, answer.body)
        letter = json.loads(answer.body)
        self.assertEqual(letter["correlation_id"], id)
        self.assertEqual((letter["request"]["headers"], letter["request"]["metadata"]), ({"X-A": "b"}, {"own": [1]}))
        self.assertEqual((letter["reply"]["status"], letter["reply"]["result"]), ("FAILED", 2))
        for number in ("0", "-1", "x", str(numbers[1] + 1), "9" * 19, "9" * 20, "9" * 40, "1.0", "\u0661"):
            self.assertIn("there is no dead letter", await self.problem(self.letters.show(number), 404), number)

    async def test_bytes(self) -> None:
        """Content that is not JSON is shown in base64."""
        await self.failed(b"null", body=b"\xff\x00")
        (letter,) = (await self.list())["dead_letters"]
        shown = json.loads((await self.letters.show(str(letter["number"]))).body)
        self.assertEqual((shown["request"]["payload"], shown["request"]["body_base64"]), (None, "/wA="))


class Redriving(DeadLettersCase):
    async def test_clock_set_meanwhile(self) -> None:
        """An order goes on to its end where the time of day is set between two of its portions."""
        ahead = 0.0
        clock: Any = BenchClock(self.bench)
        self.letters = DeadLetters(self.bench.queue, clock, lambda: self.closed, lambda: ahead)
        for step in (3600.0, -3600.0):
            for number in range(3):
                await self.failed(b"%d" % number)
            await self.bench.pass_time(1)
            first = await self.drop(all="true", limit="1")
            ahead += step
            rest = await self.drop(all="true", cursor=first["cursor"])
            self.assertEqual((first["count"], rest["count"], rest["cursor"]), (1, 2, None))

    async def test_redriven(self) -> None:
        """A dead letter that is redriven is a new request, and no dead letter any more."""
        id = await self.failed(b'"again"')
        (number,) = await self.numbers()
        answer = await self.letters.redrive_one(str(number))
        new = json.loads(answer.body)["correlation_id"]
        self.assertEqual((answer.status, dict(answer.fields)[b"Location"]), (202, f"/api/v1/response/{new}".encode()))
        self.assertEqual(await self.ids(), [])
        request = (await self.receive_one()).request
        self.assertEqual((request.correlation_id, request.submission.payload), (new, b'"again"'))
        self.assertEqual(request.submission.metadata, {"redriven_from": id})
        self.assertIn("there is no dead letter", await self.problem(self.letters.redrive_one(str(number)), 404))

    async def test_redriven_by_filter(self) -> None:
        """Those that match are redriven, the oldest first, and the answer names old and new ids."""
        first = await self.failed(b"1", "poison")
        other = await self.failed(b"2", "rejected")
        second = await self.failed(b"3", "poison")
        await self.bench.pass_time(1)
        found = await self.redrive({"reason_class": "poison"})
        self.assertEqual((found["count"], found["dry_run"], found["cursor"], found["refused"]), (2, False, None, []))
        self.assertEqual([letter["correlation_id"] for letter in found["dead_letters"]], [first, second])
        self.assertEqual(await self.ids(), [other])
        deliveries = [await self.receive_one(), await self.receive_one()]
        new = {delivery.request.correlation_id for delivery in deliveries}
        self.assertEqual({letter["redriven_as"] for letter in found["dead_letters"]}, new)

    async def test_dry_run(self) -> None:
        """A dry run names the same ones, and changes nothing."""
        ids = [await self.failed(kind="poison") for _ in range(2)]
        await self.failed(kind="rejected")
        await self.bench.pass_time(1)
        before = await self.list()
        for found in (
            await self.redrive({"reason_class": "poison"}, dry_run=True),
            await self.drop(reason_class="poison", dry_run="true"),
        ):
            self.assertEqual((found["dry_run"], found["count"], found["cursor"]), (True, 2, None))
            self.assertEqual([letter["correlation_id"] for letter in found["dead_letters"]], ids)
        self.assertEqual(await self.list(), before)
        await self.nothing_is_delivered()

    async def test_in_portions(self) -> None:
        """From cursor to cursor all are redriven, and those that fail again meanwhile are not: it comes to an end."""
        for number in range(5):
            await self.failed(b"%d" % number)
        await self.bench.pass_time(1)
        counts = []
        cursor = None
        while True:
            found = await self.redrive(limit=2, cursor=cursor)
            counts.append(found["count"])
            self.assertLess(len(counts), 9, "it has no end")
            for _ in range(found["count"]):
                delivery = await self.receive_one()
                await self.do(delivery.dead_letter("no luck", self.reply(delivery, status=Status.FAILED)))
            cursor = found["cursor"]
            if cursor is None:
                break
        self.assertEqual(counts, [2, 2, 1])
        self.assertEqual(len(await self.ids()), 5)

    async def test_dropped(self) -> None:
        """What is dropped is gone, one by its number and others by a filter; the rest stays."""
        ids = [await self.failed(kind="poison" if index else "rejected") for index in range(4)]
        numbers = await self.numbers()
        self.assertEqual((await self.letters.drop_one(str(numbers[1]))).status, 204)
        self.assertIn("there is no dead letter", await self.problem(self.letters.drop_one(str(numbers[1])), 404))
        await self.bench.pass_time(1)
        self.assertEqual((await self.drop(reason_class="poison"))["count"], 2)
        self.assertEqual(await self.ids(), [ids[0]])
        self.assertEqual((await self.drop(all="true"))["count"], 1)
        self.assertEqual(await self.ids(), [])
        await self.nothing_is_delivered()

    async def test_stopping(self) -> None:
        """A process that stops changes no dead letter any more, and still lists them."""
        id = await self.failed()
        (number,) = await self.numbers()
        self.closed = True
        for work in (
            self.letters.redrive_one(str(number)),
            self.letters.drop_one(str(number)),
            self.redrive(),
            self.drop(all="true"),
        ):
            try:
                await work
            except NotDurable as error:
                self.assertEqual(error.retry_after, 1)
            else:
                self.fail("it was changed")
        self.assertEqual(await self.ids(), [id])

    async def test_killed(self) -> None:
        """A kill at any moment of a redrive leaves each request in one place: a dead letter, or accepted again."""
        if not self.bench.queue.traits.durable:
            return
        ids = {await self.failed(b"%d" % number) for number in range(3)}
        await self.bench.pass_time(1)
        redriving = Deferred.fromCoroutine(self.redrive())
        redriving.addBoth(lambda outcome: None)
        await self.bench.crash()
        await self.bench.pass_time(LEASE + 1)
        left = [letter.request.correlation_id for _, letter in await self.do(self.bench.queue.dead_letters(0, 100))]
        again = []
        while (await self.depth()).ready:
            delivery = await self.receive_one()
            again.append(delivery.request.submission.metadata["redriven_from"])
            await self.do(delivery.settle(self.reply(delivery)))
        self.assertEqual(sorted(left + again), sorted(ids))


def dead_letter_contract(make: Callable[[TestCase], Bench | Deferred[Bench]]) -> type[TestCase]:
    """The suite for the dead letters over HTTP on the backend that ``make`` returns."""

    class DeadLetterContract(Listing, Redriving):
        def make_bench(self) -> Bench | Deferred[Bench]:
            return make(self)

    return DeadLetterContract
