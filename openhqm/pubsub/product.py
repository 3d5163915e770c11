# -*- test-case-name: tests.pubsub.test_contract,tests.pubsub.test_faults -*-
"""Pub/Sub as a `Product` that is pulled: it publishes, pulls, acknowledges and extends by calls of the REST interface.

A channel of ours is a topic and its one subscription, both of the same name. A channel of other programs is a topic
that is published to, or a subscription that is pulled from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from math import ceil
from typing import Any, NamedTuple

import msgspec
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime

from openhqm.errors import NotDurable
from openhqm.http1.failures import AnswerTooLong
from openhqm.interfaces import ChannelMissing, Message
from openhqm.pubsub.errors import Forbidden, Missing
from openhqm.pubsub.gathering import Gathered, InOrder
from openhqm.pubsub.messages import fault as message_fault
from openhqm.pubsub.messages import from_received, read_publish, read_pull, to_json
from openhqm.pubsub.names import subscription_path, topic_path
from openhqm.pubsub.rest import Rest
from openhqm.pubsub.subscriptions import Subscriptions
from openhqm.pulled.product import Taken
from openhqm.runtime.deferreds import deferred

LARGEST_BATCH = 1000
"""Messages in one publish request, and in one pull."""
BATCH_BYTES = 1_000_000
"""Of a publish request with more than one message."""
LOOK_SECONDS = 120.0
"""How often the settings of the subscriptions are looked at."""
DISABLED = ("SERVICE_DISABLED", "has not been used in project", "is disabled")
"""What a 403 says where the service itself is switched off for the project."""


class Receipt(NamedTuple):
    """By what a delivery is settled: its subscription, and the id of this delivery."""

    subscription: str
    ack_id: str


class PubSubProduct:
    """The topics and subscriptions of ``project``. ``seconds`` is how long an answer may take, ``lease`` how long a
    delivery stays out, ``take_seconds`` how long a pull waits for a message. ``own``: the channels are ours.
    """

    def __init__(
        self,
        rest: Rest,
        subscriptions: Subscriptions,
        clock: IReactorTime,
        project: str,
        *,
        seconds: float,
        lease: float,
        take_seconds: float,
        own: bool = True,
    ) -> None:
        self._rest = rest
        self._subscriptions = subscriptions
        self._clock = clock
        self._project = project
        self._seconds = seconds
        self._lease = lease
        self._take_seconds = take_seconds
        self._own = own
        self._topics: dict[str, InOrder] = {}
        self._told: dict[tuple[str, int | None], Gathered] = {}
        self._most: dict[str, int] = {}
        self._look_again = 0.0

    @deferred
    async def probe(self) -> None:
        """Where listing topics is forbidden, Pub/Sub was reached, and knows the account."""
        try:
            await self._rest.call("GET", f"projects/{self._project}/topics?pageSize=1", "", None, self._seconds)
        except Missing as error:
            raise NotDurable(f"there is no project {self._project}: {error.reason}") from None
        except Forbidden as error:
            if any(text in error.reason for text in DISABLED):
                raise
        if self._clock.seconds() >= self._look_again:
            self._look_again = self._clock.seconds() + LOOK_SECONDS
            self._subscriptions.forget()

    # Publishing

    @deferred
    async def publish(self, channel: str, messages: Sequence[Message]) -> Sequence[NotDurable | None]:
        in_order = self._topics.get(channel)
        if in_order is None:
            in_order = self._topics[channel] = InOrder(partial(self._send, channel), LARGEST_BATCH, BATCH_BYTES)
        faults = [message_fault(message) for message in messages]
        sending = [
            in_order.add(to_json(message)) for message, fault in zip(messages, faults, strict=True) if fault is None
        ]
        in_order.flush()
        results: Iterator[Any] = iter(await DeferredList(sending, consumeErrors=True))
        if in_order.idle:
            self._topics.pop(channel, None)  # the names of channels of others may be any number
        return [_outcome(*next(results)) if fault is None else NotDurable(fault) for fault in faults]

    @deferred
    async def _send(self, channel: str, contents: Sequence[bytes]) -> None:
        content = b'{"messages":[%b]}' % b",".join(contents)
        if self._own:
            await self._subscriptions.check(channel)
        try:
            answer = await self._rest.call(
                "POST", topic_path(self._project, channel), "publish", content, self._seconds
            )
        except Missing:
            self._subscriptions.forget()
            raise ChannelMissing(channel) from None
        if len(read_publish(answer).message_ids) != len(contents):
            raise NotDurable("Pub/Sub has not confirmed every message", maybe_done=True)

    # Consuming

    @deferred
    async def take(self, channel: str, most: int) -> Sequence[Taken]:
        deadline = await self._subscriptions.deadline(channel)
        most = min(most, self._most.get(channel, LARGEST_BATCH))
        content = b'{"maxMessages":%d}' % most
        path = subscription_path(self._project, channel)
        try:
            answer = await self._rest.call("POST", path, "pull", content, self._take_seconds + self._seconds)
        except Missing:
            self._subscriptions.forget()
            raise ChannelMissing(channel) from None
        except AnswerTooLong:
            self._most[channel] = max(1, most // 2)
            raise NotDurable(f"{most} messages of {channel} are too much for one answer") from None
        except NotDurable as error:
            self._subscriptions.refused(channel, error.reason)
            raise
        self._most.pop(channel, None)
        self._subscriptions.refused(channel, None)
        received = read_pull(answer).received_messages
        if received and deadline != self._lease:
            ids = [each.ack_id for each in received]
            await self._tell(path, ceil(self._lease), ids)
        return [
            Taken(
                Receipt(path, each.ack_id),
                from_received(each.message),
                each.delivery_attempt - 1 if each.delivery_attempt else None,
                each.message.message_id or None,
            )
            for each in received
        ]

    def ack(self, receipt: Receipt) -> Deferred[None]:
        return self._gathered(receipt.subscription, None).add(receipt.ack_id)

    def requeue(self, receipt: Receipt) -> Deferred[None]:
        return self._gathered(receipt.subscription, 0).add(receipt.ack_id)

    @deferred
    async def extend(self, receipt: Receipt, seconds: float) -> Receipt:
        await self._gathered(receipt.subscription, max(1, ceil(seconds))).add(receipt.ack_id)
        return receipt

    def _gathered(self, path: str, seconds: int | None) -> Gathered:
        found = self._told.get((path, seconds))
        if found is None:
            found = self._told[path, seconds] = Gathered(self._clock, partial(self._tell, path, seconds))
        return found

    def _tell(self, path: str, seconds: int | None, ids: Sequence[str]) -> Deferred[bytes]:
        """Acknowledge (``seconds`` None), or let the leases end in ``seconds`` from now."""
        asked: dict[str, Any] = {"ackIds": ids}
        verb = "acknowledge"
        if seconds is not None:
            asked["ackDeadlineSeconds"] = seconds
            verb = "modifyAckDeadline"
        return self._rest.call("POST", path, verb, msgspec.json.encode(asked), self._seconds)

    # Channels

    def make(self, channel: str) -> Deferred[None]:
        return self._subscriptions.make(channel)

    @deferred
    async def depth(self, channel: str) -> int | None:
        await self._subscriptions.look(channel)
        return None


def _outcome(success: bool, result: Any) -> NotDurable | None:
    if success:
        return None
    error = result.value
    return error if isinstance(error, NotDurable) else NotDurable(f"{type(error).__name__}: {error}", maybe_done=True)
