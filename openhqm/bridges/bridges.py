# -*- test-case-name: tests.bridges.test_end_to_end -*-
"""All bridges of a process, and the brokers of other programs that they and the workers use."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from openhqm.bridges.bridge import OUTCOMES, Bridge
from openhqm.bridges.endings import StoreEndings
from openhqm.bridges.formats import CheckSubmission, Formats, ReadSubmission
from openhqm.bridges.held_claims import HeldClaims
from openhqm.bridges.reading import Reader, never_away
from openhqm.config.bridge_rules import foreign_channels
from openhqm.config.bridges import Bridge as BridgeSettings
from openhqm.config.inbox import INBOX
from openhqm.config.model import Settings
from openhqm.config.products import Products
from openhqm.interfaces import IForeignBroker, IMessageQueue, IResultStore
from openhqm.policy.addressing import Addressing
from openhqm.queue.shedding import Accepts
from openhqm.runtime.counting import Counts
from openhqm.runtime.deferreds import deferred


class Bridges:
    """The bridges that ``settings`` describe, into ``queue``. ``brokers`` has those of other programs, by name.

    ``rules`` are those of the door: a message is not allowed what a caller is not. ``is_away`` says whether an endpoint
    is away. Requests are accepted through ``admission``; None: the queue takes each.
    """

    _log = Logger()

    def __init__(
        self,
        settings: Settings,
        products: Products,
        brokers: Mapping[str, IForeignBroker],
        queue: IMessageQueue,
        store: IResultStore,
        addressing: Addressing,
        rules: tuple[ReadSubmission, CheckSubmission],
        clock: IReactorTime,
        registry: CollectorRegistry,
        is_away: Callable[[str | None], bool] = never_away,
        admission: Accepts | None = None,
    ) -> None:
        self._brokers = brokers
        self._bridges: list[Bridge] = []
        name, text = "openhqm_bridged_messages", "Messages of other programs, by what became of them."
        counts = Counts(name, text, "outcome", OUTCOMES, registry)
        for each in settings.bridges if settings.worker.enabled else ():
            broker = brokers[each.from_.broker]
            fault = partial(_reply_fault, settings, products, brokers, each)
            made = Bridge(
                each.name,
                broker,
                each.from_.channels(foreign_channels(settings, products, each.from_.broker).key),
                each.client_id(settings.brokers),
                Reader(each, addressing, Formats(*rules), fault, settings.server.max_body_bytes, is_away),
                queue,
                clock,
                random.random,
                counts,
                HeldClaims(store, clock, broker.acks, each.seen_seconds),
                most=each.most,
                endings=StoreEndings(store) if each.acknowledge == "ending" else None,
                failures=each.dead_letters,
                admission=admission,
            )
            self._bridges.append(made)

    @property
    def warnings(self) -> Sequence[str]:
        """What an operator should know although everything works."""
        away = [
            f"broker {name}: {reason}"
            for name, each in self._brokers.items()
            if name != INBOX and (reason := each.unavailable_reason) is not None  # the queue says that by itself
        ]
        waiting = [each.warning for each in self._bridges if each.warning is not None]
        return [*away, *(warning for each in self._brokers.values() for warning in each.warnings), *waiting]

    def exchange(self, addressing: Addressing) -> None:
        """From now on requests go where ``addressing`` says."""
        for each in self._bridges:
            each.reader.addressing = addressing

    @deferred
    async def check(self) -> Sequence[str]:
        """Connect to the brokers, without receiving, and say what an operator should know of them. It does not fail."""
        for broker in self._brokers.values():
            broker.start()
        await DeferredList([broker.when_probed() for broker in self._brokers.values()])
        return self.warnings

    def start(self) -> None:
        """Begin to connect, and to receive."""
        for broker in self._brokers.values():
            broker.start()
        for bridge in self._bridges:
            bridge.start()

    def stop(self) -> Deferred[None]:
        """Receive no more. It fires when what was received is accepted, or given up, and does not fail."""
        return self._all([each.stop() for each in self._bridges])

    def disconnect(self) -> Deferred[None]:
        """Close the connections to the brokers. It does not fail."""
        return self._all([each.stop() for each in self._brokers.values()])

    @deferred
    async def _all(self, steps: Sequence[Deferred[None]]) -> None:
        for done, failure in await DeferredList(steps, consumeErrors=True):
            if not done:
                self._log.failure("stopping a bridge broke down", failure)


def _reply_fault(
    settings: Settings,
    products: Products,
    brokers: Mapping[str, IForeignBroker],
    bridge: BridgeSettings,
    channel: str,
) -> str | None:
    """What keeps a channel from getting the reply to a message of ``bridge``, or None."""
    broker = bridge.reply_broker or bridge.from_.broker
    fault = brokers[broker].fault(channel)
    if fault is not None:
        return fault
    rules, allowed = foreign_channels(settings, products, broker), bridge.allowed_replies
    if allowed is not None and not any(rules.covers(name, channel) for name in allowed):
        return "is not one of those that reply.allow covers"
    # A bridge would make a request of it, again and again.
    for each in settings.bridges:
        if each.from_.broker == broker and any(rules.covers(name, channel) for name in each.from_.channels(rules.key)):
            return f"is read by the bridge {each.name}"
    return None
