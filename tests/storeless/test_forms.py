"""A listener and two workers without a store keep what a backend promises, but for what a worker cannot know.

A worker is not told of an ending that another process has written: not of a cancellation, nor of a deadline. So it
works in vain, and it is not told either that its own ending was the second one. What the caller sees is the same.
"""

from __future__ import annotations

from attrs import evolve
from twisted.internet.defer import CancelledError
from twisted.trial.unittest import TestCase

from openhqm.interfaces import BrokerTraits
from openhqm.messages import Status
from openhqm.testing import FORMS, REQUESTS, backend_contract
from openhqm.testing.chaining import STEPS
from openhqm.testing.following_up import FOLLOW_UPS
from tests.storeless.bench import ListenerBench, WorkedElsewhereBench


def suite(traits: BrokerTraits) -> type[TestCase]:
    """The contract, for one form of a broker that counts redeliveries."""

    class Contract(backend_contract(lambda case: WorkedElsewhereBench(traits))):  # type: ignore[misc]
        async def cancelled(self, **fields: object) -> tuple[str, object]:
            """The id of a request that is cancelled while a worker has it, and the worker's delivery."""
            accepted = await self.accept(**fields)
            delivery = await self.receive_one()
            await self.do(self.bench.store.cancel(accepted.correlation_id))
            return accepted.correlation_id, delivery

        async def ends_as(self, correlation_id: str, status: Status) -> None:
            self.assertEqual(await self.status(correlation_id), status)
            self.assertEqual((await self.types(correlation_id)).count(status.value.lower()), 1)
            self.assertEqual(await self.do(self.bench.queue.dead_letters(0, 10)), [])

        async def test_waiting_requests(self) -> None:
            """The listener knows how many requests wait, but for what a worker has received ahead."""
            for _ in range(3):
                await self.accept()
                await self.bench.pass_time(1)
            backlog = await self.do(self.bench.queue.waiting(REQUESTS))
            self.assertEqual(sum(each.count for each in backlog.values()), 3)
            await self.receive_one()
            backlog = await self.do(self.bench.queue.waiting(REQUESTS))
            self.assertIn(sum(each.count for each in backlog.values()), (1, 2))

        async def test_cancel_waiting(self) -> None:
            """A request that is cancelled while it waits stays cancelled, whatever a worker reports of it."""
            accepted = await self.accept()
            await self.do(self.bench.store.cancel(accepted.correlation_id))
            delivery = await self.receive_one()
            await self.do(delivery.settle(self.reply(delivery)))
            await self.ends_as(accepted.correlation_id, Status.CANCELLED)
            await self.nothing_is_delivered()

        async def test_cancel_processing(self) -> None:
            """A request that is cancelled while a worker has it stays cancelled, and is not delivered again."""
            correlation_id, _ = await self.cancelled()
            await self.ends_as(correlation_id, Status.CANCELLED)

        test_endpoint_revoked = test_cancel_processing

        async def test_crash_cancelled(self) -> None:
            """A request that was cancelled stays cancelled."""
            accepted = await self.accept()
            await self.do(self.bench.store.cancel(accepted.correlation_id))
            await self.bench.crash()
            await self.ends_as(accepted.correlation_id, Status.CANCELLED)

        async def test_deadline_processing(self) -> None:
            """A deadline that passes during an attempt ends the request; what the worker reports then is dropped."""
            accepted = await self.accept(timeout=30.0)
            delivery = await self.receive_one()
            await self.bench.pass_time(31)
            await self.do(delivery.settle(self.reply(delivery)))
            await self.ends_as(accepted.correlation_id, Status.TIMEOUT)

        async def no_second_follow_up(self) -> None:
            """A message that was published twice is worked on twice, and what the worker reports then is dropped."""
            waiting = self.bench.queue.receive(FOLLOW_UPS, 1)
            await self.bench.pass_time(0.01)
            if waiting.called:
                (delivery,) = await waiting
                await self.do(delivery.settle(self.reply(delivery)))
            else:
                waiting.cancel()
                await self.refused(waiting, CancelledError)

        async def none_is_delivered(self) -> None:
            """What was published is worked on, and what the worker reports then is dropped."""
            for _ in range(4):
                waiting = self.bench.queue.receive(STEPS, 1)
                await self.bench.pass_time(1)
                if not waiting.called:
                    waiting.cancel()
                    await self.refused(waiting, CancelledError)
                    return
                (delivery,) = await waiting
                await self.do(delivery.settle(self.reply(delivery)))

        def assertTold(self, told: list[str]) -> None:
            """A worker is not told."""

        def assertWorkedOnOnce(self, begun: list[int]) -> None:
            """A message that was published twice is worked on twice."""

        async def only_these_are_delivered(self, ids: set[str]) -> None:
            """A worker gets what was dropped as well, and what it reports of that is dropped."""
            for _ in range(6):
                delivery = await self.receive_one()
                await self.do(delivery.settle(self.reply(delivery)))
            for id in ids:
                self.assertEqual(await self.status(id), Status.COMPLETED)

        async def test_first_ending_wins(self) -> None:
            """Of two endings the first stands; the second changes nothing."""
            correlation_id, delivery = await self.cancelled()
            await self.do(delivery.settle(self.reply(delivery)))  # type: ignore[attr-defined]
            await self.ends_as(correlation_id, Status.CANCELLED)

        async def test_no_dead_letter_after_an_ending(self) -> None:
            """A request that has ended otherwise leaves no dead letter."""
            correlation_id, delivery = await self.cancelled()
            await self.do(delivery.dead_letter("gave up", self.reply(delivery, status=Status.FAILED)))  # type: ignore[attr-defined]
            await self.ends_as(correlation_id, Status.CANCELLED)

    return Contract


def listening_suite(traits: BrokerTraits) -> type[TestCase]:
    """The contract, for a process with the file that could have workers without a store beside it, and works itself."""
    return backend_contract(lambda case: ListenerBench(traits))


for _form, _traits in FORMS.items():
    if not _traits.counts_redeliveries:
        continue
    # The handlers of the contract work for longer than 10 s.
    _traits = evolve(_traits, longest_lease_seconds=None)
    for _what, _suite in (("worked elsewhere", suite(_traits)), ("worked here", listening_suite(_traits))):
        _words = f"{_form} {_what}".replace(",", "").split()
        _suite.__name__ = _suite.__qualname__ = "".join(word.capitalize() for word in _words)
        _suite.__doc__ = f"A broker with the traits of {_form}, {_what}"
        _suite.__module__ = __name__
        _suite.timeout = 10  # type: ignore[attr-defined]
        globals()[_suite.__name__] = _suite

del _suite
