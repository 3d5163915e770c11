"""Two processes with files of their own use one broker and prefix: nothing is lost or ends wrongly, and both say so.

What a process receives of the other one goes back after a while. So all requests are worked on, some of them late.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from openhqm.brokered.put_aside import FOREIGN_SECONDS
from openhqm.codec import encode_step
from openhqm.interfaces import BrokerTraits, Message
from openhqm.messages import Reply, Status, Submission
from openhqm.policy.steps import ENDED, Step
from openhqm.storeless.steps_consumer import MOST_STEPS
from openhqm.testing import DEAD_LETTERS, FORMS, REQUESTS, FakeServer
from tests.storeless.bench import REPLIES, ListenerBench, Worker

ELSEWHERE = "00000000-0000-4000-8000-000000000000"
MOST_ATTEMPTS = 4
LONG_ENOUGH = 60 * FOREIGN_SECONDS


class Store(ListenerBench):
    """A process with a file of its own, on the clock and the broker of another one."""

    def __init__(self, traits: BrokerTraits, server: FakeServer, first: ListenerBench | None = None) -> None:
        self._first = first
        super().__init__(traits, server)

    def open(self) -> None:
        if self._first is not None:
            self.clock = self._first.time
        self.ttl = 10 * LONG_ENOUGH
        super().open()
        self.ids: list[str] = []
        self.endings: list[str] = []
        self.store.on_ending.append(lambda number, status: self.endings.append(status))


class TwoStoresCase(SynchronousTestCase):
    """Two stores, and what they accept"""

    traits = FORMS["amqp"]

    def setUp(self) -> None:
        server = FakeServer(self.traits)
        self.first = Store(self.traits, server)
        self.second = Store(self.traits, server, self.first)
        self.stores = (self.first, self.second)
        for store in self.stores:
            self.addCleanup(store.close)
        self.attempts: list[int] = []
        self.first.turn()

    def do(self, deferred: Deferred[Any]) -> Any:
        return self.successResultOf(self.first.done(deferred))

    def accept(self, many: int) -> None:
        """Each store accepts so many requests."""
        for _ in range(many):
            for store in self.stores:
                store.ids.append(self.do(store.queue.accept(Submission(b"1"), None)).correlation_id)

    def work_on(self, queue: Any) -> None:
        """Complete what comes, as workers do: a request with too many attempts is given up."""

        def work(found: Any) -> None:
            (delivery,) = found
            self.attempts.append(delivery.attempt)
            id, now = delivery.request.correlation_id, self.first.now()
            if delivery.attempt > MOST_ATTEMPTS:
                delivery.dead_letter("poison", Reply(id, Status.FAILED, now))
            else:
                delivery.settle(Reply(id, Status.COMPLETED, now, b"1"))
            self.work_on(queue)

        queue.receive(REQUESTS, 1).addCallbacks(work, lambda failure: None)

    def everything_is_done(self) -> None:
        """Every request of each store has completed there, once, and there is no dead letter."""
        for store in self.stores:
            found = [self.do(store.store.find(id)).status for id in store.ids]
            self.assertEqual(found, [Status.COMPLETED] * len(store.ids))
            self.assertEqual(store.endings, ["COMPLETED"] * len(store.ids))
            self.assertEqual(self.do(store.queue.depth(DEAD_LETTERS)).ready, 0)
        left = {name: len(channel.messages()) for name, channel in self.first.server.channels.items()}
        self.assertEqual(sum(left.values()), 0, left)

    def warned(self) -> list[str]:
        """What each of them says of it."""
        return [text for store in self.stores for text in store.queue.warnings if "store of its own" in text]


class TwoStoresTests(TwoStoresCase):
    """Over a broker where several processes share a channel"""

    def test_workers_without_a_store(self) -> None:
        """Each report reaches the store whose request it is about, in the end."""
        self.accept(10)
        self.work_on(Worker(self.first, "a").queue)
        self.first.pass_time(5)
        self.assertEqual(len(self.warned()), 2)
        self.first.pass_time(LONG_ENOUGH)
        self.everything_is_done()
        self.assertEqual(self.warned(), [])

    def test_both_work(self) -> None:
        """Each request reaches the store that has accepted it, in the end."""
        self.accept(10)
        for store in self.stores:
            self.work_on(store.queue)
        self.first.pass_time(5)
        self.assertEqual(len(self.warned()), 2)
        self.first.pass_time(LONG_ENOUGH)
        self.everything_is_done()
        self.assertEqual(self.attempts, [1] * 20)

    def test_both_work_with_workers_beside_them(self) -> None:
        """A request that has gone around has had no attempt: it is not given up in a worker without a store."""
        self.accept(20)
        for store in self.stores:
            self.work_on(store.queue)
        self.first.pass_time(MOST_ATTEMPTS * FOREIGN_SECONDS)
        self.work_on(Worker(self.first, "a").queue)
        self.accept(10)
        self.first.pass_time(LONG_ENOUGH)
        self.everything_is_done()
        self.assertEqual(set(self.attempts), {1})

    def test_the_other_is_gone(self) -> None:
        """What one store alone can use waits in the broker for it, and is a dead letter of no other."""
        self.accept(5)
        self.second.forget()
        self.work_on(self.first.queue)
        worker = Worker(self.first, "a")
        self.work_on(worker.queue)
        self.first.pass_time(LONG_ENOUGH)
        self.assertEqual([self.do(self.first.store.find(id)).status for id in self.first.ids], [Status.COMPLETED] * 5)
        self.assertEqual(self.do(self.first.queue.depth(DEAD_LETTERS)).ready, 0)
        self.second.open()
        self.second.ids, self.second.endings = [], []
        self.first.pass_time(LONG_ENOUGH)
        left = {name: len(channel.messages()) for name, channel in self.first.server.channels.items()}
        self.assertEqual(sum(left.values()), 0, left)


class AsideTests(TwoStoresCase):
    """What is kept of another store"""

    def setUp(self) -> None:
        super().setUp()
        self.second.forget()
        self.first.turn()

    def report(self, id: str, name: str = "a") -> None:
        step = Step(id, name, ENDED, 1.0, reply=Reply(id, Status.COMPLETED, 1.0, b"1"))
        channel = self.first.server.channels[REPLIES]
        channel.put(Message(encode_step(step)))
        channel.dispatch()

    def test_it_holds_up_no_others(self) -> None:
        """However many reports of another store have come, the store's own are written."""
        for number in range(3 * MOST_STEPS):
            self.report(ELSEWHERE, str(number))
        self.accept_one()
        self.report(self.first.ids[0])
        self.first.turn()
        self.assertEqual(self.first.endings, ["COMPLETED"])

    def accept_one(self) -> None:
        self.first.ids.append(self.do(self.first.queue.accept(Submission(b"1"), None)).correlation_id)

    def test_it_goes_back(self) -> None:
        """It is kept for a while, and then lies in its channel again as it was; nothing of it is lost."""
        self.report(ELSEWHERE)
        before = list(self.first.server.messages(REPLIES))
        self.first.server.published.clear()
        self.first.pass_time(FOREIGN_SECONDS / 2 - 1)
        self.assertEqual(self.first.server.published, [])
        self.first.pass_time(10 * FOREIGN_SECONDS)
        again = [message for channel, message in self.first.server.published if channel == REPLIES]
        self.assertEqual(again, before * len(again))
        self.assertIn(len(again), range(7, 20))
        self.assertEqual(list(self.first.server.messages(REPLIES)), before)

    def test_the_broker_takes_nothing(self) -> None:
        """Where it cannot be published it goes back as it is."""
        self.report(ELSEWHERE)
        self.first.turn()
        self.first.broker.blocked = "the disk is full"
        self.first.pass_time(3 * FOREIGN_SECONDS)
        self.assertEqual(len(self.first.server.messages(REPLIES)), 1)
        self.first.broker.blocked = None
        self.first.pass_time(3 * FOREIGN_SECONDS)
        self.assertEqual(len(self.first.server.messages(REPLIES)), 1)

    def test_stopped(self) -> None:
        """A process that is stopped leaves it in the broker."""
        self.report(ELSEWHERE)
        self.first.turn()
        self.first.store.stop()
        self.do(self.first.queue.stop())
        self.assertEqual(self.first.clock.getDelayedCalls(), [])
        self.assertEqual(len(self.first.server.messages(REPLIES)), 1)
        self.first.open()


class SqsTwoStoresTests(TwoStoresTests):
    """The same where the broker leases each message"""

    traits = FORMS["sqs"]
