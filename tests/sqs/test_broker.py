"""What the adapter does about throttling, credentials, clocks, faults of entries, and a server that hangs."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable
from email.utils import formatdate
from itertools import count
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from openhqm.errors import NotDurable
from openhqm.interfaces import Message
from openhqm.runtime.deferreds import deferred
from openhqm.sqs.broker import SqsBroker
from openhqm.testing.broker_bench import Inbox
from tests.sqs.front import Front, refusal
from tests.sqs.server import REGION, ElasticMQ, new_session, shared_elasticmq

POLICY = {
    "GetQueueUrl",
    "GetQueueAttributes",
    "CreateQueue",
    "SendMessageBatch",
    "ReceiveMessage",
    "DeleteMessageBatch",
    "ChangeMessageVisibilityBatch",
}
"""The operations that the policy in docs/sqs.md allows: those of a batch are allowed with those of one message."""
_names = count(1)


class SqsCase(TestCase):
    """A broker before ElasticMQ, with a front in between. What is waited for has a deadline."""

    timeout = 240

    def setUp(self) -> None:
        self.server = shared_elasticmq()
        self.front = Front(self.server.url)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.front.close()))
        self.channel = f"adapter{next(_names)}"

    def broker(self, url: str | None = None, **settings: Any) -> SqsBroker:
        """A client, started, with short times."""
        given = {"seconds": 2.0, "wait": 1, "lease": 1.7, "probe_seconds": 0.5, "make_session": new_session, **settings}
        made = SqsBroker(reactor, random.random, endpoint_url=url or self.front.url, **given)
        self.addCleanup(made.stop)
        made.start()
        return made

    async def connected(self, **settings: Any) -> SqsBroker:
        """The same, and the channel is there."""
        broker = self.broker(**settings)
        await broker.when_probed()
        await self.until(lambda: broker.unavailable_reason is None)
        await broker.ensure(self.channel)
        return broker

    def consume(self, broker: SqsBroker, credit: int = 10) -> Inbox:
        inbox = Inbox()
        inbox.subscription = broker.consume(self.channel, inbox)
        inbox.subscription.credit(credit)
        return inbox

    async def until(self, holds: Callable[[], Any], seconds: float = 15.0) -> None:
        """Ask again until it holds."""
        deadline = time.monotonic() + seconds
        while not holds():
            self.assertLess(time.monotonic(), deadline, "it did not come about")
            await deferLater(reactor, 0.02)  # type: ignore[arg-type]


class FaultsTests(SqsCase):
    """`SqsBroker`, before a front that answers as SQS does"""

    @deferred
    async def test_nothing_beyond_the_policy(self) -> None:
        """What is used is what the policy in the documentation allows."""
        broker = await self.connected()
        inbox = self.consume(broker)
        await broker.publish(self.channel, [Message(b"1"), Message(b"2")])
        await self.until(lambda: len(inbox.deliveries) == 2)
        await inbox.deliveries[0].extend(5.0)
        await inbox.deliveries[0].requeue()
        await inbox.deliveries[1].ack()
        await broker.depth(self.channel)
        await broker.exists("another")
        self.assertLessEqual(set(self.front.asked), POLICY)

    @deferred
    async def test_three_of_a_batch(self) -> None:
        """Of a batch of which SQS refuses three entries, those three are not confirmed, and the others are there."""
        broker = await self.connected()
        bodies = [b"%d" % number for number in range(10)]

        def change(operation: str, arguments: dict[str, Any], answer: dict[str, Any]) -> None:
            if operation == "SendMessageBatch":
                refused = [each for each in answer["Successful"] if each["Id"] in ("1", "4", "9")]
                answer["Successful"] = [each for each in answer["Successful"] if each not in refused]
                failed = {"Code": "InternalError", "SenderFault": False}
                answer["Failed"] = [{"Id": each["Id"], **failed} for each in refused]

        self.front.change = change
        outcomes = await broker.publish(self.channel, [Message(body) for body in bodies])
        self.assertEqual([number for number, each in enumerate(outcomes) if each is not None], [1, 4, 9])
        self.assertTrue(all(each.maybe_done for each in outcomes if each is not None))

    @deferred
    async def test_throttled(self) -> None:
        """What is throttled is repeated with a pause; throttled for longer it is refused, and works afterwards."""
        broker = await self.connected(seconds=1.0)
        refused = [3]

        def rule(operation: str, arguments: dict[str, Any], authorization: str) -> Any:
            if operation == "SendMessageBatch" and refused[0]:
                refused[0] -= 1
                return refusal("RequestThrottled")
            return None

        self.front.rule = rule
        refused[0] = 1
        self.assertEqual(await broker.publish(self.channel, [Message(b"1")]), [None])
        refused[0] = 1000
        began, asked = time.monotonic(), self.front.asked["SendMessageBatch"]
        (outcome,) = await broker.publish(self.channel, [Message(b"2")])
        assert outcome is not None
        self.assertIn("throttling", outcome.reason)
        self.assertLess(time.monotonic() - began, 3.0)
        self.assertLess(self.front.asked["SendMessageBatch"] - asked, 6)
        refused[0] = 0
        await self.until(lambda: broker.unavailable_reason is None)
        self.assertEqual(await broker.publish(self.channel, [Message(b"3")]), [None])

    @deferred
    async def test_exchanged_credentials(self) -> None:
        """Credentials that have expired are named, and those that were put in their place are found."""
        import boto3

        keys = ["old"]

        def make_session() -> Any:
            return boto3.session.Session(keys[0], "s3cret", region_name=REGION)

        broker = await self.connected(make_session=make_session)
        self.front.rule = lambda operation, arguments, authorization: (
            None if "Credential=new/" in authorization else refusal("ExpiredToken", 403)
        )
        (outcome,) = await broker.publish(self.channel, [Message(b"1")])
        assert outcome is not None
        await self.until(lambda: "have expired" in (broker.unavailable_reason or ""))
        self.assertNotIn("s3cret", broker.unavailable_reason or "")
        keys[0] = "new"
        await self.until(lambda: broker.unavailable_reason is None)
        self.assertEqual(await broker.publish(self.channel, [Message(b"2")]), [None])

    @deferred
    async def test_clock(self) -> None:
        """A clock that is ten minutes ahead is named: as a warning, and where SQS refuses the signature for it."""
        broker = await self.connected()
        self.front.date = formatdate(time.time() - 600, usegmt=True)
        await broker.depth(self.channel)
        self.assertTrue(any("600 s ahead of" in each or "601 s" in each for each in broker.warnings), broker.warnings)
        self.front.rule = lambda operation, arguments, authorization: refusal("InvalidSignatureException", 403)
        await broker.publish(self.channel, [Message(b"1")])
        await self.until(lambda: "ahead of that of AWS" in (broker.unavailable_reason or ""))
        self.front.rule = lambda operation, arguments, authorization: None
        self.front.date = None
        await self.until(lambda: broker.unavailable_reason is None)
        await broker.depth(self.channel)
        self.assertFalse(any("ahead of" in each for each in broker.warnings), broker.warnings)

    @deferred
    async def test_idle(self) -> None:
        """A queue that is worked on and has nothing costs the one request that waits, and nothing else."""
        broker = await self.connected(wait=4, probe_seconds=30.0)
        self.consume(broker)
        await self.until(lambda: self.front.asked["ReceiveMessage"] == 1)
        before = sum(self.front.asked.values())
        await deferLater(reactor, 3.0)  # type: ignore[arg-type]
        self.assertEqual(sum(self.front.asked.values()), before)

    @deferred
    async def test_stopped_and_begun_again(self) -> None:
        """A subscription that takes the place of one that was stopped has the answer for which that one had asked."""
        broker = await self.connected(wait=4)
        first = self.consume(broker)
        await self.until(lambda: self.front.asked["ReceiveMessage"] == 1)
        await first.subscription.stop()
        second = self.consume(broker)
        await broker.publish(self.channel, [Message(b"1")])
        await self.until(lambda: second.deliveries)
        self.assertEqual((first.bodies, second.bodies), ([], [b"1"]))
        self.assertEqual(second.deliveries[0].redelivery_count, 0)
        self.assertEqual(self.front.asked["ChangeMessageVisibilityBatch"], 0)

    @deferred
    async def test_found_for_no_caller(self) -> None:
        """A message that comes for a subscription that was stopped goes back at once."""
        broker = await self.connected(wait=4, lease=30.0)
        first = self.consume(broker)
        await self.until(lambda: self.front.asked["ReceiveMessage"] == 1)
        await first.subscription.stop()
        await broker.publish(self.channel, [Message(b"1")])
        await self.until(lambda: self.front.asked["ChangeMessageVisibilityBatch"])
        second = self.consume(broker)
        await self.until(lambda: second.deliveries, 5.0)

    @deferred
    async def test_given_up_at_the_last_moment(self) -> None:
        """So does one whose answer is here already when its subscription stops: it does not wait out its lease."""
        broker = await self.connected(wait=4, lease=30.0)
        first = self.consume(broker)
        receive = broker._calls._receive

        def receive_and_stop(*arguments: Any) -> Any:
            found = receive(*arguments)
            reactor.callFromThread(first.subscription.stop)  # type: ignore[attr-defined]
            return found

        self.patch(broker._calls, "_receive", receive_and_stop)
        await broker.publish(self.channel, [Message(b"1")])
        await self.until(lambda: self.front.asked["ChangeMessageVisibilityBatch"])
        self.assertEqual(first.bodies, [])
        self.patch(broker._calls, "_receive", receive)
        second = self.consume(broker)
        await self.until(lambda: second.deliveries, 5.0)

    @deferred
    async def test_warnings(self) -> None:
        """A queue that deletes early, or moves messages away, is named, until that is mended."""
        broker = await self.connected()
        self.front.change = lambda operation, arguments, answer: (
            answer["Attributes"].update(MessageRetentionPeriod="60", RedrivePolicy='{"maxReceiveCount": "3"}')
            if operation == "GetQueueAttributes"
            else None
        )
        await broker.depth(self.channel)
        await broker.depth(self.channel)
        self.assertEqual(len(broker.warnings), 2, broker.warnings)
        self.assertIn("60 s", broker.warnings[0])
        self.assertIn("delivery 4", broker.warnings[1])
        self.front.change = lambda operation, arguments, answer: None
        await broker.depth(self.channel)
        self.assertEqual(broker.warnings, [])

    @deferred
    async def test_many_names(self) -> None:
        """Messages of other programs name queues for their replies: nothing is kept of one that was written to."""
        broker = await self.connected()
        for number in range(3):
            name = f"{self.channel}-{number}"
            await broker.ensure(name)
            self.assertEqual(await broker.publish(name, [Message(b"1")]), [None])
            await deferLater(reactor, 0)  # type: ignore[arg-type]
        self.assertEqual(broker._product._batches, {})

    @deferred
    async def test_stale_receipt(self) -> None:
        """A delivery whose message another consumer has deleted is a lost lease, and no fault of the connection."""
        broker = await self.connected(lease=30.0)
        await broker.publish(self.channel, [Message(b"1")])
        inbox = self.consume(broker)
        await self.until(lambda: inbox.deliveries)
        self.front.change = lambda operation, arguments, answer: (
            answer.update(Successful=[], Failed=[{"Id": "0", "Code": "ReceiptHandleIsInvalid", "SenderFault": True}])
            if operation == "DeleteMessageBatch"
            else None
        )
        error = await self.failure(inbox.deliveries[0].ack())
        self.assertEqual(error.reason, "the lease is over")
        self.assertIsNone(broker.unavailable_reason)

    async def failure(self, waiting: Deferred[Any]) -> NotDurable:
        try:
            await waiting
        except NotDurable as error:
            return error
        raise self.failureException("it did not fail")

    @deferred
    async def test_fifo_without_a_key(self) -> None:
        """What is published for other programs into a FIFO queue needs a key; what is ours has a group of its own."""
        broker = await self.connected(fifo=True)
        from openhqm.interfaces import Properties

        refused, taken = await broker.publish(
            self.channel, [Message(b"1", properties=Properties()), Message(b"2", key="k", properties=Properties())]
        )
        assert refused is not None
        self.assertIn("without a key", refused.reason)
        self.assertIsNone(taken)


class UnreachableTests(SqsCase):
    """A region or an endpoint that does not exist, and a server that hangs"""

    def setUp(self) -> None:
        self.channel = "requests"
        self.front = Front("http://127.0.0.1:9")
        self.addCleanup(lambda: Deferred.fromCoroutine(self.front.close()))

    @deferred
    async def test_no_such_place(self) -> None:
        """They are named within five seconds, and the client can be stopped at once."""
        for settings, text in (
            ({"url": "http://127.0.0.1:9"}, "127.0.0.1:9"),
            ({"url": "http://sqs.nowhere-1.invalid"}, "nowhere-1"),
        ):
            began = time.monotonic()
            broker = self.broker(**settings)  # type: ignore[arg-type]
            await broker.when_probed()
            self.assertIn(text, broker.unavailable_reason or "")
            self.assertLess(time.monotonic() - began, 5.0)
            await broker.stop()
            self.assertLess(time.monotonic() - began, 5.0)

    @deferred
    async def test_silent(self) -> None:
        """So is a place that takes connections and answers nothing."""
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"http://127.0.0.1:{silent.getsockname()[1]}"
            began = time.monotonic()
            broker = self.broker(url)
            await broker.when_probed()
            self.assertIn(url, broker.unavailable_reason or "")
            self.assertLess(time.monotonic() - began, 5.0)
            await broker.stop()

    @deferred
    async def test_silent_credentials(self) -> None:
        """Where what gives out credentials does not answer, that is named, and a stop does not wait for it."""
        import boto3

        answers = threading.Event()
        self.addCleanup(answers.set)

        class Session(boto3.session.Session):
            def get_credentials(self) -> Any:
                answers.wait(30)
                return super().get_credentials()

        broker = self.broker(make_session=lambda: Session("a", "b", region_name=REGION))
        began = time.monotonic()
        await broker.when_probed()
        self.assertIn("looking for credentials", broker.unavailable_reason or "")
        await broker.stop()
        self.assertLess(time.monotonic() - began, 5.0)

    @deferred
    async def test_no_region(self) -> None:
        """Without a region there is one line that says what to set."""
        import boto3

        broker = SqsBroker(reactor, random.random, make_session=lambda: boto3.session.Session("a", "b"))
        self.addCleanup(broker.stop)
        self.patch(boto3.session.Session, "region_name", None)
        broker.start()
        await broker.when_probed()
        self.assertIn("AWS_REGION", broker.unavailable_reason or "")


class FrozenTests(SqsCase):
    """A server that is stopped in the middle (SIGSTOP): connections stay open, and none is answered"""

    def setUp(self) -> None:
        self.server = ElasticMQ().start()
        self.addCleanup(self.server.close)
        self.channel = "frozen"

    @deferred
    async def test_frozen(self) -> None:
        """A publish is refused within a bound, it is said why, and everything goes on when the server does."""
        broker = await self.connected(url=self.server.url)
        inbox = self.consume(broker)
        self.server.freeze()
        try:
            began = time.monotonic()
            (outcome,) = await broker.publish(self.channel, [Message(b"1")])
            assert outcome is not None
            self.assertTrue(outcome.maybe_done)
            self.assertLess(time.monotonic() - began, 4.0)
            await self.until(lambda: broker.unavailable_reason is not None)
        finally:
            self.server.thaw()
        await self.until(lambda: broker.unavailable_reason is None)
        self.assertEqual(await broker.publish(self.channel, [Message(b"2")]), [None])
        await self.until(lambda: b"2" in inbox.bodies)
