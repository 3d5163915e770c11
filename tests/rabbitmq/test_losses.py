"""What RabbitMQ has lost is noticed, before anything is put in its place."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail, gatherResults, succeed

from openhqm.errors import NotDurable
from openhqm.messages import Priority
from openhqm.rabbitmq.broker import RabbitMQBroker
from openhqm.rabbitmq.losses import MOST_WAITING
from openhqm.rabbitmq.queues import lanes, queue_of_lane
from openhqm.rabbitmq.topology import Claim
from tests.brokered.broker_contract import Q, publish
from tests.brokers import shared_rabbitmq
from tests.rabbitmq.test_rabbitmq import Real, connected, new_broker
from tests.redis.proxy import CuttingProxy

EVERYTHING = (None, None)


class NoticingTests(Real):
    """A broker that is asked to say what was lost"""

    async def setUp(self) -> None:  # type: ignore[override]
        self.lost: list[tuple[str | None, Priority | None]] = []
        self.found: Deferred[bool] = succeed(False)
        self.broker = await self.process()

    async def process(self, seconds: float = 5.0, url: str | None = None, **more: Any) -> RabbitMQBroker:
        """One more process with books."""
        broker = new_broker(self, url or shared_rabbitmq().url, seconds=seconds, on_lost=self.note, **more)
        await broker.when_probed()
        return broker

    async def all_lanes(self, broker: RabbitMQBroker) -> None:
        """So that none is being made when the test is over."""
        await broker.depth(Q)

    def note(self, queue: str | None, priority: Priority | None) -> Deferred[bool]:
        self.lost.append((queue, priority))
        return self.found

    async def told(self) -> list[tuple[str | None, Priority | None]]:
        """What it has said was lost since it was asked last."""
        told, self.lost = self.lost, []
        return told

    async def test_the_first_time(self) -> None:
        """Where there was nothing everything is missing: each is said once, also with many messages and processes."""
        self.assertEqual(await self.told(), [EVERYTHING])
        await gatherResults([publish(self.broker, b"%d" % number) for number in range(50)])
        other = await self.process()
        await gatherResults([publish(one, b"%d" % number) for number in range(25) for one in (self.broker, other)])
        self.assertEqual(await self.told(), [(Q, Priority.NORMAL)])
        await other.depth(Q)
        self.assertEqual(await self.told(), [(Q, Priority.HIGH), (Q, Priority.LOW)])
        self.assertEqual((await self.broker.depth(Q)).ready, 100)

    async def test_the_first_time_alone(self) -> None:
        """The one process with books knows that all is new, and asks about no queue that it has not made since."""
        prefix = f"{self.id()}.alone."
        alone = await self.process(prefix=prefix, claim=Claim("claim", "somebody else has it"))
        await publish(alone, b"1")
        await alone.depth(Q)
        self.assertEqual(await self.told(), [EVERYTHING, EVERYTHING])  # of the one set up for all tests, too
        self.blocking().queue_delete(f"{prefix}q")
        await publish(alone, b"2")
        self.assertEqual(await self.told(), [(Q, Priority.NORMAL)])

    async def test_deleted_after_another_made_it(self) -> None:
        """Who found everything new asks also about a queue that another process has made since, and published into."""
        other = await self.process()
        await publish(other, b"1")
        await self.told()
        self.blocking().queue_delete(self.prefixed("q"))
        await publish(self.broker, b"2")
        self.assertEqual(await self.told(), [(Q, Priority.NORMAL)])

    async def test_deleted(self) -> None:
        """A queue that somebody deletes is noticed with the next message for it, which arrives."""
        await publish(self.broker, b"1")
        await self.told()
        self.blocking().queue_delete(self.prefixed("q"))
        self.found = succeed(True)
        await publish(self.broker, b"2")
        self.assertEqual(await self.told(), [(Q, Priority.NORMAL)])
        await self.all_lanes(self.broker)
        (delivery,) = await self.broker.receive(Q, 5)
        self.assertEqual(delivery.body, b"2")

    async def test_made_anew_by_a_worker(self) -> None:
        """The same where a worker without books has made the queue before anybody could notice."""
        await publish(self.broker, b"1", priority=Priority.HIGH)
        await self.told()
        self.blocking().queue_delete(self.prefixed("q!high"))
        worker = await connected(self)
        waiting = worker.receive(Q, 5)
        await self.until(lambda: worker.depth(Q), "the worker has no queue")
        await self.patiently(lambda: publish(self.broker, b"2", priority=Priority.HIGH))
        self.assertIn((Q, Priority.HIGH), await self.told())
        (delivery,) = await waiting
        self.assertEqual(delivery.body, b"2")

    async def test_deleted_under_the_consumer(self) -> None:
        """A process with books that consumes notices without anything being published."""
        waiting = self.broker.receive(Q, 1)
        await self.until(lambda: self._consumed(), "nobody consumes")
        await self.told()
        self.blocking().queue_delete(self.prefixed("q"))
        await self.until(lambda: self.lost, "nobody notices")
        self.assertEqual(await self.told(), [(Q, Priority.NORMAL)])
        await publish(self.broker, b"1")
        (delivery,) = await waiting
        self.assertEqual(delivery.body, b"1")

    def _consumed(self) -> bool:
        import pika

        channel = self.blocking()
        try:
            frame = channel.queue_declare(self.prefixed("q!low"), passive=True)  # the last one
        except pika.exceptions.ChannelClosedByBroker:
            return False  # it is not there yet
        return bool(frame.method.consumer_count)

    async def test_delayed(self) -> None:
        """What is delayed is published to a queue that is made like every other."""
        other = await self.process()
        await self.told()
        await publish(other, b"1", delay=0.5)
        self.assertEqual(await self.told(), [(Q, Priority.NORMAL)])
        await publish(self.broker, b"2")
        self.assertEqual(await self.told(), [])

    async def test_connection_lost_meanwhile(self) -> None:
        """Who waits for a queue to be made anew is told when the connection is lost, and not after a while."""
        patient = await self.process(seconds=50.0)
        await publish(patient, b"1")
        self.blocking().queue_delete(self.prefixed("q"))
        await self.told()
        self.found = Deferred()
        waiting = [publish(patient, b"2"), publish(patient, b"3")]
        await self.until(lambda: self.lost, "nobody notices")
        hung_up_at = reactor.seconds()  # type: ignore[attr-defined]
        patient._publishing.close_anew("hung up")
        for each in waiting:
            await self.refused(each)
        self.assertLess(reactor.seconds() - hung_up_at, 10.0)  # type: ignore[attr-defined]
        self.found.callback(True)
        self.found = succeed(True)
        await self.patiently(lambda: publish(patient, b"4"))

    async def test_cannot_be_told(self) -> None:
        """While nobody can take note, the queue is not made anew: publishing fails in time, and it is said again."""
        await publish(self.broker, b"1")
        self.blocking().queue_delete(self.prefixed("q"))
        await self.told()
        self.found = fail(NotDurable("the books are closed"))
        self.assertIn("books are closed", str(await self.refused(publish(self.broker, b"2"))))
        self.assertEqual(await self.told(), [(Q, Priority.NORMAL)])
        self.found = Deferred()
        hasty = await self.process(seconds=0.5)
        self.assertIn("made anew within", str(await self.refused(publish(hasty, b"3"))))
        self.found.callback(True)
        self.found = succeed(True)
        await publish(self.broker, b"4")
        self.assertIn((Q, Priority.NORMAL), await self.told())
        await self.all_lanes(self.broker)
        (delivery,) = await self.broker.receive(Q, 1)
        self.assertEqual(delivery.body, b"4")

    async def test_given_up_meanwhile(self) -> None:
        """What was refused to callers who gave up while a queue could not be made is not published once it can."""
        await publish(self.broker, b"1")
        hasty = await self.process(seconds=0.5)
        self.blocking().queue_delete(self.prefixed("q"))
        self.found = Deferred()
        refused = [self.refused(publish(hasty, b"%d" % number)) for number in range(20)]
        for one in refused:
            self.assertIn("made anew within", str(await one))
        last = publish(hasty, b"last")  # over the channel over which the others would be
        self.found.callback(True)
        self.found = succeed(True)
        await last
        self.assertEqual((await hasty.depth(Q)).ready, 1)

    async def test_too_many_wait(self) -> None:
        """So many may wait for a queue that cannot be made now; whoever comes then is told to come again."""
        await publish(self.broker, b"1")
        self.blocking().queue_delete(self.prefixed("q"))
        self.found = Deferred()
        first = publish(self.broker, b"first")
        await self.until(lambda: (Q, Priority.NORMAL) in self.lost, "nobody finds out")
        waiting = [publish(self.broker, b"%d" % number) for number in range(MOST_WAITING)]
        self.assertEqual((await self.refused(publish(self.broker, b"one too many"))).retry_after, 1)
        self.found.callback(True)
        await gatherResults([first, *waiting])
        self.assertEqual((await self.broker.depth(Q)).ready, 1 + MOST_WAITING)

    async def test_claimed_too_late(self) -> None:
        """What RabbitMQ does long after nobody waits for it keeps no other process from making what is missing."""
        from twisted.internet import reactor

        server = shared_rabbitmq()
        proxy = CuttingProxy(reactor, server.port)
        self.addCleanup(proxy.stop)
        slow = await self.process(seconds=0.5, url=server.url.replace(str(server.port), str(proxy.own_port)))
        await publish(slow, b"1")
        self.blocking().queue_delete(self.prefixed("q"))
        proxy.hold_from = b"lost!found"
        refused = self.refused(publish(slow, b"2"))
        await self.until(lambda: proxy.held is not None, "nobody finds out")
        await self.pause(1.0)  # as long as that question may take
        await refused
        proxy.let_go()
        await self.until(lambda: slow.unavailable_reason is None, "it is not heard again")
        await self.patiently(lambda: publish(self.broker, b"3"))

    async def test_while_blocked(self) -> None:
        """Under an alarm nothing can be made, and whoever asks for it is told so at once."""
        await publish(self.broker, b"1")
        await self.all_lanes(self.broker)
        server = shared_rabbitmq()
        server.run_out_of_memory()
        self.addCleanup(server.have_memory_again)
        await self.refused(publish(self.broker, b"2"))
        self.blocking().queue_delete(self.prefixed("q!low"))
        self.assertIn("low on memory", str(await self.refused(self.broker.depth(Q))))

    async def test_everything(self) -> None:
        """A RabbitMQ that comes back without its data: that is said before anything is published."""
        server = self.server()
        broker = await self.process(url=server.url)
        await publish(broker, b"1")
        await self.told()
        server.control("close_all_connections", "for a test")
        await self.until(lambda: broker.unavailable_reason is not None, "it is not noticed")
        await self.patiently(lambda: publish(broker, b"2"))
        self.assertEqual(await self.told(), [])  # everything is there
        server.lose_everything()
        await self.patiently(lambda: publish(broker, b"3"))
        self.assertEqual(await self.told(), [EVERYTHING, (Q, Priority.NORMAL)])
        await self.all_lanes(broker)
        (delivery,) = await broker.receive(Q, 5)
        self.assertEqual(delivery.body, b"3")

    def test_names(self) -> None:
        """Each lane is known by its name."""
        for queue in ("requests", "requests.billing", "requests._3"):
            found = [queue_of_lane("p.", lane) for lane in lanes("p.", queue)]
            self.assertEqual({name for name, _ in found}, {queue})
            self.assertEqual(
                [priority for _, priority in found], list(Priority) if len(found) > 1 else [Priority.NORMAL]
            )
