"""One process with the embedded file, workers without a store beside it, and a broker in memory between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from openhqm.brokered.leftovers import IDLE_SECONDS
from openhqm.brokered.queue import BrokeredQueue
from openhqm.interfaces import BrokerTraits, IDelivery, IMessageQueue, IShares, Message, QueueTraits
from openhqm.messages import (
    Acceptance,
    Child,
    DeadLetter,
    Depth,
    Event,
    IdempotencyClaim,
    Load,
    Priority,
    Record,
    Reply,
    Status,
    Submission,
    Waiting,
)
from openhqm.sqlite.ledger import SqliteLedger
from openhqm.sqlite.sql import fetch_one
from openhqm.sqlite.steps import SqliteSteps
from openhqm.storeless.ledger import StorelessLedger
from openhqm.storeless.steps_consumer import StepsConsumer
from openhqm.testing import DEAD_LETTERS, FORMS, LEASE, REQUESTS, FakeBroker, FakeServer
from tests.benches import CHANNELS, BrokeredBench

REPLIES = "replies"
IN_ORDER = f"{REQUESTS}._0"
TABLES = ("outbox", "generations", "inflight", "line", "steps")


@implementer(IReactorTime)
class ProcessClock:
    """What one process has of a clock that several share: its calls end with it."""

    def __init__(self, time: Clock) -> None:
        self.time = time
        self._dead = False
        self._calls: list[Any] = []

    def seconds(self) -> float:
        return self.time.seconds()

    @property
    def calls(self) -> list[Any]:
        """Those of all processes: time goes on for each of them."""
        return self.time.calls

    def advance(self, seconds: float) -> None:
        self.time.advance(seconds)

    def callLater(self, delay: float, call: Callable[..., object], *args: Any, **kw: Any) -> Any:
        self._calls = [each for each in self._calls if each.active()]
        self._calls.append(self.time.callLater(delay, self._call, call, args, kw))
        return self._calls[-1]

    def getDelayedCalls(self) -> Sequence[Any]:
        return [each for each in self._calls if each.active()]

    def kill(self) -> None:
        """Nothing of the process happens any more."""
        self._dead = True
        for each in self.getDelayedCalls():
            each.cancel()

    def _call(self, call: Callable[..., object], args: Any, kw: Any) -> None:
        if not self._dead:
            call(*args, **kw)


class ListenerBench(BrokeredBench):
    """The process that has the file: it accepts, answers, and writes down what workers report.

    ``server`` is a broker that others use, too.
    """

    time: Clock

    def __init__(self, traits: BrokerTraits | None = None, server: FakeServer | None = None) -> None:
        self._shared = server
        super().__init__(traits)

    def open(self) -> None:
        self.time = getattr(self.clock, "time", self.clock)
        self.clock: Any = ProcessClock(self.time)
        super().open()

    def forget(self) -> None:
        super().forget()
        self.clock.kill()

    def make_queue(self) -> Any:
        if self._shared is not None:
            self.server = self._shared
        self.broker = FakeBroker(self.server, self.clock, self.traits)
        self.ledger = SqliteLedger(
            self.file, self.store, self.clock, channels=CHANNELS, reply_channel=REPLIES, limits=self.limits
        )
        self.steps = StepsConsumer(self.broker, SqliteSteps(self.file, self.store, self.ledger), self.clock, REPLIES)
        return BrokeredQueue(
            self.broker,
            self.ledger,
            self.clock,
            channels=CHANNELS,
            dead_letters=DEAD_LETTERS,
            lease=LEASE,
            steps=self.steps,
            queues=(REQUESTS,),
        )

    def rows(self, table: str) -> int:
        """How many rows the table has."""
        count: int = fetch_one(self.file.reader, f"SELECT count(*) FROM {table}")[0]
        return count


class Worker:
    """A process that only works."""

    def __init__(self, bench: ListenerBench, name: str) -> None:
        self.clock: Any = ProcessClock(bench.time)
        self.broker = FakeBroker(bench.server, self.clock, bench.traits)
        self.ledger = StorelessLedger(self.broker, self.clock, reply_channel=REPLIES, name=name)
        self.queue = BrokeredQueue(
            self.broker, self.ledger, self.clock, channels=CHANNELS, dead_letters=DEAD_LETTERS, lease=LEASE
        )
        self.queue.start()

    def kill(self) -> None:
        """kill -9."""
        self.broker.crash()
        self.clock.kill()


@implementer(IMessageQueue)
class WorkedElsewhere:
    """What a caller sees of both: it accepts and asks at the listener, and receives from one worker after the other."""

    def __init__(self, listener: BrokeredQueue, workers: Sequence[BrokeredQueue]) -> None:
        self._listener = listener
        self.together = listener.together
        self._workers = list(workers)

    @property
    def traits(self) -> QueueTraits:
        return self._listener.traits

    @property
    def unavailable_reason(self) -> str | None:
        return self._listener.unavailable_reason

    @property
    def warnings(self) -> Sequence[str]:
        return [warning for queue in (self._listener, *self._workers) for warning in queue.warnings]

    def start(self) -> Deferred[None]:
        return self._listener.start()

    def stop(self) -> Deferred[None]:
        return self._listener.stop()

    def accept(
        self,
        submission: Submission,
        claim: IdempotencyClaim | None,
        follow_ups: Sequence[Submission] = (),
        children: Sequence[Child] = (),
    ) -> Deferred[Acceptance]:
        return self._listener.accept(submission, claim, follow_ups, children)

    def receive(
        self, queue: str, most: int, *, in_order: bool = False, shares: IShares | None = None
    ) -> Deferred[Sequence[IDelivery]]:
        if shares is not None:  # those of one pool of workers
            return self._workers[0].receive(queue, most, shares=shares)
        worker = self._workers.pop(0)
        self._workers.append(worker)
        return worker.receive(queue, most, in_order=in_order)

    async def _depth(self, queue: str) -> Depth:
        depth = await self._listener.depth(queue)
        local = [await worker.depth(queue) for worker in self._workers] if queue != DEAD_LETTERS else []
        return Depth(depth.ready, depth.delayed, sum(each.in_flight for each in local), depth.oldest)

    def depth(self, queue: str) -> Deferred[Depth]:
        return Deferred.fromCoroutine(self._depth(queue))

    def waiting(self, queue: str) -> Deferred[Mapping[Priority, Waiting]]:
        return self._listener.waiting(queue)

    def queues(self) -> Deferred[Sequence[str]]:
        return self._listener.queues()

    def reject(self, letter: DeadLetter) -> Deferred[None]:
        return self._listener.reject(letter)

    def last_dead_letter(self) -> Deferred[int]:
        return self._listener.last_dead_letter()

    def drop_dead_letter(self, number: int) -> Deferred[None]:
        return self._listener.drop_dead_letter(number)

    def load(self) -> Deferred[Load | None]:
        return self._listener.load()

    def dead_letters(self, after: int, most: int) -> Deferred[Sequence[tuple[int, DeadLetter]]]:
        return self._listener.dead_letters(after, most)

    def redrive(self, number: int) -> Deferred[Acceptance]:
        return self._listener.redrive(number)


class WorkedElsewhereBench(ListenerBench):
    """A listener and two workers, which crash together."""

    def turn(self) -> None:
        # A retry goes to the file, from there to the broker, and from there to a worker.
        for _ in range(3):
            super().turn()

    def done(self, deferred: Deferred[Any]) -> Deferred[Any]:
        # A message may have gone to the worker that does not ask any more: it has it for a second.
        self.turn()
        if not deferred.called:
            self.pass_time(2 * IDLE_SECONDS)
        return deferred

    def open(self) -> None:
        super().open()
        self.workers = [Worker(self, name) for name in ("a", "b")]
        self.queue = WorkedElsewhere(self.queue, [worker.queue for worker in self.workers])

    def forget(self) -> None:
        for worker in self.workers:
            worker.kill()
        super().forget()


class StorelessCase(SynchronousTestCase):
    """One listener, and a worker beside it; others come and go.

    A subclass may have another form of broker. SQS leases each message, and a killed worker keeps its leases.
    """

    traits: BrokerTraits = FORMS["amqp"]

    def setUp(self) -> None:
        self.open_bench()
        self.addCleanup(lambda: self.bench.close())

    def open_bench(self) -> None:
        self.bench = ListenerBench(self.traits)
        self.endings: list[str] = []
        self.bench.store.on_ending.append(lambda number, status: self.endings.append(status))
        self.names = iter("abcdefghijklmnopqrstuvwxyz")
        self.worker = self.new_worker()
        self.bench.turn()

    def new_worker(self) -> Worker:
        return Worker(self.bench, next(self.names))

    def do(self, deferred: Deferred[Any]) -> Any:
        return self.successResultOf(self.bench.done(deferred))

    def fails(self, deferred: Deferred[Any], kind: type[Exception]) -> Any:
        return self.failureResultOf(self.bench.done(deferred), kind).value

    def accept(self, **fields: Any) -> str:
        """The id of a request that was accepted."""
        correlation_id: str = self.do(self.bench.queue.accept(Submission(b"1", **fields), None)).correlation_id
        return correlation_id

    def receive(self, worker: Worker | None = None, queue: str = REQUESTS) -> Deferred[Any]:
        return (worker or self.worker).queue.receive(queue, 1, in_order=queue == IN_ORDER)

    def receive_one(self, worker: Worker | None = None, queue: str = REQUESTS) -> Any:
        (delivery,) = self.do(self.receive(worker, queue))
        return delivery

    def eventually(self, waiting: Deferred[Any], seconds: float = 100.0) -> Any:
        """The delivery that comes once leases are over."""
        end = self.bench.now() + seconds
        while not waiting.called and self.bench.now() < end:
            self.bench.pass_time(1)
        (delivery,) = self.successResultOf(waiting)
        return delivery

    def reply(self, delivery: Any, status: Status = Status.COMPLETED, result: bytes = b"1") -> Reply:
        id = delivery.request.correlation_id
        return Reply(id, status, self.bench.now(), result=result, attempt=delivery.attempt)

    def settle(self, delivery: Any, **fields: Any) -> None:
        self.assertTrue(self.do(delivery.settle(self.reply(delivery, **fields))))

    def record(self, correlation_id: str) -> Record:
        found: Record = self.do(self.bench.store.find(correlation_id))
        return found

    def types(self, correlation_id: str) -> list[str]:
        found: list[Event] = []
        while piece := self.do(self.bench.store.history(correlation_id, found[-1].number if found else 0)):
            found += piece
        return [event.type for event in found]

    def depth(self, channel: str = REPLIES) -> int:
        """How many messages lie in the channel, or are out of it."""
        self.bench.turn()
        return len(self.bench.server.messages(channel))

    def letters(self) -> list[DeadLetter]:
        self.bench.turn()
        return [letter for _, letter in self.do(self.bench.queue.dead_letters(0, 100))]

    def publish(self, body: bytes, channel: str = REPLIES, **headers: str) -> None:
        """As another program does."""
        self.bench.server.channels[channel].put(Message(body, headers))
        self.bench.server.channels[channel].dispatch()
        self.bench.turn()

    def nothing_is_left(self, about: str = "") -> None:
        """No message is in the broker, and the file has nothing but records."""
        left = {name: len(channel.messages()) for name, channel in self.bench.server.channels.items()}
        self.assertEqual({name: count for name, count in left.items() if count}, {}, about)
        self.assertEqual({table: self.bench.rows(table) for table in TABLES}, dict.fromkeys(TABLES, 0), about)

    def restart_listener(self) -> None:
        """It is killed, and another process with its file begins."""
        self.stop_listener()
        self.start_listener()

    def stop_listener(self) -> None:
        """It is killed."""
        self.bench.forget()

    def start_listener(self) -> None:
        """Another process with its file begins."""
        self.bench.open()
        self.bench.store.on_ending.append(lambda number, status: self.endings.append(status))
        self.bench.turn()
