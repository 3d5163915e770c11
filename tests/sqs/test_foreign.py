"""The queues of other programs: what a bridge receives of them, and what is published into them."""

from __future__ import annotations

import random

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from openhqm.brokered.foreign import ForeignOverBroker
from openhqm.interfaces import Message, Properties
from openhqm.runtime.deferreds import deferred
from openhqm.sqs.broker import SqsBroker, foreign
from openhqm.testing.broker_bench import Inbox
from tests.sqs.server import new_session
from tests.sqs.test_broker import SqsCase

LEASE = 1.7


class ForeignTests(SqsCase):
    """`ForeignOverBroker` over `SqsBroker`, and boto3 as the other program"""

    def bridge(self) -> ForeignOverBroker:
        """The broker that bridges and endpoints use."""
        broker = SqsBroker(
            reactor,
            random.random,
            endpoint_url=self.server.url,
            seconds=3.0,
            wait=1,
            lease=LEASE,
            makes=False,
            named=True,
            make_session=new_session,
        )
        made = ForeignOverBroker(broker, foreign, clock=reactor)  # type: ignore[arg-type]
        self.addCleanup(made.stop)
        made.start()
        return made

    @deferred
    async def test_slow_target(self) -> None:
        """A message is read with all that its attributes say, and out for as long as its target takes, and not twice.

        Also where its queue is named by the URL.
        """
        operator = self.server.client()
        url = (await deferToThread(operator.create_queue, QueueName=self.channel))["QueueUrl"]
        attributes = {
            name: {"DataType": "String", "StringValue": value}
            for name, value in (("ReplyTo", "answers"), ("correlation_id", "c"), ("x", "y"))
        }
        sent = await deferToThread(
            operator.send_message, QueueUrl=url, MessageBody='{"a": 1}', MessageAttributes=attributes
        )
        bridge, inbox = self.bridge(), Inbox()
        await bridge.when_probed()
        inbox.subscription = bridge.subscribe("b", [url], 5, inbox)
        inbox.subscription.credit(5)
        await self.until(lambda: inbox.deliveries)
        about = Properties(url, None, sent["MessageId"], None, None, "answers", b"c")
        self.assertEqual(inbox.deliveries[0].message, Message(b'{"a": 1}', {"x": "y"}, None, about))
        await deferLater(reactor, 3 * LEASE)  # type: ignore[arg-type]
        self.assertEqual((len(inbox.deliveries), inbox.revoked), (1, []))
        await inbox.deliveries[0].ack()
        await deferLater(reactor, 1.5 * LEASE)  # type: ignore[arg-type]
        self.assertEqual(len(inbox.deliveries), 1)

    @deferred
    async def test_published(self) -> None:
        """What an endpoint publishes another program reads: the body as text, and each header as an attribute."""
        operator = self.server.client()
        url = (await deferToThread(operator.create_queue, QueueName=self.channel))["QueueUrl"]
        bridge = self.bridge()
        await bridge.when_probed()
        await bridge.publish(self.channel, Message(b'{"a": 1}', {"x": "y"}, None, Properties(correlation=b"c")))
        answer = await deferToThread(
            operator.receive_message, QueueUrl=url, WaitTimeSeconds=2, MessageAttributeNames=["All"]
        )
        (found,) = answer["Messages"]
        values = {name: each["StringValue"] for name, each in found["MessageAttributes"].items()}
        self.assertEqual((found["Body"], values), ('{"a": 1}', {"x": "y", "correlation-id": "c"}))
