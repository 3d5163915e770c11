# -*- test-case-name: tests.queue.test_contracts -*-
"""Chains whose process is killed: each of them ends once, and none of its steps begins a second time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from openhqm.messages import Record, Status
from openhqm.testing.chaining import PARENT, Chaining


class KilledChains(Chaining):
    async def _work_on(self, status: Status = Status.COMPLETED) -> None:
        delivery = await self.next_one()
        await self.do(delivery.settle(self.reply(delivery, status=status)))

    def assertWorkedOnOnce(self, begun: list[int]) -> None:
        """No step began twice. Where messages are published twice, workers that cannot know begin twice."""
        self.assertLessEqual(max(begun), 1, "a step began twice")

    async def lives(
        self, act: Callable[[str], Awaitable[Any]], before: bool, after: bool, deadline: float | None
    ) -> Record:
        """``act`` in the middle of a chain, whose process is killed before or after; the record once it has ended."""
        accepted = await self.stepped(submission=msgspec.structs.replace(PARENT, timeout=deadline))
        await self._work_on()
        if before:
            await self.bench.crash()
        await act(accepted.correlation_id)
        if after:
            await self.bench.crash()
        for _ in range(5):
            await self.bench.pass_time(1)
            if all(child.status.ended for child in (await self.find(accepted.correlation_id)).children):
                break
            await self._work_on()
        record = await self.ended(accepted.correlation_id)
        await self.none_is_delivered()
        begun = [0, 0, 0]
        for place, child in enumerate(record.children):
            await self.step_ended(child.correlation_id)
            types = await self.types(child.correlation_id)
            begun[place] = types.count("processing")
        self.assertWorkedOnOnce(begun)
        return record

    async def _complete(self, id: str) -> None:
        await self._work_on()

    async def _fail(self, id: str) -> None:
        await self._work_on(Status.FAILED)

    async def _cancel(self, id: str) -> None:
        await self.do(self.bench.store.cancel(id))

    async def _be_late(self, id: str) -> None:
        await self.bench.pass_time(31)


# Only one has a deadline: the clock of a test runs ahead of a real broker, which gives back after real seconds what the
# process that was killed had.
_ENDINGS = (
    ("completed", KilledChains._complete, Status.COMPLETED, None),
    ("failed", KilledChains._fail, Status.FAILED, None),
    ("cancelled", KilledChains._cancel, Status.CANCELLED, None),
    ("late", KilledChains._be_late, Status.TIMEOUT, PARENT.timeout),
)


def _add_tests() -> None:
    """A test for each ending in the middle of a chain, and for a crash of the process before it and after it."""
    for name, end, status, deadline in _ENDINGS:
        for suffix, before, after in (
            ("", False, False),
            ("_crash_before", True, False),
            ("_crash_after", False, True),
        ):

            async def test(
                self: KilledChains,
                end: Callable[[KilledChains, str], Awaitable[None]] = end,
                status: Status = status,
                before: bool = before,
                after: bool = after,
                deadline: float | None = deadline,
            ) -> None:
                if (before or after) is not self.bench.queue.traits.durable:
                    return  # nothing is left in memory; and what survives a crash needs no test without one
                record = await self.lives(lambda id: end(self, id), before, after, deadline)
                self.assertEqual(record.status, status)

            test.__doc__ = f"A chain ends once, and no step begins twice: {name}{suffix}.".replace("_", " ")
            test.__name__ = f"test_chain_{name}{suffix}"
            setattr(KilledChains, test.__name__, test)


_add_tests()
