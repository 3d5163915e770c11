# -*- test-case-name: tests.queue.test_contracts -*-
"""Idempotency keys: a repeat under the same key is the same request."""

from __future__ import annotations

from msgspec.structs import replace
from twisted.internet.defer import gatherResults

from openhqm.errors import IdempotencyConflict
from openhqm.messages import Acceptance, IdempotencyClaim, Submission
from openhqm.testing.bench import Base


class IdempotencyKeys(Base):
    async def test_repeat(self) -> None:
        """The same key with the same request again is one request: one id, delivered once."""
        claim = IdempotencyClaim("key", b"print")
        first = await self.accept(claim=claim)
        await self.bench.pass_time(5)
        again = await self.accept(claim=claim)
        self.assertEqual(again, Acceptance(first.correlation_id, first.submitted_at, replayed=True))
        await self.receive_one()
        await self.nothing_is_delivered()

    async def test_conflict(self) -> None:
        """The same key with another request is refused, and nothing is accepted."""
        await self.accept(claim=IdempotencyClaim("key", b"print"))
        await self.refused(
            self.bench.queue.accept(Submission(b"2"), IdempotencyClaim("key", b"other")), IdempotencyConflict
        )
        await self.receive_one()
        await self.nothing_is_delivered()

    async def test_at_once(self) -> None:
        """A hundred repeats at the same time are one request."""
        claim = IdempotencyClaim("key", b"print")
        accepted = await self.do(gatherResults([self.bench.queue.accept(Submission(b"1"), claim) for _ in range(100)]))
        self.assertEqual(len({each.correlation_id for each in accepted}), 1)
        self.assertEqual([each.replayed for each in accepted].count(False), 1)
        await self.receive_one()
        await self.nothing_is_delivered()

    async def test_lifetime(self) -> None:
        """A key is free again once its time is over."""
        claim = IdempotencyClaim("key", b"print", lifetime=100.0)
        first = await self.accept(claim=claim)
        await self.bench.pass_time(101)
        again = await self.accept(claim=claim)
        self.assertNotEqual(first.correlation_id, again.correlation_id)

    async def test_let_expire(self) -> None:
        """A key is free again by the lifetime that it was given last, and only by one for the same request."""
        claim = IdempotencyClaim("key", b"print", lifetime=10_000.0)
        shorter = replace(claim, lifetime=100.0)
        first = await self.accept(claim=claim)
        await self.do(self.bench.store.let_expire([replace(shorter, fingerprint=b"o"), replace(shorter, key="free")]))
        await self.bench.pass_time(101)
        again = await self.accept(claim=claim)
        self.assertEqual(again, Acceptance(first.correlation_id, first.submitted_at, replayed=True))
        await self.do(self.bench.store.let_expire([shorter]))
        await self.bench.pass_time(101)
        self.assertFalse((await self.accept(claim=claim)).replayed)
