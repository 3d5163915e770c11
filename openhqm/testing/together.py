# -*- test-case-name: tests.queue.test_contracts -*-
"""Accepting together: many requests in one step, each with an outcome of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, DeferredList

from openhqm.errors import IdempotencyConflict
from openhqm.messages import Acceptance, Coalescing, IdempotencyClaim, Priority, Status, Submission
from openhqm.testing.bench import REQUESTS, Base

Entry = tuple[Submission, IdempotencyClaim | None, Sequence[Submission]]


def plain(payload: bytes, **fields: Any) -> Entry:
    return Submission(payload, **fields), None, ()


class AcceptingTogether(Base):
    async def together(self, *entries: Entry) -> list[Any]:
        """The `Acceptance` of each, or the error that refused it."""
        with self.bench.queue.together():
            asked = [self.bench.queue.accept(*entry) for entry in entries]
        outcomes = await self.soon(DeferredList(asked, consumeErrors=True))
        return [outcome if success else outcome.value for success, outcome in outcomes]

    async def soon(self, asked: Deferred[Any]) -> Any:
        """What it fires with. A broker may have to make several channels first, one after the other."""
        for seconds in (0.01, *[1.0] * 8):
            if not asked.called:
                await self.bench.pass_time(seconds)
        return await self.do(asked)

    async def payloads(self, count: int) -> list[bytes]:
        """Those of the next deliveries."""
        found: list[bytes] = []
        for _ in range(count):
            (delivery,) = await self.soon(self.bench.queue.receive(REQUESTS, 1))
            found.append(delivery.request.submission.payload)
        return found

    async def test_together(self) -> None:
        """Each is accepted as it would be alone: with its priority, its delay, its deadline and its follow-ups."""
        outcomes = await self.together(
            plain(b"1"),
            plain(b"2", priority=Priority.HIGH),
            plain(b"3", not_before=self.bench.now() + 45),
            plain(b"4", timeout=20.0),
            (Submission(b"5"), None, (Submission(b'"after"', endpoint="billing"),)),
        )
        self.assertEqual(len({each.correlation_id for each in outcomes}), 5)
        self.assertEqual([len(each.follow_ups) for each in outcomes], [0, 0, 0, 0, 1])
        self.assertEqual(set(await self.payloads(4)), {b"1", b"2", b"4", b"5"})
        await self.nothing_is_delivered()
        await self.bench.pass_time(21)
        self.assertEqual(await self.status(outcomes[3].correlation_id), Status.TIMEOUT)
        await self.bench.pass_time(25)
        self.assertEqual(await self.payloads(1), [b"3"])

    async def test_together_for_itself(self) -> None:
        """One that is refused keeps no other out, and one that repeats another one of them is the same request."""
        claim = IdempotencyClaim("key", b"print")
        first, repeat, conflict, other = await self.together(
            (Submission(b"1"), claim, ()),
            (Submission(b"1"), claim, ()),
            (Submission(b"2"), IdempotencyClaim("key", b"other"), ()),
            plain(b"3"),
        )
        self.assertEqual(repeat, Acceptance(first.correlation_id, first.submitted_at, replayed=True))
        self.assertIsInstance(conflict, IdempotencyConflict)
        self.assertEqual(set(await self.payloads(2)), {b"1", b"3"})
        await self.nothing_is_delivered()
        (again,) = await self.together((Submission(b"1"), claim, ()))
        self.assertEqual((again.correlation_id, again.replayed), (first.correlation_id, True))
        self.assertNotEqual(other.correlation_id, first.correlation_id)

    async def test_together_coalesced(self) -> None:
        """Of those with the same coalesce key the last one is worked on."""
        coalescing = Coalescing("key", 20.0, 50.0)
        first, plain_one, second = await self.together(
            plain(b"1", coalescing=coalescing), plain(b"2"), plain(b"3", coalescing=coalescing)
        )
        self.assertEqual(await self.payloads(1), [b"2"])
        record = await self.do(self.bench.store.find(first.correlation_id))
        self.assertEqual(record.reply.superseded_by, second.correlation_id)
        await self.bench.pass_time(21)
        self.assertEqual(await self.payloads(1), [b"3"])
        self.assertEqual(await self.status(plain_one.correlation_id), Status.PROCESSING)

    async def test_together_many(self) -> None:
        """A thousand are accepted so, also beside others, and are there after a crash."""
        none = await self.together()
        self.assertEqual(none, [])
        before = self.bench.queue.accept(Submission(b"0", endpoint="billing"), None)
        outcomes = await self.together(*(plain(b"%d" % number, endpoint="billing") for number in range(1, 1001)))
        await self.do(before)
        self.assertEqual(len({each.correlation_id for each in outcomes}), 1000)
        await self.bench.crash()
        if self.bench.queue.traits.durable:
            statuses = {await self.status(each.correlation_id) for each in outcomes[::50]}
            self.assertEqual(statuses, {Status.PENDING})
            depth = await self.depth(f"{REQUESTS}.billing")  # a broker may have been sent one of them twice
            self.assertGreaterEqual(depth.ready + depth.delayed, 1001)
