# -*- test-case-name: tests.test_backends -*-
"""How SQS is made of the settings, and how the queues of other programs are named in it.

The client is imported when SQS is configured, and not before.
"""

from __future__ import annotations

import random

from twisted.internet.interfaces import IReactorTime

from openhqm.brokered.foreign import ForeignOverBroker
from openhqm.config.model import Settings
from openhqm.config.products import ForeignChannels
from openhqm.interfaces import IForeignBroker
from openhqm.queue.backend import MadeBroker, RunCommit
from openhqm.sqs.names import is_fifo, queue_fault
from openhqm.sqs.settings import SqsSettings

FOREIGN = ForeignChannels(
    "queue",
    queue_fault,
    queue_fault,
    unused=("queue_url", "prefix", "fifo", "lost_after_seconds"),
    without=("qos", "retain", "expiry"),
    ordered=is_fifo,
    needs_key=is_fifo,
)


def make(settings: Settings, clock: IReactorTime, run_commit: RunCommit) -> MadeBroker:
    """The broker in which our queue is. `ConfigurationError` where boto3 is missing."""
    from openhqm.sqs.broker import SqsBroker
    from openhqm.sqs.errors import check_installed

    check_installed()
    ours = settings.queue.of(SqsSettings)
    prefix = ours.names_begin_with
    requests = (prefix or "") + settings.queue.request_queue
    broker = SqsBroker(
        clock,
        random.random,
        region=ours.region,
        endpoint_url=ours.endpoint_url,
        seconds=ours.timeout_seconds,
        urls={requests: ours.queue_url} if ours.queue_url else {},
        makes=prefix is not None,
        fifo=ours.fifo,
    )
    return MadeBroker(broker, prefix or "", ours.lost_after_seconds, reports=prefix is not None)


def make_foreign(ours: SqsSettings, clock: IReactorTime) -> IForeignBroker:
    """A broker of other programs. `ConfigurationError` where boto3 is missing."""
    from openhqm.sqs.broker import SqsBroker, foreign
    from openhqm.sqs.errors import check_installed

    check_installed("brokers")
    broker = SqsBroker(
        clock,
        random.random,
        region=ours.region,
        endpoint_url=ours.endpoint_url,
        seconds=ours.timeout_seconds,
        makes=False,
        named=True,
    )
    return ForeignOverBroker(broker, foreign, queue_fault, clock)
