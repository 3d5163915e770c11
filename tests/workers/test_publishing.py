"""The handlers that publish: the message that a broker gets, and what becomes of the attempt."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from openhqm.config.publishing import Answer, Publish
from openhqm.delivery.documents import response_document
from openhqm.errors import NotDurable, Reject, RetryLater
from openhqm.interfaces import Acks, IForeignBroker, IReceiver, ISubscription, Message, Properties
from openhqm.messages import Reply, Request, Status, Submission
from openhqm.policy.breaker import State
from openhqm.policy.routing import RouteTable
from openhqm.workers.handlers import AttemptTimedOut, Work
from openhqm.workers.publishing import BrokerBreaker, Publishing, ReplyPublishing, reply_message


@implementer(IForeignBroker)
class Broker:
    acks = Acks.EACH
    unavailable_reason: str | None = None
    warnings: Sequence[str] = ()
    failure: Exception | None = None
    answer: Deferred[Message] | None = None

    def __init__(self) -> None:
        self.published: list[tuple[str, Message]] = []

    def start(self) -> Deferred[None]:
        return succeed(None)

    def when_probed(self) -> Deferred[None]:
        return succeed(None)

    def stop(self) -> Deferred[None]:
        return succeed(None)

    def subscribe(self, name: str, channels: Sequence[str], most: int, receiver: IReceiver) -> ISubscription:
        raise AssertionError("a worker subscribes to nothing")

    def fault(self, channel: str) -> str | None:
        return "begins with $" if channel.startswith("$") else None

    def publish(self, channel: str, message: Message) -> Deferred[None]:
        self.published.append((channel, message))
        return succeed(None) if self.failure is None else fail(self.failure)

    def ask(self, channel: str, message: Message, answers: str | None) -> Deferred[Message]:
        self.published.append((channel, message))
        self.answers = answers
        self.answer = Deferred()
        return self.answer


class PublishingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.broker = Broker()

    def work(self, submission: Submission, seconds: float = 60.0) -> Work:
        return Work(Request("the-id", 0.0, submission), 2, seconds, self.clock, lambda detail: None)

    def run_one(self, submission: Submission, answer: Answer | None = None, **publish: Any) -> Deferred[Any]:
        given = Publish(**{"broker": "plant", "topic": "lamps/{{ payload.id }}/set", **publish})
        handler = Publishing("lamp", given, answer, self.broker, RouteTable(), self.clock)
        return Deferred.fromCoroutine(handler(self.work(submission)))

    def test_published(self) -> None:
        """The payload goes to the topic as it came, with the headers of the endpoint and our own."""
        headers = {"X-Id": "{{ payload.id }}"}
        done = self.run_one(Submission(b'{"id": 1.50}'), headers=headers, retain=True, expiry=5, qos=2)
        self.assertEqual(self.successResultOf(done).result, {"published": "lamps/1.50/set"})
        ((channel, message),) = self.broker.published
        self.assertEqual((channel, message.body), ("lamps/1.50/set", b'{"id": 1.50}'))
        expected = {"X-Id": "1.50", "OpenHQM-Correlation-Id": "the-id", "OpenHQM-Attempt": "2"}
        self.assertEqual(message.headers, expected)
        about = Properties(content_type="application/json", retained=True, qos=2, expiry=5)
        self.assertEqual(message.properties, about)

    def test_bytes(self) -> None:
        """Bytes keep their type."""
        submission = Submission(b"null", {"content-type": "image/png"}, body=b"\xff")
        self.successResultOf(self.run_one(submission, topic="pictures"))
        ((_, message),) = self.broker.published
        assert message.properties is not None
        self.assertEqual((message.body, message.properties.content_type), (b"\xff", "image/png"))

    def test_no_topic(self) -> None:
        """A request that lacks what its topic needs, or would choose another one, is not tried again."""
        for payload in (b"{}", b'{"id": "a/b"}', b'{"id": "#"}', b'{"id": ""}'):
            self.failureResultOf(self.run_one(Submission(payload)), Reject)
        self.failureResultOf(self.run_one(Submission(b'{"id": "$x"}'), topic="{{ payload.id }}"), Reject)
        self.assertEqual(self.broker.published, [])

    def test_not_taken(self) -> None:
        """What the broker does not take is tried again."""
        self.broker.failure = NotDurable("no client subscribes")
        failure = self.failureResultOf(self.run_one(Submission(b'{"id": 1}')), RetryLater)
        self.assertIn("no client subscribes", failure.getErrorMessage())

    def test_answered(self) -> None:
        """The answer is the result: JSON as it came, anything else as a body with its type."""
        done = self.run_one(Submission(b'{"id": 1}'), Answer(topic="lamps/{{ payload.id }}/state"))
        assert self.broker.answer is not None
        self.assertEqual(self.broker.answers, "lamps/1/state")
        message = self.broker.published[0][1]
        assert message.properties is not None
        self.assertEqual(message.properties.correlation, b"the-id")
        self.broker.answer.callback(Message(b'{"on": true}', {}, None, Properties()))
        self.assertEqual(bytes(self.successResultOf(done).result), b'{"on": true}')
        done = self.run_one(Submission(b'{"id": 1}'), Answer())
        self.broker.answer.callback(Message(b"\xff", {}, None, Properties(content_type="image/png")))
        response = self.successResultOf(done)
        self.assertEqual((response.body, response.headers), (b"\xff", {"Content-Type": "image/png"}))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_answer(self) -> None:
        """Without an answer in time, the attempt has timed out; cancelled, it is cancelled."""
        done = self.run_one(Submission(b'{"id": 1}'), Answer(timeout=3.0))
        self.clock.advance(3.0)
        self.failureResultOf(done, AttemptTimedOut)
        done = self.run_one(Submission(b'{"id": 1}'), Answer(timeout=3.0))
        done.cancel()
        self.failureResultOf(done, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_breaker(self) -> None:
        """Nothing is tried while the broker is away."""
        breaker = BrokerBreaker(lambda: self.broker.unavailable_reason)
        self.assertEqual((breaker.state(0.0), breaker.wait(0.0)), (State.CLOSED, 0.0))
        self.broker.unavailable_reason = "the broker is away"
        self.assertIs(breaker.state(0.0), State.OPEN)
        self.assertGreater(breaker.wait(0.0) or 0.0, 0.0)


class ReplyTests(SynchronousTestCase):
    def test_published(self) -> None:
        """The reply goes to its address, with the correlation that the message had."""
        broker, clock = Broker(), Clock()
        address = {"broker": "plant", "channel": "answers/1", "correlation": "AP8=", "in_reply_to": "x"}
        reply = Reply("the-id", Status.COMPLETED, 1.0, b"[2]")
        submission = Submission(b"null", metadata={"reply_to": address}, parent_reply=reply)
        work = Work(Request("other", 0.0, submission), 1, 60.0, clock, lambda detail: None)
        self.successResultOf(Deferred.fromCoroutine(ReplyPublishing(broker, clock)(work)))
        ((channel, message),) = broker.published
        self.assertEqual((channel, message.body), ("answers/1", b"[2]"))
        expected = {"correlation_id": "the-id", "status": "COMPLETED", "status_code": "200", "in_reply_to": "x"}
        self.assertEqual(message.headers, expected)
        self.assertEqual(message.properties, Properties(content_type="application/json", correlation=b"\x00\xff"))
        broker.failure = NotDurable("away")
        self.failureResultOf(Deferred.fromCoroutine(ReplyPublishing(broker, clock)(work)), RetryLater)

    def test_document(self) -> None:
        """To a channel that the request has named goes the response document; what it cannot have is rejected."""
        broker, clock = Broker(), Clock()
        reply = Reply("the-id", Status.FAILED, 1.0, error="no", status_code=502)
        address = {"broker": "plant", "channel": "answers/1", "document": True}
        submission = Submission(b"null", metadata={"reply_to": address}, parent_reply=reply)
        work = Work(Request("other", 0.0, submission), 1, 60.0, clock, lambda detail: None)
        self.successResultOf(Deferred.fromCoroutine(ReplyPublishing(broker, clock)(work)))
        ((channel, message),) = broker.published
        self.assertEqual((channel, message.body), ("answers/1", response_document(reply)))
        self.assertEqual(message.properties, Properties(content_type="application/json"))
        self.assertEqual((message.headers["correlation_id"], message.headers["status"]), ("the-id", "FAILED"))

    def test_contents(self) -> None:
        """Bytes keep their type. A failure without a result says what went wrong."""
        body = Reply("i", Status.COMPLETED, 1.0, body=b"\xff", headers={"content-type": "image/png"})
        message = reply_message(body, None, None)
        self.assertEqual((message.body, message.properties), (b"\xff", Properties(content_type="image/png")))
        failed = reply_message(Reply("i", Status.TIMEOUT, 1.0, error="too\r\nlate"), None, None)
        self.assertEqual(json.loads(failed.body), {"correlation_id": "i", "status": "TIMEOUT", "error": "too\r\nlate"})
        self.assertEqual(failed.headers["error"], "too late")
