"""What an operator names in ``queue.connection.custom.factory``: two that work, and each way to get one wrong."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from openhqm.interfaces import BrokerTraits, IMessageQueue, IResultStore
from openhqm.memory.queue import MemoryQueue
from openhqm.memory.results import MemoryResults
from openhqm.policy.ids import CorrelationIds
from openhqm.testing import FORMS, FakeBroker, FakeServer

Options = dict[str, Any]


class Kept(MemoryQueue):
    """The queue in memory, which opens and closes its results as a whole backend has to."""

    def start(self) -> Deferred[None]:
        self._results.start()  # type: ignore[attr-defined]
        return super().start()

    def stop(self) -> Deferred[None]:
        self._results.stop()  # type: ignore[attr-defined]
        return super().stop()


def make_pair(options: Options, clock: IReactorTime) -> tuple[IMessageQueue, IResultStore]:
    """A whole backend. ``options``: ``largest_message`` and ``unavailable_reason``, or neither."""
    ids = CorrelationIds(b"k" * 32)
    results = MemoryResults(clock, ids, options.get("ttl", 3600.0))
    queue = Kept(results, clock, ids, requests="openhqm-requests", dead_letters="openhqm-dlq")
    queue.traits = evolve(queue.traits, largest_message=options.get("largest_message"))
    queue.unavailable_reason = options.pop("unavailable_reason", None)
    return queue, results


def make_broker(options: Options, clock: IReactorTime) -> FakeBroker:
    """A broker. ``options``: ``form``, one of `FORMS`."""
    traits: BrokerTraits = FORMS[options.get("form", "amqp")]
    return FakeBroker(FakeServer(), clock, traits)


def fail(options: Options, clock: IReactorTime) -> None:
    """Breaks down."""
    raise RuntimeError("no\nluck")


def make_nothing(options: Options, clock: IReactorTime) -> None:
    """Forgets to return anything."""


def make_half(options: Options, clock: IReactorTime) -> tuple[IMessageQueue]:
    """Returns a queue without its results."""
    return (make_pair(options, clock)[0],)


def make_swapped(options: Options, clock: IReactorTime) -> tuple[IResultStore, IMessageQueue]:
    """Returns a pair in the wrong order."""
    queue, results = make_pair(options, clock)
    return results, queue


def make_options(options: Options, clock: IReactorTime) -> Options:
    """Returns what no complaint may show."""
    return options
