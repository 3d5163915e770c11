"""A product that keeps little: no more of what no worker has begun is published into a channel than it holds, what
waits for room waits in the ledger, in order, and nothing is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.trial.unittest import TestCase

from openhqm.codec import decode_request
from openhqm.messages import Depth, Priority, Reply, Status, Submission
from openhqm.policy.limits import Limits
from openhqm.testing import FORMS, REQUESTS, PublishResult
from tests.benches import BrokeredBench
from tests.brokered.test_kills import Life
from tests.redis.bench import BrokeredRedisBench

KEEPS = 5
"""The window. The channel holds twice as many, because after a kill each may be published a second time."""
MQTT = evolve(FORMS["mqtt"], keeps=2 * KEEPS)
AMQP = evolve(FORMS["amqp"], keeps=2 * KEEPS)


class WindowCase(TestCase):
    """What both ledgers promise. ``open`` makes a bench with the traits."""

    timeout = 120
    bench: Any

    async def open(self, traits: Any, journaled: bool) -> None:
        raise NotImplementedError

    @property
    def server(self) -> Any:
        raise NotImplementedError

    async def do(self, deferred: Deferred[Any]) -> Any:
        return await self.bench.done(deferred)

    async def pass_time(self, seconds: float) -> None:
        await self.bench.pass_time(seconds)

    async def accept(self, count: int, **fields: Any) -> list[str]:
        asked = [self.bench.queue.accept(Submission(b"1", **fields), None) for _ in range(count)]
        outcomes = await self.do(DeferredList(asked, consumeErrors=True))
        self.assertEqual([found.value for success, found in outcomes if not success], [])
        return [found.correlation_id for _, found in outcomes]

    def ids(self, channel: str = REQUESTS) -> list[str]:
        return [decode_request(message.body).correlation_id for message in self.server.messages(channel)]

    def published(self) -> list[str]:
        return [decode_request(message.body).correlation_id for _, message in self.server.published]

    async def work(self, count: int, queue: str = REQUESTS, in_order: bool = False, most: int = KEEPS + 1) -> list[str]:
        """Work on so many requests, one after the other, and return their ids; the channel never holds too much."""
        done: list[str] = []
        for _ in range(count):
            waiting = self.bench.queue.receive(queue, 1, in_order=in_order)
            for _ in range(20):
                if waiting.called:
                    break
                await self.pass_time(0.1)
            self.assertTrue(waiting.called, "nothing comes")
            (delivery,) = await self.do(waiting)
            id = delivery.request.correlation_id
            await self.do(delivery.settle(Reply(id, Status.COMPLETED, self.bench.now(), b"1")))
            done.append(id)
            self.within(most)
        return done

    def within(self, most: int = KEEPS + 1) -> None:
        """``most`` includes what is worked on just now."""
        self.assertLessEqual(len(self.ids()), most)

    async def ended(self, ids: Sequence[str], status: Status = Status.COMPLETED) -> None:
        for id in ids:
            self.assertEqual((await self.do(self.bench.store.find(id))).status, status)


class Windowed(WindowCase):
    async def test_no_more_than_it_keeps(self) -> None:
        """However many are accepted, a channel has as many as it keeps, each is published once, and in order."""
        for traits in (MQTT, AMQP):
            for journaled in (False, True):
                await self.open(traits, journaled)
                accepted = await self.accept(40)
                await self.pass_time(2)
                self.assertEqual(self.ids(), accepted[:KEEPS])
                done = await self.work(40)
                self.assertEqual(done, accepted)
                await self.ended(accepted)
                await self.pass_time(2)
                self.assertEqual(self.published(), accepted)

    async def test_priorities(self) -> None:
        """Each priority has its own room, so that what is urgent does not wait behind a backlog of what is not."""
        await self.open(MQTT, True)
        await self.accept(20)
        urgent = await self.accept(8, priority=Priority.HIGH)
        await self.pass_time(2)
        self.assertEqual(len(self.ids(f"{REQUESTS}._high")), KEEPS)
        waiting = self.bench.queue.receive(REQUESTS, 4)  # what lies in all channels comes first
        await self.pass_time(2)
        for delivery in await self.do(waiting):
            self.assertIn(delivery.request.correlation_id, urgent)
            id = delivery.request.correlation_id
            await self.do(delivery.settle(Reply(id, Status.COMPLETED, self.bench.now(), b"1")))
        done = await self.work(24)
        self.assertLess(max(done.index(id) for id in urgent if id in done), 6)

    async def test_partitions(self) -> None:
        """The requests of a partition go one after the other, in their order, among others that wait for room."""
        await self.open(MQTT, True)
        await self.accept(10)
        ordered = await self.accept(4, partition=0)
        await self.work(10)
        self.assertEqual(await self.work(4, f"{REQUESTS}._0", in_order=True), ordered)

    async def test_whatever_makes_room(self) -> None:
        """A request that is begun makes room, and one that has ended does so once its message is passed over."""
        await self.open(AMQP, True)
        accepted = await self.accept(20)
        await self.pass_time(2)
        for id in accepted[1:4]:
            await self.do(self.bench.store.cancel(id))
        await self.pass_time(2)
        self.assertEqual(self.published(), accepted[:KEEPS])
        deliveries = await self.do(self.bench.queue.receive(REQUESTS, 1))
        await self.pass_time(1)
        self.assertEqual(self.published(), accepted[: KEEPS + 1])
        deliveries += await self.do(self.bench.queue.receive(REQUESTS, 1))
        await self.pass_time(1)
        self.assertEqual(self.published(), accepted[: KEEPS + 5])
        for delivery in deliveries:
            await self.do(delivery.retry(5, "no luck"))
        await self.pass_time(10)
        await self.work(17)
        await self.ended(accepted[:1] + accepted[4:])

    async def test_dropped_and_aged(self) -> None:
        """However many end in a full channel, no more messages lie in it, and what is left is delivered at once."""
        for limits in (Limits(requests=8, drop_oldest=True), Limits(age_seconds=4.0)):
            await self.open(MQTT, True)
            self.bench.limits = limits
            await self.bench.crash()
            for _ in range(30):
                await self.accept(1)
                await self.pass_time(1)
                self.within()
            if limits.age_seconds:
                await self.pass_time(6)
            last = await self.accept(3)
            await self.work(3 if limits.age_seconds else 8)
            await self.ended(last)
            self.assertEqual(len(set(self.published())), len(self.published()))

    async def test_lost_with_what_has_ended(self) -> None:
        """Room is not taken for ever by messages that the broker has lost."""
        await self.open(AMQP, True)
        accepted = await self.accept(10)
        await self.pass_time(2)
        for id in accepted[:KEEPS]:
            await self.do(self.bench.store.cancel(id))
        self.server.purge(REQUESTS)
        await self.pass_time(130)
        await self.work(5)
        await self.ended(accepted[KEEPS:])

    async def test_cancelled_while_it_waits_for_room(self) -> None:
        """What has ended is not published when it is its turn."""
        await self.open(MQTT, True)
        accepted = await self.accept(10)
        await self.pass_time(2)
        for id in accepted[KEEPS:8]:
            await self.do(self.bench.store.cancel(id))
        await self.work(7)
        await self.ended(accepted[:KEEPS] + accepted[8:])
        self.assertEqual(set(accepted[KEEPS:8]) & set(self.published()), set())

    async def test_no_overtaking(self) -> None:
        """A new request waits behind those that wait for room, also where there is some by then."""
        await self.open(AMQP, False)
        accepted = await self.accept(12)
        self.server.go_away()
        self.server.come_back()
        await self.pass_time(2)
        (delivery,) = await self.do(self.bench.queue.receive(REQUESTS, 1))
        accepted += await self.accept(1)
        await self.do(delivery.settle(Reply(accepted[0], Status.COMPLETED, self.bench.now(), b"1")))
        self.assertEqual(await self.work(12), accepted[1:])

    async def test_not_taken(self) -> None:
        """What the broker has not taken is published once it is back, and its room is not lost until then."""
        await self.open(AMQP, True)
        await self.work_through(await self.accept(1))
        broker = self.bench.queue._broker
        broker.publish_result = PublishResult.REFUSED
        accepted = await self.accept(12)
        await self.pass_time(1)
        self.assertEqual(self.ids(), [])
        self.server.go_away()
        broker.publish_result = PublishResult.CONFIRMED
        await self.pass_time(1)
        self.server.come_back()
        await self.pass_time(4)
        self.assertEqual(set(self.ids()), set(accepted[:KEEPS]))
        self.assertEqual(await self.work(12), accepted)

    async def work_through(self, ids: Sequence[str]) -> None:
        """The channel is there, and was used."""
        await self.pass_time(1)
        await self.work(len(ids))

    async def test_delays_and_retries(self) -> None:
        """What falls due while the channel is full waits for room, and goes in the order of its time."""
        await self.open(MQTT, True)
        now = self.bench.now()
        later = [(await self.accept(1, not_before=now + 10 - number))[0] for number in range(8)]
        first = await self.accept(KEEPS)
        await self.pass_time(12)
        self.assertEqual(self.ids(), first)
        self.assertEqual(await self.work(13), [*first, *reversed(later)])

    async def test_depth(self) -> None:
        """What waits for room is ready: a worker is all that it lacks."""
        await self.open(AMQP, True)
        await self.accept(12)
        await self.accept(2, not_before=self.bench.now() + 100)
        await self.pass_time(2)
        depth: Depth = await self.do(self.bench.queue.depth(REQUESTS))
        self.assertEqual(await self.ready(), 12)
        self.assertEqual(depth.delayed, 2)

    async def ready(self) -> int:
        return int((await self.do(self.bench.queue._ledger.count(REQUESTS)))[0])

    async def test_killed(self) -> None:
        """A process that is killed loses nothing of what waits for room, nor the room that it had taken."""
        await self.open(MQTT, True)
        accepted = await self.accept(20)
        await self.pass_time(2)
        for _ in range(3):
            await self.bench.crash()
            await self.pass_time(35)
            self.assertLessEqual(len(self.ids()), 2 * KEEPS)
            done = await self.work(3, most=2 * KEEPS + 1)
            accepted = [id for id in accepted if id not in done]
        await self.work(len(accepted), most=2 * KEEPS + 1)
        await self.ended(accepted)

    async def test_no_window_any_more(self) -> None:
        """Where the product keeps everything from now on, nothing waits for room."""
        await self.open(AMQP, True)
        accepted = await self.accept(20)
        await self.pass_time(2)
        self.set_keeps(None)
        await self.bench.crash()
        await self.pass_time(40)
        self.assertEqual(set(self.ids()), set(accepted))
        self.assertEqual(await self.ready(), 20)

    def set_keeps(self, keeps: int | None) -> None:
        traits = evolve(self.server.traits, keeps=keeps)
        self.server._traits = traits
        self.bench.traits = traits
        for channel in self.server.channels.values():
            channel.traits = traits


class FileTests(Windowed):
    """The ledger in the embedded file"""

    async def open(self, traits: Any, journaled: bool) -> None:
        self.bench = BrokeredBench(traits, journaled=journaled)
        self.bench.step = 0.1
        self.addCleanup(self.bench.close)
        self.server.drops_when_full = True

    @property
    def server(self) -> Any:
        return self.bench.server

    async def test_killed_at_each_step(self) -> None:
        """Whichever step the process is killed at, before or after, all that was accepted ends once."""
        for last in range(1, 60):
            over = []
            for after in (False, True):
                bench = self.bench = BrokeredBench(evolve(MQTT, keeps=2), journaled=True)
                life = Life(bench, last, after)
                told: list[str] = []
                endings: list[str] = []

                async def story(told: list[str] = told, endings: list[str] = endings) -> None:
                    self.bench.store.on_ending.append(lambda key, status: endings.append(status))
                    for _ in range(3):
                        told += await self.accept(1)
                    await self.work(2)
                    told += await self.accept(1)
                    await self.work(2)

                running = Deferred.fromCoroutine(story())
                running.addErrback(lambda failure: None)
                bench.turn()
                over.append(not life.dead)
                if life.dead:
                    del bench.run_commit
                    bench.crash()
                    bench.store.on_ending.append(lambda key, status, endings=endings: endings.append(status))
                    bench.pass_time(40)
                    when = f"killed {'after' if after else 'before'} {life.steps}"
                    self.assertEqual(self.successResultOf(maybeDeferred(self.drain, told)), [], when)
                bench.close()
            if all(over):
                return
        self.fail("the story has more steps")

    async def drain(self, told: Sequence[str]) -> list[str]:
        open_ones = [id for id in told if (await self.bench.store.find(id)).reply is None]
        for _ in range(12):
            waiting = self.bench.queue.receive(REQUESTS, 1)
            for _ in range(50):  # what was confirmed by a channel that was full after the kill is published again
                if not waiting.called:
                    self.bench.pass_time(5)
            if not waiting.called:
                waiting.addErrback(lambda failure: None).cancel()
                break
            (delivery,) = await waiting
            id = delivery.request.correlation_id
            await self.do(delivery.settle(Reply(id, Status.COMPLETED, self.bench.now(), b"1")))
        return [id for id in open_ones if (await self.bench.store.find(id)).status is not Status.COMPLETED]

    async def test_what_waits_costs_nothing(self) -> None:
        """A look costs by what there is room for: as much with 3,000 requests that wait for room as with 30."""
        counts = []
        for many in (90, 3000):
            await self.open(MQTT, True)
            for _ in range(many // 30):
                await self.accept(30)
            await self.pass_time(2)
            counted = [0]

            def count(counted: list[int] = counted) -> bool:
                counted[0] += 1
                return False

            connection = self.bench.file.connection
            self.bench.file.connection.set_progress_handler(count, 1)
            look = partial(self.bench.ledger.outbox.take_due, connection, 200)
            self.assertEqual(look(), [])
            connection.set_progress_handler(None)
            counts.append(counted[0])
        self.assertLessEqual(counts[1], counts[0] + 20)


class RedisTests(Windowed):
    """The ledger in Redis"""

    async def open(self, traits: Any, journaled: bool) -> None:
        self.bench = BrokeredRedisBench(traits, journaled=journaled)
        self.bench.step = 0.1
        await self.bench.open()
        self.addCleanup(self.bench.close)
        self.server.drops_when_full = True

    @property
    def server(self) -> Any:
        return self.bench.messages

    async def test_two_processes(self) -> None:
        """Processes that share the ledger share the room, and each publishes what another one has left."""
        await self.open(AMQP, True)
        other = self.bench.make_instance()
        await other.start()
        self.addCleanup(other.stop)
        asked = [queue.accept(Submission(b"1"), None) for _ in range(15) for queue in (self.bench.queue, other.queue)]
        accepted = {found.correlation_id for _, found in await self.do(DeferredList(asked, consumeErrors=True))}
        await self.pass_time(2)
        self.within()
        self.assertEqual(set(await self.work(30)), accepted)
        await self.ended(sorted(accepted))

    async def test_lost_with_the_channel(self) -> None:
        """What such a product has lost is published again: its content stays in Redis until the request has ended."""
        await self.open(AMQP, True)
        accepted = await self.accept(12)
        await self.pass_time(5)
        self.server.delete(REQUESTS)
        await self.pass_time(35)
        self.assertLessEqual(len(self.ids()), KEEPS)
        await self.work(12)
        await self.ended(accepted)


del WindowCase, Windowed
