# -*- test-case-name: tests.workers.test_publishing -*-
"""The handlers that publish: a request to the channel of a broker, and the reply to a bridged message.

While a broker is away, its requests stay in the queue, and no attempt at them is counted.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable

import msgspec
from msgspec.structs import replace
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime

from openhqm.config.publishing import Answer, Publish
from openhqm.delivery.documents import response_document
from openhqm.errors import NotDurable, Reject, RetryLater, TransformFailed
from openhqm.interfaces import IForeignBroker, Message, Properties
from openhqm.messages import Reply
from openhqm.policy.breaker import Breaker, BreakerPolicy, State
from openhqm.policy.callbacks import DOCUMENT, REPLY_TO
from openhqm.policy.field_text import readable
from openhqm.policy.fields import Document
from openhqm.policy.foreign import read_foreign
from openhqm.policy.routing import RouteTable
from openhqm.policy.text_templates import TextTemplate, one_level
from openhqm.runtime.steady_time import ahead_of
from openhqm.workers.handlers import AttemptTimedOut, Response, Work

LOOK_AGAIN_SECONDS = 0.2
"""How soon it is noticed that a broker is back."""
BREAKER = BreakerPolicy(minimum_calls=5, open_seconds=5.0)
JSON = "application/json"


class BrokerBreaker(Breaker):
    """A breaker that is open, too, while ``unavailable_reason`` returns one."""

    def __init__(self, unavailable_reason: Callable[[], str | None]) -> None:
        super().__init__(BREAKER)
        self._unavailable_reason = unavailable_reason

    def state(self, now: float) -> State:
        return State.OPEN if self._unavailable_reason() is not None else super().state(now)

    def wait(self, now: float) -> float | None:
        return LOOK_AGAIN_SECONDS if self._unavailable_reason() is not None else super().wait(now)


class Publishing:
    """A `Handler` that publishes each request, and with ``answer`` waits for the message that answers it.

    The request is published as it came, or as its route has it. ``name`` is that of the endpoint.
    """

    def __init__(
        self,
        name: str,
        publish: Publish,
        answer: Answer | None,
        broker: IForeignBroker,
        routes: RouteTable,
        clock: IReactorTime,
    ) -> None:
        self._name = name
        self._publish = publish
        self._answer = answer
        self._broker = broker
        self._routes = routes
        self._clock = clock
        self._topic = TextTemplate(publish.topic)
        self._key = None if publish.key is None else TextTemplate(publish.key)
        self._headers = {header: TextTemplate(text) for header, text in publish.headers.items()}
        answers = None if answer is None else answer.topic
        self._answers = None if answers is None else TextTemplate(answers)

    async def __call__(self, work: Work) -> Response:
        """Publish it, and return the answer. `RetryLater`: the broker did not take it. `AttemptTimedOut`: no answer
        came in time. `Reject`: the request lacks what its topic, its headers or its route needs.
        """
        try:
            channel, message, answers = self._shaped(work)
        except TransformFailed as error:
            raise Reject(str(error)) from None
        fault = self._broker.fault(channel)
        if fault is not None:
            raise Reject(f"{channel[:80]!r} {fault}: nothing can be published there")
        try:
            if self._answer is None:
                await self._broker.publish(channel, message)
                return Response({"published": channel}, status_code=202)
            return await self._ask(work, channel, message, answers, self._answer)
        except NotDurable as error:
            raise RetryLater(None, f"{self._name} could not be published to: {error.reason}") from None

    def _shaped(self, work: Work) -> tuple[str, Message, str | None]:
        submission = work.request.submission
        document = Document(submission, work.correlation_id)
        route = self._routes.choose_for(document)
        if route is not None and route.endpoint not in (None, self._name):
            route = None
        shaped = None if route is None else route.outgoing(document)
        if submission.body is not None:
            content, content_type = submission.body, work.header("Content-Type")
        elif shaped is not None:
            content, content_type = shaped.content, shaped.content_type
        else:
            content, content_type = submission.payload, JSON
        headers = {} if shaped is None else dict(shaped.headers)
        headers |= {name: text.fill(document) for name, text in self._headers.items()}
        headers |= {"OpenHQM-Correlation-Id": work.correlation_id, "OpenHQM-Attempt": str(work.attempt)}
        about = Properties(
            content_type=content_type,
            correlation=None if self._answer is None else work.correlation_id.encode(),
            retained=self._publish.retain,
            qos=self._publish.qos,
            expiry=self._publish.expiry,
            exchange=self._publish.exchange,
        )
        answers = None if self._answers is None else self._answers.fill(document, one_level)
        key = None if self._key is None else self._key.fill(document)
        return self._topic.fill(document, one_level), Message(content, headers, key, about), answers

    async def _ask(self, work: Work, channel: str, message: Message, answers: str | None, answer: Answer) -> Response:
        seconds = min(answer.timeout, work.time_left)
        asking = self._broker.ask(channel, message, answers)
        late = False

        def give_up() -> None:
            nonlocal late
            late = True
            asking.cancel()

        timer = self._clock.callLater(seconds, give_up)
        try:
            answered = await asking
        except CancelledError:
            if late:
                raise AttemptTimedOut(f"no answer to what was published within {seconds:g} s") from None
            raise
        finally:
            if timer.active():
                timer.cancel()
        about = answered.properties or Properties()
        read = read_foreign(answered.body, {}, "auto")
        if read.body is None:
            return Response(msgspec.Raw(read.payload))
        headers = {} if about.content_type is None else {"Content-Type": about.content_type}
        return Response(body=answered.body, headers=headers)


class ReplyPublishing:
    """A `Handler` that publishes a reply, to a bridged message or to the channel that its request has named.

    The follow-up says to which channel of ``broker``, and in which of both forms.
    """

    def __init__(self, broker: IForeignBroker, clock: IReactorTime) -> None:
        self._broker = broker
        self._clock = clock

    async def __call__(self, work: Work) -> Response:
        """Publish it. `RetryLater`: the broker did not take it. `Reject`: nothing can be published there."""
        address, reply = work.metadata[REPLY_TO], work.request.submission.parent_reply
        if reply is None:
            raise Reject("there is no reply to publish")
        channel = str(address["channel"])
        correlation = address.get("correlation")
        message = reply_message(
            reply,
            None if correlation is None else b64decode(correlation),
            address.get("in_reply_to"),
            address.get("key"),
        )
        if address.get(DOCUMENT):
            content = response_document(reply, ahead=ahead_of(self._clock)())
            message = replace(message, body=content, properties=Properties(content_type=JSON))
            if (fault := self._broker.fault(channel)) is not None:
                raise Reject(f"{channel[:80]!r} {fault}: no reply can be published there")
        try:
            await self._broker.publish(channel, message)
        except NotDurable as error:
            raise RetryLater(None, f"the reply could not be published: {error.reason}") from None
        return Response({"published": channel}, status_code=202)


def reply_message(reply: Reply, correlation: bytes | None, in_reply_to: str | None, key: str | None = None) -> Message:
    """A reply as a message for another program. Without a result its content is a JSON object with the error."""
    headers = {
        "correlation_id": reply.correlation_id,
        "status": reply.status.value,
        "status_code": str(reply.status_code),
    }
    if in_reply_to is not None:
        headers["in_reply_to"] = in_reply_to
    if reply.error is not None:
        headers["error"] = " ".join(reply.error.split())[:1000]
    content_type: str | None = JSON
    if reply.body is not None:
        content = reply.body
        content_type = next((text for name, text in reply.headers.items() if name.lower() == "content-type"), None)
    elif reply.result is not None:
        content = reply.result
    else:
        told = {"correlation_id": reply.correlation_id, "status": reply.status.value, "error": reply.error}
        content = json.dumps(told).encode()
    about = Properties(content_type=None if content_type is None else readable(content_type), correlation=correlation)
    return Message(content, headers, key, about)
