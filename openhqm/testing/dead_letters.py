# -*- test-case-name: tests.queue.test_contracts -*-
"""Dead letters: that they can be dropped, and how many are kept, and for how long."""

from __future__ import annotations

from openhqm.errors import UnknownRequest
from openhqm.interfaces import DEAD_LETTER_PAGE_BYTES
from openhqm.messages import DeadLetter, Reply, Request, Status, Submission
from openhqm.policy.limits import Limits
from openhqm.testing.bench import DEAD_LETTERS, Base

ROOM = 4096
"""What a request takes beside its payload, at most, where it is stored."""


class KeepingDeadLetters(Base):
    async def dead_letter(self, payload: bytes = b"1") -> str:
        """The id of a request that is a dead letter now."""
        accepted = await self.accept(payload)
        delivery = await self.receive_one()
        await self.do(delivery.dead_letter("rejected", self.reply(delivery, status=Status.FAILED)))
        return accepted.correlation_id

    async def ids(self) -> list[str]:
        letters = await self.do(self.bench.queue.dead_letters(0, 100))
        return [letter.request.correlation_id for _, letter in letters]

    async def test_times_of_attempts(self) -> None:
        """A dead letter says when its first attempt and its last one began: the times that its history has."""
        accepted = await self.accept()
        await self.do((await self.receive_one()).retry(10, "no luck"))
        await self.bench.pass_time(11)
        delivery = await self.receive_one()
        await self.do(delivery.progress({"percent": 50}))
        await self.bench.pass_time(3)
        await self.do(delivery.dead_letter("rejected", self.reply(delivery, status=Status.FAILED)))
        events = await self.do(self.bench.store.history(accepted.correlation_id, 0))
        begun = [event.at for event in events if event.type == "processing"]
        ((_, letter),) = await self.do(self.bench.queue.dead_letters(0, 10))
        self.assertEqual([letter.first_attempt_at, letter.last_attempt_at], begun)
        self.assertLess(letter.first_attempt_at, letter.last_attempt_at)
        self.assertEqual(len(begun), 2)

    async def test_drop_dead_letter(self) -> None:
        """A dead letter that is dropped is gone, once; the others stay, and so does the reply to its request."""
        first, second = await self.dead_letter(), await self.dead_letter()
        ((number, _), (other, _)) = await self.do(self.bench.queue.dead_letters(0, 10))
        await self.do(self.bench.queue.drop_dead_letter(number))
        self.assertEqual(await self.ids(), [second])
        self.assertEqual((await self.depth(DEAD_LETTERS)).ready, 1)
        for unknown in (number, 0, -1, other + 1, 2**70):
            await self.refused(self.bench.queue.drop_dead_letter(unknown), UnknownRequest)
            await self.refused(self.bench.queue.redrive(unknown), UnknownRequest)
        self.assertEqual(await self.status(first), Status.FAILED)

    async def test_last_dead_letter(self) -> None:
        """The highest number is known, also once its dead letter is gone."""
        self.assertEqual(await self.do(self.bench.queue.last_dead_letter()), 0)
        for _ in range(2):
            await self.dead_letter()
        ((first, _), (second, _)) = await self.do(self.bench.queue.dead_letters(0, 10))
        self.assertEqual(await self.do(self.bench.queue.last_dead_letter()), second)
        await self.do(self.bench.queue.drop_dead_letter(second))
        await self.do(self.bench.queue.redrive(first))
        self.assertEqual(await self.do(self.bench.queue.last_dead_letter()), second)
        await self.bench.crash()
        if self.bench.queue.traits.durable:
            self.assertEqual(await self.do(self.bench.queue.last_dead_letter()), second)

    async def test_pages_of_dead_letters(self) -> None:
        """A page holds at most what it is asked for, and ends with the letter that reaches the bytes of a page. From
        page to page every letter is listed once, in order, and the last page is empty."""
        sizes = [DEAD_LETTER_PAGE_BYTES * 5 // 8] * 5 + [1] * 4
        ids = [await self.dead_letter(b'"%b"' % (size * b"x")) for size in sizes]
        for most, lengths in ((1, [1] * 9), (3, [2, 2, 3, 2]), (100, [2, 2, 5])):
            found: list[str] = []
            pages = []
            after = 0
            while page := await self.do(self.bench.queue.dead_letters(after, most)):
                found += [letter.request.correlation_id for _, letter in page]
                pages.append(len(page))
                after = page[-1][0]
            self.assertEqual((found, pages), (ids, lengths), most)
        self.assertEqual(await self.do(self.bench.queue.dead_letters(after, 100)), [])

    async def test_reject(self) -> None:
        """A message that is no request is a dead letter with its bytes, and can be redriven."""
        now = 1.0
        id = "00000000-0000-4000-8000-000000000001"
        reply = Reply(id, Status.FAILED, now, status_code=422, error="unreadable")
        rejected = Submission(b"null", metadata={"topic": "a/b"}, body=b"\xff\x00")
        letter = DeadLetter(Request(id, now, rejected), "unreadable", reply, now)
        await self.do(self.bench.queue.reject(letter))
        ((number, found),) = await self.do(self.bench.queue.dead_letters(0, 10))
        self.assertEqual(found, letter)
        await self.do(self.bench.queue.redrive(number))
        delivery = await self.receive_one()
        self.assertEqual(delivery.request.submission.body, b"\xff\x00")

    async def test_most_dead_letters(self) -> None:
        """Beyond a number the oldest dead letters are removed."""
        self.bench.limits = Limits(dead_letters=3)
        await self.bench.crash()
        ids = [await self.dead_letter() for _ in range(5)]
        await self.bench.pass_time(3)
        self.assertEqual(await self.ids(), ids[2:])

    async def test_age_of_dead_letters(self) -> None:
        """Dead letters are removed after their time."""
        self.bench.limits = Limits(dead_letter_seconds=30.0)
        await self.bench.crash()
        first = await self.dead_letter()
        await self.bench.pass_time(20)
        second = await self.dead_letter()
        self.assertEqual(await self.ids(), [first, second])
        await self.bench.pass_time(15)
        self.assertEqual(await self.ids(), [second])
        await self.bench.pass_time(20)
        self.assertEqual(await self.ids(), [])

    async def test_age_of_large_dead_letters(self) -> None:
        """However large they are, all that are too old are removed, and no other one."""
        self.bench.limits = Limits(dead_letter_seconds=30.0)
        await self.bench.crash()
        size = min(800_000, (self.bench.queue.traits.largest_message or 1_000_000) - ROOM)
        for _ in range(8):
            await self.dead_letter(b'"%b"' % (size * b"x"))
        await self.bench.pass_time(20)
        last = await self.dead_letter()
        await self.bench.pass_time(15)
        self.assertEqual(await self.ids(), [last])
