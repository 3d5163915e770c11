"""A bridge, over a broker in memory: what is accepted, acknowledged, recognised and held back."""

from __future__ import annotations

import gc
import io
import json
from collections.abc import Callable, Sequence
from typing import Any

import attrs
from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from openhqm.bridges.bridge import OUTCOMES, Bridge
from openhqm.bridges.endings import StoreEndings
from openhqm.bridges.formats import Formats
from openhqm.bridges.held_claims import HeldClaims
from openhqm.bridges.reading import Reader, Reading
from openhqm.codec import decode_dead_letter, encode_dead_letter
from openhqm.config.bridges import Bridge as Settings
from openhqm.config.bridges import Source
from openhqm.errors import NotDurable, QueueFull
from openhqm.ingress.submission import check_submission, read_submission
from openhqm.interfaces import (
    Acks,
    IBrokerDelivery,
    IForeignBroker,
    IReceiver,
    ISubscription,
    Message,
    Properties,
)
from openhqm.memory.queue import MemoryQueue
from openhqm.memory.results import MemoryResults
from openhqm.messages import Reply, Status
from openhqm.policy.addressing import Addressing, Partitioning
from openhqm.policy.fields import Field
from openhqm.policy.ids import CorrelationIds
from openhqm.policy.limits import NO_LIMITS, Limits
from openhqm.queue.shedding import Shedding, count_shed
from openhqm.runtime.counting import Counts
from openhqm.runtime.logs import json_line, observer, set_level

MOST = 10


@implementer(IBrokerDelivery)
class Delivery:
    position = None
    redelivery_count = None

    def __init__(self, message: Message, acknowledged: Callable[[Delivery], bool]) -> None:
        self.message = message
        self.revoked: Deferred[str] = Deferred()
        self._acknowledged = acknowledged

    def ack(self) -> Deferred[None]:
        self.revoked = Deferred()
        return succeed(None) if self._acknowledged(self) else fail(NotDurable("the connection was lost"))

    def requeue(self) -> Deferred[None]:
        raise AssertionError("a bridge requeues nothing")

    def extend(self, seconds: float) -> Deferred[None]:
        raise AssertionError("it has no lease")


@implementer(IForeignBroker, ISubscription)
class Foreign:
    """It delivers what a test says, in order, as far as the credit allows."""

    unavailable_reason = None
    warnings: Sequence[str] = ()

    def __init__(self, acks: Acks = Acks.IN_ORDER) -> None:
        self.acks = acks
        self.acknowledged: list[bytes] = []
        self.out: list[Delivery] = []
        self.kept: list[Message] = []
        self.credits: list[int] = []
        self.receiver: IReceiver | None = None
        self.published: list[tuple[str, Message]] = []
        self.refuses = False
        self.loses_acknowledgements = False

    def deliver(self, *messages: Message) -> None:
        self.kept += messages
        while self.kept and self.receiver is not None and len(self.out) < self.credits[-1]:
            delivery = Delivery(self.kept.pop(0), self._acknowledged)
            self.out.append(delivery)
            self.receiver.received(delivery)

    def redeliver(self, duplicate: bool | None = True) -> None:
        """The connection is lost, and all that is out comes again."""
        out, self.out = self.out, []
        for delivery in out:
            delivery.revoked.callback("the connection was lost")
        again = []
        for delivery in out:
            properties = delivery.message.properties or Properties()
            about = Properties(properties.topic, identity=properties.identity, duplicate=duplicate)
            again.append(Message(delivery.message.body, {}, None, about))
        self.kept = [*again, *self.kept]
        self.deliver()

    def _acknowledged(self, delivery: Delivery) -> bool:
        if delivery not in self.out:
            return False
        self.out.remove(delivery)
        if self.loses_acknowledgements:
            return False
        self.acknowledged.append(delivery.message.body)
        self.deliver()
        return True

    def subscribe(self, name: str, channels: Sequence[str], most: int, receiver: IReceiver) -> ISubscription:
        self.receiver = receiver
        return self

    def credit(self, most: int) -> None:
        self.credits.append(most)
        self.deliver()

    def stop(self) -> Deferred[None]:
        self.receiver = None
        return succeed(None)

    def start(self) -> Deferred[None]:
        return succeed(None)

    def when_probed(self) -> Deferred[None]:
        return succeed(None)

    def fault(self, channel: str) -> str | None:
        return None

    def publish(self, channel: str, message: Message) -> Deferred[None]:
        if self.refuses:
            return fail(NotDurable("away"))
        self.published.append((channel, message))
        return succeed(None)

    def ask(self, channel: str, message: Message, answers: str | None) -> Deferred[Message]:
        raise AssertionError("a bridge publishes nothing")


