# -*- test-case-name: tests.testing.test_fake_broker -*-
"""A broker in memory that behaves as its traits say, and can be told to misbehave."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from openhqm.errors import NotDurable
from openhqm.interfaces import BrokerTraits, IBroker, IReceiver, ISubscription, Message
from openhqm.testing.fake_delivery import FakeSubscription
from openhqm.testing.fake_publishing import FakePublishing, Outcomes, PublishResult, Results
from openhqm.testing.fake_server import FakeServer

T = TypeVar("T")
Step = Callable[[str, Callable[[], Deferred[Any]]], Deferred[Any]]


@implementer(IBroker)
class FakeBroker:
    """The connection of one process to a `FakeServer`.

    It delivers and answers inside the calls, which is the worst case for callers, and raises `AssertionError` where a
    caller breaks a rule of the seam. ``publish_result`` is what becomes of the messages that it publishes; what has no
    answer after ``publish_seconds`` of the ``clock`` is given up. ``blocked``: the reason why the server takes no
    messages although it is connected, as RabbitMQ does with a full disk; it delivers all the same.

    ``step(name, act)`` stands before every operation that changes something at the server (``publish``, ``ack``,
    ``requeue``, ``extend``, ``ensure``) and returns what ``act`` returns. A test puts its own there, to end the process
    before or after the operation, or to let the operation fail.
    """

    def __init__(
        self, server: FakeServer, clock: IReactorTime, traits: BrokerTraits | None = None, publish_seconds: float = 10.0
    ) -> None:
        self.traits = traits or BrokerTraits()
        self.warnings: Sequence[str] = ()
        self.on_connected: list[Callable[[], object]] = []
        self.blocked: str | None = None
        self.publish_result: Results = PublishResult.CONFIRMED
        self.step: Step = lambda name, act: act()
        self.dead = False
        self.disconnected: str | None = "the client was not started"
        self.server = server
        server.agree(self.traits)
        self._clock = clock
        self._calls: set[IDelayedCall] = set()
        self._lease_timer: IDelayedCall | None = None
        self._probes: list[Deferred[None]] | None = []
        self._publishing = FakePublishing(server, self._call_later, publish_seconds)
        self._subscriptions: list[FakeSubscription] = []

    # IBroker

    @property
    def unavailable_reason(self) -> str | None:
        return self.disconnected or self.blocked

    def start(self) -> Deferred[None]:
        self.server.clients.append(self)
        self.disconnected = "the broker is away"
        self.come_back()
        probes, self._probes = self._probes or [], None
        for probe in probes:
            probe.callback(None)
        return succeed(None)

    def when_probed(self) -> Deferred[None]:
        if self._probes is None:
            return succeed(None)
        self._probes.append(Deferred())
        return self._probes[-1]

    def stop(self) -> Deferred[None]:
        if self in self.server.clients:
            self.lose_connection("the client was stopped")
            self.server.clients.remove(self)
            for subscription in self._subscriptions:
                subscription.end("the client was stopped")
            self._cancel_calls()
        return succeed(None)

    def publish(self, channel: str, messages: Sequence[Message]) -> Deferred[Outcomes]:
        assert len(messages) <= self.traits.largest_batch, "more messages than this product takes at once"
        return self.step("publish", lambda: self._publish(channel, list(messages)))

    def consume(self, channel: str, receiver: IReceiver) -> ISubscription:
        subscription = FakeSubscription(self, channel, receiver)
        self._subscriptions = [*(each for each in self._subscriptions if not each.over or each.out), subscription]
        if channel in self.server.channels:
            self._subscribe(subscription)
        elif self.disconnected is None:  # the receiver is called when its caller has the subscription, and not before
            self._call_later(0, lambda: self._subscribe(subscription))
        return subscription

    def ensure(self, channel: str) -> Deferred[None]:
        return self.tell("ensure", lambda: self.server.make(channel))

    def exists(self, channel: str) -> Deferred[bool]:
        return self._ask(lambda: channel in self.server.channels)

    def depth(self, channel: str) -> Deferred[int | None]:
        return self._ask(lambda: self.server.depth(channel))

    # What a test does to it

    def lose_connection(self, reason: str = "the connection was lost") -> None:
        """Be without a connection until `come_back`. Publishes that wait fail; what no lease keeps is revoked."""
        if self in self.server.clients and self.disconnected is None:
            self.disconnected = reason
            self._publishing.give_up_all(reason)
            for subscription in list(self._subscriptions):
                subscription.disconnect(reason)
            self.server.watch()

    def come_back(self) -> None:
        """Be connected again, where the server can be reached."""
        if self in self.server.clients and self.disconnected is not None and self.server.reachable:
            self.disconnected = None
            self.server.expire(self.seconds())
            for connected in list(self.on_connected):
                connected()
            for subscription in list(self._subscriptions):
                self._subscribe(subscription)
            self.server.watch()

    def crash(self) -> None:
        """End as a killed process does: the server is told nothing, and nothing is called back any more."""
        self.dead = True
        self.disconnected = "the process was killed"
        self._cancel_calls()
        if self in self.server.clients:
            self.server.clients.remove(self)
        for subscription in self._subscriptions:
            subscription.disconnect("the process was killed")
        self.server.watch()

    # For its subscriptions, and for the server

    def seconds(self) -> float:
        return self._clock.seconds()

    def tell(self, name: str, act: Callable[[], object]) -> Deferred[None]:
        return self.step(name, lambda: self._ask(lambda: self.do(act)))

    def do(self, act: Callable[[], object]) -> None:
        self.server.expire(self.seconds())
        try:
            act()
        finally:
            self.server.watch()

    def watch(self) -> None:
        if self._lease_timer in self._calls:
            self._lease_timer.cancel()
            self._calls.remove(self._lease_timer)
        end = self.server.next_lease_end()
        if end is not None:
            self._lease_timer = self._call_later(max(0.0, end - self.seconds()), lambda: self.do(lambda: None))

    # Inside

    def _publish(self, channel: str, messages: Sequence[Message]) -> Deferred[Outcomes]:
        if self.dead:
            return Deferred()
        reason = self.unavailable_reason
        if reason is not None:
            return succeed([NotDurable(reason) for _ in messages])
        self.server.expire(self.seconds())
        outcomes = self._publishing.publish(channel, messages, self.publish_result)
        self.server.watch()
        return outcomes

    def _ask(self, act: Callable[[], T]) -> Deferred[T]:
        if self.dead:
            return Deferred()
        if self.disconnected is not None:
            return fail(NotDurable(self.disconnected))
        try:
            return succeed(act())
        except NotDurable as error:
            return fail(error)

    def _subscribe(self, subscription: FakeSubscription) -> None:
        """Let it go on with the channel, or tell it that there is none. Without a connection that has to wait."""
        if self.disconnected is None and not subscription.over and subscription.channel is None:
            channel = self.server.channels.get(subscription.name)
            if channel is None:
                subscription.lose(f"the broker has no channel {subscription.name}")
            else:
                subscription.join(channel)

    def _call_later(self, seconds: float, act: Callable[[], object]) -> IDelayedCall:
        def run() -> None:
            self._calls.discard(call)
            act()

        call: IDelayedCall = self._clock.callLater(seconds, run)
        self._calls.add(call)
        return call

    def _cancel_calls(self) -> None:
        calls, self._calls = self._calls, set()
        for call in calls:
            call.cancel()
