# -*- test-case-name: tests.queue.test_contracts -*-
"""Recording: the record of a request, from its acceptance to its expiry."""

from __future__ import annotations

from openhqm.errors import (
    AlreadyEnded,
    ExpiredRequest,
    UnknownRequest,
)
from openhqm.messages import (
    Event,
    Status,
)
from openhqm.policy.history import MOST_DETAIL_BYTES, PIECE_EVENTS
from openhqm.testing.bench import LEASE, TTL, Base


class Recording(Base):
    async def test_unknown(self) -> None:
        """An id that was never given out is unknown, whatever it looks like."""
        await self.accept()
        for correlation_id in ("11111111-1111-4111-8111-111111111111", "nonsense", "", "../etc/passwd", "\x00"):
            await self.refused(self.bench.store.find(correlation_id), UnknownRequest)
            await self.refused(self.bench.store.history(correlation_id, 0), UnknownRequest)
            await self.refused(self.bench.store.cancel(correlation_id), UnknownRequest)

    async def test_tenant(self) -> None:
        """A record says on whose behalf a request is, from its acceptance to its expiry."""
        accepted = await self.accept(tenant="acme", timeout=3600.0)
        find = self.bench.store.find
        self.assertEqual((await self.do(find(accepted.correlation_id))).tenant, "acme")
        delivery = await self.receive_one()
        self.assertEqual((await self.do(find(accepted.correlation_id))).tenant, "acme")
        await self.do(delivery.settle(self.reply(delivery)))
        ended = await self.do(find(accepted.correlation_id))
        self.assertEqual((ended.status, ended.tenant), (Status.COMPLETED, "acme"))
        other = await self.accept(payload=b'{"tenant":"acme"}', metadata={"tenant": "acme"})
        self.assertIsNone((await self.do(find(other.correlation_id))).tenant)

    async def test_history(self) -> None:
        """Events are numbered from 1 without a gap, and can be had from any number on."""
        accepted = await self.accept()
        delivery = await self.receive_one()
        await self.do(delivery.progress({"percent": 50}))
        await self.do(delivery.settle(self.reply(delivery)))
        events = await self.do(self.bench.store.history(accepted.correlation_id, 0))
        self.assertEqual([event.number for event in events], [1, 2, 3, 4])
        self.assertEqual([event.type for event in events], ["pending", "processing", "progress", "completed"])
        self.assertEqual(events[2].detail, {"attempt": 1, "percent": 50})
        self.assertEqual(await self.do(self.bench.store.history(accepted.correlation_id, 2)), events[2:])
        self.assertEqual(await self.do(self.bench.store.history(accepted.correlation_id, 99)), [])

    async def test_history_in_pieces(self) -> None:
        """A long history is read in pieces of bounded size, each from the last number of the one before."""
        accepted = await self.accept()
        heard: list[int] = []
        self.bench.store.watch(accepted.correlation_id, lambda event: heard.append(event.number))
        delivery = await self.receive_one()
        for step in range(PIECE_EVENTS + 8):
            await self.do(delivery.progress({"step": step}))
        for step in range(12):
            await self.do(delivery.progress({"step": step, "large": "x" * 10_000}))
        await self.do(delivery.settle(self.reply(delivery)))
        numbers: list[int] = []
        while piece := await self.do(self.bench.store.history(accepted.correlation_id, numbers[-1] if numbers else 0)):
            numbers += [event.number for event in piece]
            self.assertLessEqual(len(piece), PIECE_EVENTS)
            self.assertLess(sum(len(str(event.detail)) for event in piece), PIECE_EVENTS * MOST_DETAIL_BYTES)
        last = PIECE_EVENTS + 8 + 12 + 3
        self.assertEqual(numbers, list(range(1, last + 1)))
        self.assertEqual((piece, heard), ([], numbers[1:]))
        self.assertEqual(await self.types(accepted.correlation_id, last - 1), ["completed"])

    async def test_progress_is_bounded(self) -> None:
        """A history has a limit: a worker whose progress goes beyond it is told."""
        await self.accept()
        delivery = await self.receive_one()
        await self.refused(delivery.progress({"large": "x" * 20_000}), ValueError)
        for step in range(998):
            await self.do(delivery.progress({"step": step}))
        await self.refused(delivery.progress({"step": "one too many"}), ValueError)
        self.assertTrue(await self.do(delivery.settle(self.reply(delivery))))

    async def test_nothing_after_the_ending(self) -> None:
        """A history ends with its ending: a worker's progress after it is dropped."""
        accepted = await self.accept()
        delivery = await self.receive_one()
        await self.do(self.bench.store.cancel(accepted.correlation_id))
        await self.do(delivery.progress({"percent": 99}))
        self.assertEqual(await self.types(accepted.correlation_id), ["pending", "processing", "cancelled"])
        self.assertEqual(await self.status(accepted.correlation_id), Status.CANCELLED)

    async def test_watch(self) -> None:
        """A listener is called with each event once it is durable, in order, until it stops listening."""
        accepted = await self.accept()
        heard: list[Event] = []
        ignored: list[Event] = []
        stop = self.bench.store.watch(accepted.correlation_id, heard.append)
        self.bench.store.watch(accepted.correlation_id, ignored.append)()
        delivery = await self.receive_one()
        await self.do(delivery.progress({"percent": 1}))
        await self.do(delivery.settle(self.reply(delivery)))
        self.assertEqual([event.type for event in heard], ["processing", "progress", "completed"])
        self.assertEqual(heard, (await self.do(self.bench.store.history(accepted.correlation_id, 1))))
        self.assertEqual(ignored, [])
        stop()

    async def test_watch_in_capitals(self) -> None:
        """An id is the same id however its letters are written (RFC 9562, section 4)."""
        accepted = await self.accept()
        heard: list[Event] = []
        self.bench.store.watch(accepted.correlation_id.upper(), heard.append)
        await self.do(self.bench.store.cancel(accepted.correlation_id.upper()))
        self.assertEqual([event.type for event in heard], ["cancelled"])

    async def test_endings_are_counted(self) -> None:
        """A function in `on_ending` is called once for each ending."""
        heard: list[str] = []
        self.bench.store.on_ending.append(lambda key, status: heard.append(status))
        accepted = await self.accept()
        delivery = await self.receive_one()
        await self.do(self.bench.store.cancel(accepted.correlation_id))
        await self.do(delivery.settle(self.reply(delivery)))
        self.assertEqual(heard, ["CANCELLED"])

    async def test_cancel_waiting(self) -> None:
        """A request that is cancelled while it waits is never delivered."""
        accepted = await self.accept()
        other = await self.accept()
        before = await self.do(self.bench.store.cancel(accepted.correlation_id))
        self.assertEqual(before.status, Status.PENDING)
        self.assertEqual((await self.receive_one()).request.correlation_id, other.correlation_id)
        await self.nothing_is_delivered()
        await self.refused(self.bench.store.cancel(accepted.correlation_id), AlreadyEnded)

    async def test_cancel_processing(self) -> None:
        """A request that is cancelled during an attempt is revoked, and not delivered again after its lease."""
        accepted = await self.accept()
        delivery = await self.receive_one()
        before = await self.do(self.bench.store.cancel(accepted.correlation_id))
        self.assertEqual(before.status, Status.PROCESSING)
        self.assertEqual(await self.do(delivery.revoked), "CANCELLED")
        await self.bench.pass_time(LEASE + 1)
        await self.nothing_is_delivered()

    async def test_cancel_retrying(self) -> None:
        """A request that is cancelled between two attempts has no further one."""
        accepted = await self.accept()
        await self.do((await self.receive_one()).retry(10, "no luck"))
        await self.do(self.bench.store.cancel(accepted.correlation_id))
        await self.bench.pass_time(11)
        await self.nothing_is_delivered()

    async def test_deadline_waiting(self) -> None:
        """A request whose deadline passes before its first attempt ends with TIMEOUT, without a worker."""
        accepted = await self.accept(timeout=30.0)
        await self.bench.pass_time(29)
        self.assertEqual(await self.status(accepted.correlation_id), Status.PENDING)
        await self.bench.pass_time(2)
        self.assertEqual(await self.status(accepted.correlation_id), Status.TIMEOUT)
        await self.nothing_is_delivered()

    async def test_deadline_processing(self) -> None:
        """A deadline that passes during an attempt ends the request and revokes the delivery."""
        accepted = await self.accept(timeout=30.0)
        delivery = await self.receive_one()
        await self.bench.pass_time(31)
        self.assertEqual(await self.do(delivery.revoked), "TIMEOUT")
        self.assertFalse(await self.do(delivery.settle(self.reply(delivery))))
        self.assertEqual(await self.status(accepted.correlation_id), Status.TIMEOUT)

    async def test_deadline_after_the_end(self) -> None:
        """A deadline that passes after the ending changes nothing."""
        accepted = await self.accept(timeout=30.0)
        delivery = await self.receive_one()
        await self.do(delivery.settle(self.reply(delivery)))
        await self.bench.pass_time(31)
        self.assertEqual(await self.status(accepted.correlation_id), Status.COMPLETED)

    async def test_expiry(self) -> None:
        """An answer is kept until its published expiry, and its id is told apart from one never given out."""
        accepted = await self.accept()
        unfinished = await self.accept()
        delivery = await self.receive_one()
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