class Slow(MemoryQueue):
    """It accepts when a test says so, where it is to ``hold``; or fails with ``failure``."""

    hold = False
    failure: Exception | None = None

    def accept(self, *arguments: Any) -> Deferred[Any]:
        if self.failure is not None:
            return fail(self.failure)
        if not self.hold:
            return super().accept(*arguments)
        self.held = getattr(self, "held", [])
        result: Deferred[Any] = Deferred()
        self.held.append((result, arguments))
        return result

    def let_go(self, index: int) -> None:
        """Accept one of those that are held."""
        result, arguments = self.held.pop(index)
        super().accept(*arguments).chainDeferred(result)


def message(body: bytes = b"1", id: str | None = None, duplicate: bool | None = None, **more: Any) -> Message:
    return Message(body, more.pop("headers", {}), None, Properties("a/b", identity=id, duplicate=duplicate, **more))


class BridgeTests(SynchronousTestCase):
    """One bridge into a queue in memory"""

    failures: str | None = None

    def make(
        self,
        acks: Acks = Acks.IN_ORDER,
        limits: Limits = NO_LIMITS,
        addressing: Addressing | None = None,
        ending: bool = False,
        **settings: Any,
    ) -> None:
        self.clock = Clock()
        ids = CorrelationIds(b"k" * 32)
        self.store = MemoryResults(self.clock, ids, 60.0)
        self.queue = Slow(self.store, self.clock, ids, requests="q", dead_letters="dead", limits=limits)
        self.broker = Foreign(acks)
        made = Settings(name="b", from_=Source("plant", topics=["a/#"], format="json"), **settings)
        formats = Formats(read_submission, check_submission)
        reader = Reader(made, addressing or Addressing(), formats, lambda channel: None, 100)
        counts = Counts("bridged", "Messages.", "outcome", OUTCOMES, CollectorRegistry())
        self.bridge = Bridge(
            "b",
            self.broker,
            ["a/#"],
            "b",
            reader,
            self.queue,
            self.clock,
            lambda: 0.5,
            counts,
            HeldClaims(self.store, self.clock, acks, made.seen_seconds),
            most=MOST,
            endings=StoreEndings(self.store) if ending else None,
            failures=self.failures,
            admission=Shedding(self.queue, "q", self.clock, limits, count_shed(CollectorRegistry())),
        )
        self.counts = counts
        self.successResultOf(self.queue.start())
        self.bridge.start()

    def payloads(self, queue: str = "q") -> list[bytes]:
        """The payloads of all requests that wait in a queue, which are received."""
        found = []
        while self.successResultOf(self.queue.depth(queue)).ready:
            self.deliveries = self.successResultOf(self.queue.receive(queue, 100))
            found += [each.request.submission.payload for each in self.deliveries]
        return found

    def test_freed_at_once(self) -> None:
        """What was read in a message is free once that is acknowledged, without the garbage collector."""
        self.addCleanup(gc.enable)
        for acks in (Acks.EACH, Acks.IN_ORDER):
            self.make(acks)
            gc.collect()
            gc.disable()
            self.broker.deliver(*(message(b"%d" % number) for number in range(40)))
            self.assertEqual(len(self.broker.acknowledged), 40)
            left = [each for each in gc.get_objects() if isinstance(each, Delivery | Message | Reading)]
            self.assertLess(len(left), 10, acks)

    def test_acknowledged_when_accepted(self) -> None:
        """A message is acknowledged once it is a request, and not before."""
        self.make()
        self.queue.hold = True
        self.broker.deliver(message(b"1"))
        self.assertEqual(self.broker.acknowledged, [])
        self.queue.let_go(0)
        self.assertEqual(self.broker.acknowledged, [b"1"])
        self.assertEqual(self.payloads(), [b"1"])

    def test_acknowledged_in_order(self) -> None:
        """Where the product wants that, one that is accepted later holds up the acknowledgements after it."""
        for acks, expected in ((Acks.IN_ORDER, [b"1", b"2"]), (Acks.EACH, [b"2", b"1"])):
            self.make(acks)
            self.queue.hold = True
            self.broker.deliver(message(b"1"), message(b"2"))
            self.queue.let_go(1)
            self.queue.let_go(0)
            self.assertEqual(self.broker.acknowledged, expected)

    def test_delivered_again(self) -> None:
        """A message that was accepted and not acknowledged is recognised when it comes again."""
        self.make()
        self.queue.hold = True
        self.broker.deliver(message(b"1", "7", False), message(b"2", "8", False))
        self.queue.let_go(1)
        self.queue.hold = False
        self.broker.redeliver()
        self.queue.let_go(0)  # what was being accepted meanwhile is a repeat of what came again
        self.assertEqual(self.broker.acknowledged, [b"1", b"2"])
        self.assertEqual(sorted(self.payloads()), [b"1", b"2"])
        self.assertEqual((self.counts["accepted"].value, self.counts["repeated"].value), (2, 2))

    def test_delivered_again_late(self) -> None:
        """For how long a message is recognised is for the operator to say, whatever became of its request meanwhile."""
        for seconds, payloads in ((3600.0, [b"1", b"1"]), (3 * 86400.0, [b"1"])):
            self.make(seen_seconds=seconds)
            record = Message(b"1", {}, None, Properties(topic="a/b", message_id="orders/0/7"))
            self.broker.deliver(record)
            self.clock.advance(1.0)  # claims are made short together
            self.clock.advance(2 * 86400.0)
            self.broker.deliver(record)
            self.assertEqual(self.payloads(), payloads)
            self.assertEqual(self.broker.acknowledged, [b"1", b"1"])

    def test_delivered_again_after_an_outage(self) -> None:
        """A message is recognised for as long as its broker has no acknowledgement of it, also a week later."""
        for acks in (Acks.EACH, Acks.IN_ORDER):
            self.make(acks, seen_seconds=60)
            record = Message(b"1", {}, None, Properties(topic="a/b", message_id="orders/0/7"))
            self.broker.loses_acknowledgements = True
            self.broker.deliver(record)
            self.clock.advance(7 * 86400.0)
            self.broker.loses_acknowledgements = False
            self.broker.deliver(record)
            self.assertEqual(self.payloads(), [b"1"])
            self.successResultOf(self.deliveries[0].ack())
            self.clock.advance(1.0)
            self.clock.advance(2 * 3600.0)  # acknowledged: one that comes now was asked for
            self.broker.deliver(record)
            self.assertEqual(self.payloads(), [b"1"])

    def test_identity_used_again(self) -> None:
        """A message that is not delivered again is a new one, also with the identity and the content of an old one."""
        self.make()
        self.broker.deliver(message(b"1", "7", False))
        self.broker.deliver(message(b"1", "7", False))  # packet identifiers come again
        self.broker.deliver(message(b"2", "7"))  # a producer that gives the same id to another message
        self.assertEqual(self.payloads(), [b"1", b"1", b"2"])

    def test_no_answer(self) -> None:
        """A message that the store may have accepted, and did not say so, is one request."""
        self.make()
        accept = self.queue.accept

        def silent(*arguments: Any) -> Deferred[Any]:
            accept(*arguments)
            return fail(NotDurable("no answer", maybe_done=True))

        self.patch(self.queue, "accept", silent)
        self.broker.deliver(message(b"1", "7", False))
        self.queue.accept = accept  # type: ignore[method-assign]
        self.clock.advance(10)
        self.assertEqual((self.payloads(), self.broker.acknowledged), ([b"1"], [b"1"]))

    def test_lost_channel(self) -> None:
        """A channel that is gone is said for as long as it is, also when an older message is accepted meanwhile."""
        self.make()
        self.queue.hold = True
        self.broker.deliver(message(b"1"))
        self.bridge.lost("there is no such queue")
        self.queue.let_go(0)
        self.assertEqual(self.bridge.warning, "bridge b: there is no such queue")
        self.queue.hold = False
        self.clock.advance(10)
        self.assertIsNone(self.bridge.warning)
        self.broker.deliver(message(b"2"))
        self.assertEqual(self.broker.acknowledged, [b"1", b"2"])

    def test_same_event(self) -> None:
        """What its producer has sent twice, with the same id, is one request, whatever the product says."""
        self.make()
        self.bridge.reader = Reader(
            Settings(name="b", from_=Source("plant", topics=["a/#"])),
            Addressing(),
            Formats(read_submission, check_submission),
            lambda channel: None,
            100,
        )
        headers = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}
        for number in range(2):
            self.broker.deliver(message(b"1", str(number), False, headers=headers))
        self.assertEqual(self.payloads(), [b"1"])

    def test_full(self) -> None:
        """While the queue is full, nothing more is asked for; with room, all are accepted in their order."""
        self.make(limits=Limits(requests=2))
        self.broker.deliver(*(message(b"%d" % number) for number in range(20)))
        self.assertEqual(self.broker.acknowledged, [b"0", b"1"])
        self.assertLessEqual(len(self.broker.out), MOST)
        self.assertEqual(self.broker.credits[-1], 0)
        assert self.bridge.warning is not None
        self.assertIn("waits", self.bridge.warning)
        seen: list[bytes] = []
        for _ in range(10):
            for each in self.successResultOf(self.queue.receive("q", 100)):
                seen.append(each.request.submission.payload)
                self.successResultOf(each.settle(Reply(each.request.correlation_id, Status.COMPLETED, 1.0)))
            self.clock.advance(10)
        self.assertEqual(seen, [b"%d" % number for number in range(20)])
        self.assertEqual(
            (len(self.broker.acknowledged), self.broker.credits[-1], self.bridge.warning), (20, MOST, None)
        )

    def test_shed(self) -> None:
        """Where too much waits in the queue, nothing is acknowledged, and all are accepted in their order later."""
        self.make(limits=Limits(shed_waiting=2))
        self.broker.deliver(*(message(b"%d" % number) for number in range(6)))
        self.assertEqual(self.broker.acknowledged, [b"0", b"1"])
        self.assertIn("queue.limits.shed_waiting", self.bridge.warning or "")
        seen: list[bytes] = []
        for _ in range(3):
            for each in self.successResultOf(self.queue.receive("q", 100)):
                seen.append(each.request.submission.payload)
            self.clock.advance(10)
        self.assertEqual(seen, [b"%d" % number for number in range(6)])

    def test_keeps_up(self) -> None:
        """A full queue that is being worked off is filled again at once, and not only now and then."""
        self.make(limits=Limits(requests=2))
        self.broker.deliver(*(message(b"%d" % number) for number in range(200)))
        self.clock.pump([1.0] * 60)  # until then nothing was worked off
        done = 0
        for _ in range(80):
            self.clock.advance(0.1)
            ready = self.successResultOf(self.queue.depth("q")).ready
            for each in self.successResultOf(self.queue.receive("q", 100)) if ready else ():
                self.successResultOf(each.settle(Reply(each.request.correlation_id, Status.COMPLETED, 1.0)))
                done += 1
        self.assertGreater(done, 100)

    def test_store_away(self) -> None:
        """Nothing is lost, and nothing acknowledged, while the store cannot be written."""
        self.make()
        self.queue.failure = NotDurable("the disk is full")
        self.broker.deliver(message(b"1"), message(b"2"))
        self.clock.pump([1.0] * 20)
        self.assertEqual(self.broker.acknowledged, [])
        self.queue.failure = None
        self.clock.advance(10)
        self.assertEqual((self.broker.acknowledged, self.payloads()), ([b"1", b"2"], [b"1", b"2"]))

    def test_broken_store(self) -> None:
        """An error that nobody has thought of does not cost a message, either."""
        self.make()
        self.queue.failure = ZeroDivisionError()
        self.broker.deliver(message(b"1"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.queue.failure = None
        self.clock.advance(10)
        self.assertEqual(self.broker.acknowledged, [b"1"])

    def test_cannot_be_stored(self) -> None:
        """A message that breaks the store is a dead letter, and holds up no other: it would break it each time."""
        self.make()
        self.queue.failure = UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed")
        self.broker.deliver(message(b"1", headers={"X-A": "b"}))
        self.queue.failure = None
        self.broker.deliver(message(b"2"), message(b"3", headers={"X": "\udcff", "\udcff": "y"}))
        self.assertEqual(len(self.flushLoggedErrors(UnicodeEncodeError)), 1)
        self.assertEqual((self.broker.acknowledged, self.payloads()), ([b"1", b"2", b"3"], [b"2"]))
        letters = [each for _, each in self.successResultOf(self.queue.dead_letters(0, 10))]
        self.assertEqual([each.request.submission.body for each in letters], [b"1", b"3"])
        for each in letters:
            self.assertEqual(decode_dead_letter(encode_dead_letter(each)), each)

    def test_revoked_while_waiting(self) -> None:
        """What waits for room and is delivered again is accepted once."""
        self.make()
        self.queue.failure = QueueFull("full")
        self.broker.deliver(message(b"1"), message(b"2"))
        self.broker.redeliver(None)
        self.broker.credit(MOST)
        self.queue.failure = None
        self.clock.advance(10)
        self.assertEqual(self.payloads(), [b"1", b"2"])
        self.assertEqual(self.broker.acknowledged, [b"1", b"2"])

    def test_revoked_and_gone(self) -> None:
        """Where all that waited went to another process, the bridge asks for more."""
        self.make()
        self.queue.failure = QueueFull("full")
        self.broker.deliver(message(b"1"))
        out, self.broker.out = self.broker.out, []
        out[0].revoked.callback("the connection was lost")
        self.queue.failure = None
        self.clock.advance(10)
        self.broker.deliver(message(b"2"))
        self.assertEqual(self.payloads(), [b"2"])

    def test_order_of_a_partition(self) -> None:
        """Messages of one key are accepted one after the other; other keys do not wait for them."""
        partitioning = Partitioning(Field.parse("metadata.partition_key"), 16)
        self.make(addressing=Addressing(partitioning=partitioning), partition_key="{{ payload.device }}")
        self.queue.hold = True
        self.broker.deliver(*(message(b'{"device":"%b","n":%d}' % each) for each in ((b"x", 1), (b"x", 2), (b"y", 3))))
        held = [arguments[0].payload for _, arguments in self.queue.held]
        self.assertEqual(held, [b'{"device":"x","n":1}', b'{"device":"y","n":3}'])
        self.queue.let_go(0)
        self.assertEqual(self.queue.held[-1][1][0].payload, b'{"device":"x","n":2}')

    def test_deep_line(self) -> None:
        """A long line of messages of one key needs no deep stack."""
        partitioning = Partitioning(Field.parse("metadata.partition_key"), 1)
        self.make(addressing=Addressing(partitioning=partitioning), partition_key="{{ topic[0] }}")
        self.bridge._most = 5000  # type: ignore[misc]
        self.broker.credits.append(5000)
        self.queue.hold = True
        self.broker.deliver(*[message()] * 5000)
        self.queue.hold = False
        self.queue.let_go(0)
        self.assertEqual(len(self.broker.acknowledged), 5000)

    def test_unreadable(self) -> None:
        """What is no request is a dead letter with its bytes and its topic, and is acknowledged."""
        self.make()
        self.broker.deliver(message(b"{no JSON", headers={"X-A": "b"}), message(b"1" * 101), message(b"2"))
        letters = [each for _, each in self.successResultOf(self.queue.dead_letters(0, 10))]
        self.assertEqual([each.request.submission.body for each in letters], [b"{no JSON", b"1" * 100])
        self.assertEqual(
            letters[0].request.submission.metadata, {"bridge": "b", "topic": "a/b", "fields": {"X-A": "b"}}
        )
        self.assertIn("not JSON", letters[0].reason)
        self.assertIn("of its 101 bytes", letters[1].reason)
        self.assertEqual(len(self.broker.acknowledged), 3)
        self.assertEqual(self.payloads(), [b"2"])

    def test_never_fits(self) -> None:
        """A message that would not fit into an empty queue is a dead letter, and holds up no other."""
        self.make(limits=Limits(bytes=250))
        self.broker.deliver(message(b'"%b"' % (b"x" * 98)), message(b"2"))
        self.assertEqual(len(self.successResultOf(self.queue.dead_letters(0, 10))), 1)
        self.assertEqual(len(self.broker.acknowledged), 2)

    def test_too_long_for_the_queue(self) -> None:
        """So is one whose request, headers and metadata included, is longer than the broker of the queue takes."""
        for taken, body, headers in ((1, b"1", {}), (0, b'"%b"' % (b"x" * 98), {}), (0, b"1", {"X-A": "b" * 300})):
            self.make()
            self.queue.traits = attrs.evolve(self.queue.traits, largest_message=250)
            self.broker.deliver(message(body, headers=headers), message(b"2"))
            letters = self.successResultOf(self.queue.dead_letters(0, 10))
            self.assertEqual(len(letters), 1 - taken, (body, headers))
            self.assertEqual(len(self.broker.acknowledged), 2)
            if letters:
                self.assertIn("the queue takes at most 250", letters[0][1].reason)

    def test_acknowledged_at_the_ending(self) -> None:
        """Where that is asked for, a message is acknowledged when its request has ended."""
        self.make(Acks.EACH, ending=True)
        self.broker.deliver(message(b"1", "7"))
        self.assertEqual(self.broker.acknowledged, [])
        self.payloads()
        (delivery,) = self.deliveries
        self.successResultOf(delivery.settle(Reply(delivery.request.correlation_id, Status.COMPLETED, 1.0)))
        self.assertEqual(self.broker.acknowledged, [b"1"])
        self.broker.deliver(message(b"1", "7"))  # it was on its way again
        self.assertEqual(self.broker.acknowledged, [b"1", b"1"])

    def test_failures_are_published(self) -> None:
        """What fails for good is in its channel before it is acknowledged, also where its broker takes it later."""
        self.failures = "failed"
        self.make(Acks.EACH, ending=True)
        self.broker.refuses = True
        old = {"openhqm-correlation-id": "of another request"}
        self.broker.deliver(
            message(b"1", headers={"a": "b", **old}, position="0/7"), message(b"no json", headers=old), message(b"3")
        )
        self.payloads()
        first, third = self.deliveries
        for delivery, status in ((first, Status.FAILED), (third, Status.COMPLETED)):
            error = "it said\nno" if status is Status.FAILED else None
            self.successResultOf(delivery.settle(Reply(delivery.request.correlation_id, status, 1.0, error=error)))
        self.assertEqual((self.broker.acknowledged, self.broker.published), ([b"3"], []))
        self.assertIn("away", self.bridge.warning or "")
        self.broker.refuses = False
        self.clock.advance(5)
        self.assertEqual(sorted(self.broker.acknowledged), [b"1", b"3", b"no json"])
        self.assertIsNone(self.bridge.warning)
        published = {each.body: each.headers for _, each in self.broker.published}
        id = first.request.correlation_id
        ours = {"openhqm-bridge": "b", "openhqm-topic": "a/b"}
        self.assertEqual(published[b"1"].pop("openhqm-correlation-id"), id)
        failed = {"a": "b", "openhqm-error": "it said no", "openhqm-position": "0/7", **ours}
        self.assertEqual(published[b"1"], failed)
        self.assertIn("not JSON", published[b"no json"]["openhqm-error"])
        self.assertNotIn("openhqm-correlation-id", published[b"no json"])

    def test_followed(self) -> None:
        """At DEBUG, and only there, a line joins a message's topic and position with the id of its request."""
        stream = io.StringIO()
        write = observer(json_line, "INFO", stream)
        self.addCleanup(set_level, "INFO")
        globalLogPublisher.addObserver(write)
        self.addCleanup(globalLogPublisher.removeObserver, write)
        events: list[LogEvent] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        self.make(Acks.EACH)
        set_level("INFO")
        self.broker.deliver(message(b"1", "6"))
        self.assertEqual([each for each in events if "correlation_id" in each], [])
        set_level("DEBUG")
        self.broker.deliver(message(b"2", "7", position="0/7"), message(b"2", "7"), message(b"no json"))
        self.payloads()
        id = self.deliveries[1].request.correlation_id
        lines = [json.loads(line) for line in stream.getvalue().splitlines()]
        told = [(line["message"], line["correlation_id"]) for line in lines if "correlation_id" in line]
        accepted = ("bridge b accepted a message of a/b at 0/7", id)
        self.assertEqual(told, [accepted, ("bridge b recognised a message of a/b", id)])

    def test_stopped(self) -> None:
        """It waits for what is being accepted; what waits for room is not acknowledged."""
        self.make()
        self.queue.hold = True
        self.broker.deliver(message(b"1"))
        stopping = self.bridge.stop()
        self.assertNoResult(stopping)
        self.queue.let_go(0)
        self.successResultOf(stopping)
        self.assertEqual(self.broker.acknowledged, [b"1"])
        self.make()
        self.queue.failure = QueueFull("full")
        self.broker.deliver(message(b"1"))
        self.successResultOf(self.bridge.stop())
        self.assertEqual((self.broker.acknowledged, self.clock.getDelayedCalls()), ([], []))
