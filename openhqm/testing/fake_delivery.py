# -*- test-case-name: tests.testing.test_fake_broker -*-
"""A subscription of the fake broker, and what it delivers. A caller that breaks a rule of the seam is told at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from openhqm.errors import NotDurable
from openhqm.interfaces import Acks, BrokerTraits, IBrokerDelivery, IReceiver, ISubscription, Message, Position
from openhqm.testing.fake_channel import Claim, FakeChannel
from openhqm.testing.fake_queue import FakeQueue


class Client(Protocol):
    """What a subscription needs of its `openhqm.testing.FakeBroker`."""

    traits: BrokerTraits
    dead: bool

    def seconds(self) -> float:
        """The time, by its clock."""

    def tell(self, name: str, act: Callable[[], object]) -> Deferred[None]:
        """Have the server do something. `NotDurable` where it cannot be reached, or where ``act`` raises that."""

    def do(self, act: Callable[[], object]) -> None:
        """The same for what is said without an answer."""


@implementer(ISubscription)
class FakeSubscription:
    """A subscription of one client. For the server it is a `Consumer`.

    ``channel`` is what it is subscribed to while there is a connection; ``over``: it goes on with no other one.
    """

    def __init__(self, client: Client, name: str, receiver: IReceiver) -> None:
        self.name = name
        self.channel: FakeChannel | None = None
        self.stopped = False
        self.over = False
        self._client = client
        self._receiver = receiver
        self._most = 0
        self._out: dict[Claim, FakeDelivery] = {}

    # For the caller

    def credit(self, most: int) -> None:
        self._most = most
        if self.channel is not None:
            self._client.do(self.channel.dispatch)

    def stop(self) -> Deferred[None]:
        self.stopped = self.over = True
        if self.channel is not None:
            channel = self.channel
            self._client.do(lambda: channel.leave(self))
        return succeed(None)

    # For the client

    def join(self, channel: FakeChannel) -> None:
        """The client is connected, and there is such a channel."""
        self.channel = channel
        channel.join(self)

    def disconnect(self, reason: str) -> None:
        """The connection is lost: what no lease keeps is revoked."""
        channel, self.channel = self.channel, None
        if channel is not None:
            channel.disconnect(self, reason)

    def end(self, reason: str) -> None:
        """The client is stopped, and can settle nothing any more."""
        self.over = True
        for claim in list(self._out):
            self.revoke(claim, reason)

    def oldest(self) -> FakeDelivery | None:
        """The oldest delivery that was not settled."""
        return next((each for each in self._out.values() if not each.settled), None)

    # For the server

    @property
    def has_room(self) -> bool:
        return not self.over and len(self._out) < self._most

    @property
    def out(self) -> int:
        return len(self._out)

    def seconds(self) -> float:
        return self._client.seconds()

    def deliver(self, claim: Claim) -> None:
        assert self.channel is not None
        self._out[claim] = delivery = FakeDelivery(self._client, self, self.channel, claim)
        self._receiver.received(delivery)

    def forget(self, claim: Claim) -> None:
        self._out.pop(claim).forgotten = True

    def revoke(self, claim: Claim, reason: str) -> None:
        delivery = self._out.pop(claim, None)
        if delivery is not None and not self._client.dead:
            delivery.revoke(reason)

    def lose(self, reason: str) -> None:
        if not self.over and not self._client.dead:
            self.over = True
            self.channel = None
            self._receiver.lost(reason)


@implementer(IBrokerDelivery)
class FakeDelivery:
    """A message that was claimed for a subscription."""

    def __init__(self, client: Client, subscription: FakeSubscription, channel: FakeChannel, claim: Claim) -> None:
        self.message: Message = claim.message
        self.position: Position | None = claim.position
        self.redelivery_count: int | None = claim.redeliveries if client.traits.counts_redeliveries else None
        self.revoked: Deferred[str] = Deferred()
        self.settled = False
        self.forgotten = False
        self._revoked_for: str | None = None
        self._client = client
        self._subscription = subscription
        self._channel = channel
        self._claim = claim

    def ack(self) -> Deferred[None]:
        if self._client.traits.acks is Acks.IN_ORDER and self._revoked_for is None:
            assert self._subscription.oldest() is self, "acknowledged before an earlier delivery"
        return self._settle("ack", self._channel.acknowledge)

    def requeue(self) -> Deferred[None]:
        channel = self._channel
        assert self._client.traits.requeues and isinstance(channel, FakeQueue), "this product cannot requeue"
        return self._settle("requeue", channel.requeue)

    def extend(self, seconds: float) -> Deferred[None]:
        assert self._client.traits.lease_seconds is not None, "this product has no leases"
        return self._client.tell("extend", lambda: self._extend(self._client.seconds() + seconds))

    def revoke(self, reason: str) -> None:
        """The broker may deliver the message to another subscription."""
        self._revoked_for = reason
        self.revoked.callback(reason)

    def _extend(self, until: float) -> None:
        self._check()
        if self._claim.lease_limit is not None and until > self._claim.lease_limit:
            raise NotDurable("the broker extends no lease that far")
        self._claim.lease_end = until

    def _settle(self, name: str, act: Callable[[Claim], None]) -> Deferred[None]:
        assert not self.settled, "the delivery was acknowledged or requeued before"
        self.settled = True
        return self._client.tell(name, lambda: self._act(act))

    def _act(self, act: Callable[[Claim], None]) -> None:
        self._check()
        if not self.forgotten:  # else an acknowledgement of a later message has said it already
            act(self._claim)
            self._channel.dispatch()

    def _check(self) -> None:
        if self._revoked_for is not None:
            raise NotDurable(f"the delivery was revoked: {self._revoked_for}")
