# -*- test-case-name: tests.sqs.test_contract,tests.sqs.test_broker -*-
"""SQS as an `IBroker`: what is pulled, with threads of its own, and what it promises."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred

from openhqm.interfaces import BrokerTraits, DepthKind, Message
from openhqm.pulled.broker import PulledBroker
from openhqm.sqs.calls import GRACE_SECONDS, LONGEST_POLL, Calls, MakeSession, default_session
from openhqm.sqs.messages import LARGEST_BODY, foreign_message
from openhqm.sqs.names import queue_of
from openhqm.sqs.product import PROBED, SqsProduct

LEASE_SECONDS = 30.0
LONGEST_LEASE_SECONDS = 12 * 3600.0
"""SQS extends no lease beyond 12 hours from the delivery."""
BATCH = 10
PROBE_SECONDS = 30.0
"""SQS is asked whether it is there where it has answered nothing else for so long."""
IDLE_SECONDS = 0.05


class SqsBroker(PulledBroker):
    """The queues of one account and region. ``seconds`` is how long an answer may take.

    ``urls`` has the URLs of channels that are made by others; ``makes``: others are made where they are missing.
    ``fifo``: the queues are FIFO queues, in which messages of one key stay in order. ``reports``: there is a channel
    for workers without a store. ``wait`` is how long an empty queue is waited for; ``lease`` how long a delivery lasts.
    """

    def __init__(
        self,
        reactor: Any,
        random: Callable[[], float],
        *,
        region: str | None = None,
        endpoint_url: str | None = None,
        seconds: float = 5.0,
        urls: Mapping[str, str] = {},
        makes: bool = True,
        fifo: bool = False,
        named: bool = False,
        wait: int = LONGEST_POLL,
        lease: float = LEASE_SECONDS,
        probe_seconds: float = PROBE_SECONDS,
        make_session: MakeSession = default_session,
    ) -> None:
        traits = BrokerTraits(
            lease_seconds=lease,
            longest_lease_seconds=LONGEST_LEASE_SECONDS,
            largest_message=LARGEST_BODY,
            largest_batch=BATCH,
            in_order=fifo,
            native_partitions=fifo,
            makes_channels=makes,
            most_channels=None if makes or named else len(urls),
            depth=DepthKind.APPROXIMATE,
        )
        self._calls = Calls(
            reactor,
            random,
            region=region,
            endpoint_url=endpoint_url,
            seconds=seconds,
            wait=wait,
            make_session=make_session,
        )
        product = SqsProduct(
            self._calls,
            reactor,
            queue_of=_as_it_is if named else lambda channel: queue_of(channel, fifo),
            urls=urls,
            lease=lease,
            makes=makes,
            probed=next(iter(urls), PROBED),
            fresh=0.9 * probe_seconds,
            time=reactor.seconds,
        )
        super().__init__(
            product,
            traits,
            reactor,
            maybeDeferred,
            name=f"SQS at {place}" if (place := endpoint_url or region) else "SQS",
            seconds=seconds,
            idle_seconds=IDLE_SECONDS,
            probe_seconds=probe_seconds,
            # A question waits for its turn, and for its answer.
            take_seconds=2 * LONGEST_POLL + 2 * GRACE_SECONDS,
            random=random,
        )
        self.warnings = product.warnings
        self._begun = False

    def start(self) -> Deferred[None]:
        if not self._begun:
            self._begun = True
            self._calls.start()
        return super().start()

    def stop(self) -> Deferred[None]:
        stopping = super().stop()
        if self._begun:
            self._begun = False
            self._calls.stop()
        return stopping

    def _silent(self) -> str:
        silent = super()._silent()
        return f"{silent}: boto3 is still looking for credentials" if self._calls.looks_for_credentials else silent


def _as_it_is(channel: str) -> str:
    return channel


def foreign(delivery: Any, queue: str) -> Message:
    """The message of a delivery from another program's queue."""
    return foreign_message(delivery.message, queue, delivery.id, bool(delivery.redelivery_count))
