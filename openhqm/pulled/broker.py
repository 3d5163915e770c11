# -*- test-case-name: tests.testing.test_directory_broker,tests.testing.test_pulled -*-
"""An `IBroker` out of a `Product`: probing, subscriptions, leases and outcomes, once for all that are pulled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import random
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from openhqm.errors import NotDurable
from openhqm.interfaces import BrokerTraits, ChannelMissing, IBroker, IReceiver, Message
from openhqm.pulled.product import Product, Unreachable
from openhqm.pulled.subscription import PulledSubscription
from openhqm.runtime.deferreds import deferred

Run = Callable[..., Deferred[Any]]
"""Runs a function with its arguments, in a thread where it may block, and fires with what it returns."""


FIRST_PAUSE = 0.05
LONGEST_PAUSE = 5.0
"""Seconds between two looks whether a product that is away has come back."""
STOPPED = "the client was stopped"


@implementer(IBroker)
class PulledBroker:
    """``traits`` have ``lease_seconds``. ``run`` runs the functions of ``product``; ``name`` is for the log.

    ``seconds`` is how long an answer may take, ``idle_seconds`` the pause before an empty channel is asked again, and
    ``probe_seconds`` how often it is looked whether the product can be reached. ``take_seconds``, where the product
    waits for the first message of a channel: for so long. The lease of a delivery then counts from its arrival.
    """

    _log = Logger()

    def __init__(
        self,
        product: Product,
        traits: BrokerTraits,
        clock: IReactorTime,
        run: Run,
        *,
        name: str = "the product",
        seconds: float = 10.0,
        idle_seconds: float = 0.05,
        probe_seconds: float = 1.0,
        take_seconds: float | None = None,
        random: Callable[[], float] = random,
    ) -> None:
        assert traits.lease_seconds is not None, "what is pulled is leased"
        self.traits = traits
        self.warnings: Sequence[str] = ()
        self.on_connected: list[Callable[[], object]] = []
        self.unavailable_reason: str | None = "the client was not started"
        self._product = product
        self._name = name
        self._clock = clock
        self._run = run
        self._seconds = seconds
        self._idle_seconds = idle_seconds
        self._probe_seconds = probe_seconds
        self._take_seconds = take_seconds
        self._random = random
        self._probed: list[Deferred[None]] | None = []
        self._subscriptions: list[PulledSubscription] = []
        self._asked: set[Deferred[Any]] = set()
        self._pause = FIRST_PAUSE
        self._probing = False
        self._doubted = True
        self._next_probe: Any = None
        self._stopped = False
        self._unexpected: str | None = None

    def start(self) -> Deferred[None]:
        if not self._probing and self._next_probe is None and not self._stopped:
            self._probe()
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
        self.unavailable_reason = STOPPED
        if self._next_probe is not None:
            self._next_probe.cancel()
            self._next_probe = None
        for subscription in self._subscriptions:
            subscription.close(self.unavailable_reason)
        for asked in list(self._asked):
            asked.cancel()
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
        waits = self._take_seconds is not None
        subscription = PulledSubscription(channel, receiver, self._clock, self._ask, lease, self._idle_seconds, waits)
        self._subscriptions.append(subscription)
        subscription.connected(self.unavailable_reason is None)
        return subscription

    def connection_lost(self, reason: str) -> None:
        """Where leases end with their connection: revoke what is out, and look at once whether the product is away."""
        for subscription in self._subscriptions:
            subscription.revoke_all(reason)
        if not self._stopped:
            self._doubt()

    def ensure(self, channel: str) -> Deferred[None]:
        return self._ask("make", channel).addCallback(lambda _: None)

    def exists(self, channel: str) -> Deferred[bool]:
        asked = self._ask("depth", channel).addCallback(lambda depth: True)
        return asked.addErrback(lambda failure: bool(failure.trap(ChannelMissing)) and False)

    def depth(self, channel: str) -> Deferred[int | None]:
        return self._ask("depth", channel).addErrback(lambda failure: failure.trap(ChannelMissing) and None)

    def _ask(self, function: str, *arguments: Any) -> Deferred[Any]:
        if self._stopped:
            return fail(NotDurable(STOPPED))
        asked = self._run(getattr(self._product, function), *arguments)
        patience = self._take_seconds if function == "take" else None
        asked.addTimeout(self._seconds if patience is None else patience, self._clock)
        self._asked.add(asked)
        return asked.addBoth(self._answered, asked).addErrback(self._not_durable, patience is not None)

    def _answered(self, result: Any, asked: Deferred[Any]) -> Any:
        self._asked.discard(asked)
        return result

    def _not_durable(self, failure: Failure, waits: bool) -> Any:
        """Whatever the product raised, nothing is known of what it was asked to do."""
        error = failure.value
        if isinstance(error, TimeoutError) and waits:
            return []  # no message has come
        if isinstance(error, Unreachable | TimeoutError):
            self._doubt()
        if isinstance(error, NotDurable):
            return failure
        if isinstance(error, TimeoutError):
            return Failure(NotDurable(self._silent(), maybe_done=True))
        if isinstance(error, CancelledError):
            return Failure(NotDurable(STOPPED, maybe_done=True))
        reason = f"{type(error).__name__}: {error}"
        if reason != self._unexpected:  # it may come with every call
            self._unexpected = reason
            self._log.warn("a call of {name} has failed: {reason}", name=self._name, reason=reason)
        return Failure(NotDurable(reason))

    def _silent(self) -> str:
        """Why there was no answer in time."""
        return f"{self._name} did not answer in time"

    def _doubt(self) -> None:
        """A call has failed as if the product were away: look at once, unless that is already known."""
        if self._probing:
            return
        self._doubted = True
        if self.unavailable_reason is None and not self._stopped:
            if self._next_probe is not None:
                self._next_probe.cancel()
                self._next_probe = None
            self._probe()

    @deferred
    async def _probe(self) -> None:
        self._next_probe, self._probing = None, True
        reason = None
        try:
            await self._ask("probe")
        except NotDurable as error:
            reason = error.reason
        self._probing = False
        if self._stopped:
            return
        was, self.unavailable_reason = self.unavailable_reason, reason
        if reason is None:
            self._pause, again = FIRST_PAUSE, self._probe_seconds
        else:
            again = min(self._pause * (0.5 + self._random()), self._probe_seconds)
            self._pause = min(self._pause * 2, LONGEST_PAUSE)
        self._next_probe = self._clock.callLater(again, self._probe)
        if reason is not None and reason != was:
            self._log.warn("cannot use {name}: {reason}", name=self._name, reason=reason)
        for subscription in self._subscriptions:
            subscription.connected(reason is None)
        if reason is None and (was is not None or self._doubted):
            self._doubted = False
            if was is not None:
                self._log.info("connected to {name}", name=self._name)
            for call in self.on_connected:
                call()
        probed, self._probed = self._probed, None
        for waiting in probed or ():
            waiting.callback(None)
