# -*- test-case-name: tests.testing.test_directory_broker -*-
"""An `IBroker` out of a `Product`: probing, subscriptions, leases and outcomes, once for all that are pulled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure
from zope.interface import implementer

from openhqm.errors import NotDurable
from openhqm.interfaces import BrokerTraits, ChannelMissing, IBroker, IReceiver, Message
from openhqm.pulled.product import Product
from openhqm.pulled.subscription import PulledSubscription
from openhqm.runtime.deferreds import deferred

Run = Callable[..., Deferred[Any]]
"""Runs a function with its arguments, in a thread where it may block, and fires with what it returns."""


@implementer(IBroker)
class PulledBroker:
    """``traits`` have ``lease_seconds``. ``run`` runs the functions of ``product``.

    ``seconds`` is how long an answer may take, ``idle_seconds`` the pause before an empty channel is asked again, and
    ``probe_seconds`` how often it is looked whether the product can be reached.
    """

    def __init__(
        self,
        product: Product,
        traits: BrokerTraits,
        clock: IReactorTime,
        run: Run,
        *,
        seconds: float = 10.0,
        idle_seconds: float = 0.05,
        probe_seconds: float = 1.0,
    ) -> None:
        assert traits.lease_seconds is not None, "what is pulled is leased"
        self.traits = traits
        self.warnings: Sequence[str] = ()
        self.on_connected: list[Callable[[], object]] = []
        self.unavailable_reason: str | None = "the client was not started"
        self._product = product
        self._clock = clock
        self._run = run
        self._seconds = seconds
        self._idle_seconds = idle_seconds
        self._probe_seconds = probe_seconds
        self._probed: list[Deferred[None]] | None = []
        self._subscriptions: list[PulledSubscription] = []
        self._probing = LoopingCall(self._probe)
        self._probing.clock = clock
        self._stopped = False

    def start(self) -> Deferred[None]:
        self._probing.start(self._probe_seconds)
        return succeed(None)

    def when_probed(self) -> Deferred[None]:
        probed: Deferred[None] = Deferred()
        if self._probed is None:
            probed.callback(None)
        else:
            self._probed.append(probed)
        return probed

    def stop(self) -> Deferred[None]:
        self._stopped = True
        self.unavailable_reason = "the client was stopped"
        if self._probing.running:
            self._probing.stop()
        for subscription in self._subscriptions:
            subscription.close(self.unavailable_reason)
        return succeed(None)

    @deferred
    async def publish(self, channel: str, messages: Sequence[Message]) -> Sequence[NotDurable | None]:
        try:
            if self.unavailable_reason is not None:
                raise NotDurable(self.unavailable_reason)
            outcomes: Sequence[NotDurable | None] = await self._ask("publish", channel, messages)
        except NotDurable as error:
            return [error for _ in messages]
        return outcomes

    def consume(self, channel: str, receiver: IReceiver) -> PulledSubscription:
        lease = self.traits.lease_seconds or 0.0
        subscription = PulledSubscription(channel, receiver, self._clock, self._ask, lease, self._idle_seconds)
        self._subscriptions.append(subscription)
        subscription.connected(self.unavailable_reason is None)
        return subscription

    def ensure(self, channel: str) -> Deferred[None]:
        return self._ask("make", channel).addCallback(lambda _: None)

    def exists(self, channel: str) -> Deferred[bool]:
        asked = self._ask("depth", channel).addCallback(lambda depth: True)
        return asked.addErrback(lambda failure: bool(failure.trap(ChannelMissing)) and False)

    def depth(self, channel: str) -> Deferred[int | None]:
        return self._ask("depth", channel).addErrback(lambda failure: failure.trap(ChannelMissing) and None)

    def _ask(self, function: str, *arguments: Any) -> Deferred[Any]:
        if self._stopped:
            return fail(NotDurable("the client was stopped"))
        asked = self._run(getattr(self._product, function), *arguments)
        return asked.addTimeout(self._seconds, self._clock).addErrback(_not_durable)

    @deferred
    async def _probe(self) -> None:
        reason = None
        try:
            await self._ask("probe")
        except NotDurable as error:
            reason = error.reason
        if self._stopped:
            return
        was, self.unavailable_reason = self.unavailable_reason, reason
        for subscription in self._subscriptions:
            subscription.connected(reason is None)
        if reason is None and was is not None:
            for call in self.on_connected:
                call()
        probed, self._probed = self._probed, None
        for waiting in probed or ():
            waiting.callback(None)


def _not_durable(failure: Failure) -> Failure:
    """Whatever the product raised, nothing is known of what it was asked to do."""
    error = failure.value
    if isinstance(error, NotDurable):
        return failure
    if isinstance(error, TimeoutError):
        return Failure(NotDurable("the product did not answer in time"))
    return Failure(NotDurable(f"{type(error).__name__}: {error}"))
