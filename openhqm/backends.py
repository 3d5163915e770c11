# -*- test-case-name: tests.test_backends -*-
"""The table of products: what each one is, what an operator decides about it, and how it is made.

A product is a whole backend (`Backend`), or a broker that moves messages (`MadeBroker`). Over a broker stands
`openhqm.brokered.queue`, with the ledger of the product that ``cache.type`` names; a process that only works may have
no store. Brokers and ledgers are composed here, and no combination is written out.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from typing import Any

import attrs
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime

from openhqm.brokered.foreign import ForeignOverBroker
from openhqm.brokered.queue import BrokeredQueue
from openhqm.config.guarantees import anything_required, refuse_in_vain
from openhqm.config.inbox import INBOX
from openhqm.config.model import Settings
from openhqm.config.products import ForeignChannels, Kind, Product, Products, Reach
from openhqm.config.queue_rules import about_the_kind, record_keeper
from openhqm.custom import making as custom
from openhqm.custom import settings as custom_settings
from openhqm.custom.settings import CustomSettings
from openhqm.errors import Complaint, ConfigurationError
from openhqm.event_hubs import making as event_hubs
from openhqm.event_hubs import settings as event_hubs_settings
from openhqm.event_hubs.settings import EventHubsSettings
from openhqm.interfaces import IBroker, IForeignBroker
from openhqm.kafka import making as kafka
from openhqm.kafka import settings as kafka_settings
from openhqm.kafka.settings import KafkaSettings
from openhqm.memory import backend as memory
from openhqm.messages import Priority
from openhqm.mqtt import making as mqtt
from openhqm.mqtt import settings as mqtt_settings
from openhqm.mqtt.settings import MQTTSettings
from openhqm.policy.addressing import Addressing
from openhqm.policy.channel_count import ChannelCount
from openhqm.policy.channels import Channels
from openhqm.policy.queue_names import queue_name
from openhqm.pubsub import making as pubsub
from openhqm.pubsub import settings as pubsub_settings
from openhqm.pubsub.settings import PubSubSettings
from openhqm.queue.backend import Backend, Beside, MadeBroker, RunCommit, Store
from openhqm.queue.ledger import Ledger, window_of
from openhqm.rabbitmq import making as rabbitmq
from openhqm.rabbitmq import settings as rabbitmq_settings
from openhqm.rabbitmq.settings import RabbitMQSettings
from openhqm.redis import backend as redis
from openhqm.redis import settings as redis_settings
from openhqm.redis.address import parse_address as parse_redis_address
from openhqm.redis.address import stream_fault
from openhqm.redis.driver import check_installed as check_txredisapi
from openhqm.redis.settings import RedisSettings
from openhqm.runtime.deferreds import deferred
from openhqm.sqlite import backend as sqlite
from openhqm.sqlite.settings import SqliteSettings
from openhqm.sqs import making as sqs
from openhqm.sqs import settings as sqs_settings
from openhqm.sqs.settings import SqsSettings
from openhqm.storeless.ledger import StorelessLedger
from openhqm.storeless.results import NullResultStore
from openhqm.storeless.steps_consumer import StepsConsumer

Make = Callable[[Settings, IReactorTime, RunCommit], Backend | MadeBroker]
MakeStore = Callable[[Settings, IReactorTime, RunCommit, Beside], Store[Ledger]]

MakeForeign = Callable[[Any, IReactorTime], IForeignBroker]
"""Makes a broker that other programs use, from the record of its product."""


@attrs.frozen(kw_only=True)
class Row(Product):
    """A product and how it is made. Neither function does I/O; each raises `ConfigurationError`.

    ``make`` makes a whole backend or a broker. ``make_store``, where the product keeps records beside a broker, makes
    that store. ``make_foreign``, where it can be one of ``brokers``, makes that. ``make_inbox`` makes that from which
    ``queue.request_queue`` is read; None: ``make_foreign`` does.
    """

    make: Make
    make_store: MakeStore | None = None
    make_foreign: MakeForeign | None = None
    make_inbox: MakeForeign | None = None


def _foreign_redis(ours: RedisSettings, clock: IReactorTime) -> IForeignBroker:
    from openhqm.redis.foreign import RedisStreams

    check_txredisapi("brokers")
    return RedisStreams(
        parse_redis_address(ours.url), ours.key_prefix, clock, random.random, seconds=ours.timeout_seconds
    )


def _inbox_redis(ours: RedisSettings, clock: IReactorTime) -> IForeignBroker:
    from openhqm.redis.foreign import RedisStreams

    check_txredisapi()
    address = parse_redis_address(ours.url)
    return RedisStreams(address, ours.key_prefix, clock, random.random, seconds=ours.timeout_seconds, deletes=True)


def _foreign_custom(ours: CustomSettings, clock: IReactorTime) -> IForeignBroker:
    return ForeignOverBroker(custom.make_broker(ours, clock))


TABLE = (
    Row(
        name="sqlite",
        kind=Kind.BACKEND,
        reach=Reach.FILE,
        settings=SqliteSettings,
        keeps_records=True,
        make=sqlite.make_backend,
        make_store=sqlite.make_store,
    ),
    Row(
        name="memory",
        kind=Kind.BACKEND,
        reach=Reach.PROCESS,
        make=memory.make_backend,
    ),
    Row(
        name="redis",
        kind=Kind.BACKEND,
        reach=Reach.SHARED,
        settings=RedisSettings,
        check=redis_settings.check,
        keeps_records=True,
        foreign_messages=True,
        foreign=ForeignChannels(
            "stream",
            stream_fault,
            stream_fault,
            answers=True,
            without=("key", "qos", "retain", "expiry"),
            in_order=True,
        ),
        make=redis.make_backend,
        make_store=redis.make_store,
        make_foreign=_foreign_redis,
        make_inbox=_inbox_redis,
    ),
    Row(
        name="rabbitmq",
        kind=Kind.BROKER,
        reach=Reach.SHARED,
        settings=RabbitMQSettings,
        check=rabbitmq_settings.check,
        foreign=rabbitmq.FOREIGN,
        make=rabbitmq.make,
        make_foreign=rabbitmq.make_foreign,
    ),
    Row(
        name="mqtt",
        kind=Kind.BROKER,
        reach=Reach.SHARED,
        settings=MQTTSettings,
        check=mqtt_settings.check,
        accept="journaled",
        foreign=mqtt.FOREIGN,
        make=mqtt.make,
        make_foreign=mqtt.make_foreign,
    ),
    Row(
        name="kafka",
        kind=Kind.BROKER,
        reach=Reach.SHARED,
        settings=KafkaSettings,
        check=kafka_settings.check,
        foreign=kafka.FOREIGN,
        make=kafka.make,
        make_foreign=kafka.make_foreign,
    ),
    Row(
        name="azure_eventhubs",
        kind=Kind.BROKER,
        reach=Reach.SHARED,
        settings=EventHubsSettings,
        check=event_hubs_settings.check,
        priorities=["normal"],
        foreign=event_hubs.FOREIGN,
        make=event_hubs.make,
        make_foreign=event_hubs.make_foreign,
    ),
    Row(
        name="gcp_pubsub",
        kind=Kind.BROKER,
        reach=Reach.SHARED,
        settings=PubSubSettings,
        check=pubsub_settings.check,
        foreign=pubsub.FOREIGN,
        make=pubsub.make,
        make_foreign=pubsub.make_foreign,
    ),
    Row(
        name="sqs",
        kind=Kind.BROKER,
        reach=Reach.SHARED,
        settings=SqsSettings,
        check=sqs_settings.check,
        priorities=["normal"],
        foreign=sqs.FOREIGN,
        make=sqs.make,
        make_foreign=sqs.make_foreign,
    ),
    Row(
        name="custom",
        kind=Kind.EITHER,
        reach=Reach.SHARED,
        settings=CustomSettings,
        check=custom_settings.check,
        foreign=ForeignChannels("queue", without=("qos", "retain", "expiry")),
        make=custom.make,
        make_foreign=_foreign_custom,
    ),
)
PRODUCTS = Products(TABLE)
_ROWS = {row.name: row for row in TABLE}


def make_backend(settings: Settings, clock: IReactorTime, run_commit: RunCommit) -> Backend:
    """The backend that ``queue.type`` and ``cache.type`` describe. It does no I/O.

    ``clock`` is the reactor; ``run_commit`` runs a blocking commit of the embedded file. `ConfigurationError` where a
    package is missing, or where the product cannot do what the settings ask of it.
    """
    row = _ROWS[settings.queue.type]
    made = row.make(settings, clock, run_commit)
    if row.kind is Kind.EITHER:
        kind = Kind.BACKEND if isinstance(made, Backend) else Kind.BROKER
        _refuse(about_the_kind(settings, PRODUCTS, kind))
    return made if isinstance(made, Backend) else _over(made, settings, clock, run_commit)


@deferred
async def look_at_required(settings: Settings, backend: Backend) -> None:
    """`ConfigurationError` where a started backend cannot keep what is required. Where nothing is, it does not wait."""
    if anything_required(settings):
        await backend.when_probed()
        refuse_in_vain(settings, PRODUCTS, backend.queue)


def make_foreign_brokers(settings: Settings, clock: IReactorTime) -> dict[str, IForeignBroker]:
    """The brokers of other programs, by name, for a process that works. It does no I/O.

    `ConfigurationError` names each broker that needs a package which is not installed.
    """
    made: dict[str, IForeignBroker] = {}
    found: list[Complaint] = []
    for name, broker in settings.brokers.items() if settings.worker.enabled else ():
        row = _ROWS[broker.type]
        make = (row.make_inbox if name == INBOX else None) or row.make_foreign
        assert make is not None, "the record of brokers has no other products"
        try:
            made[name] = make(broker.record, clock)
        except ConfigurationError as error:
            key = "queue.type" if name == INBOX else f"brokers.{name}"
            found += [Complaint(key, each.reason) for each in error.complaints]
    if found:
        raise ConfigurationError(found)
    return made


def _over(made: MadeBroker, settings: Settings, clock: IReactorTime, run_commit: RunCommit) -> Backend:
    """The queue over a broker, with the store that the settings name beside it."""
    broker = made.broker
    channels = Channels(settings.queue.request_queue, made.prefix, _priorities(settings))

    may_report = made.reports and broker.traits.counts_redeliveries
    reply_channel = made.prefix + settings.queue.steps_queue if may_report else None
    store = _store(
        Beside(channels, reply_channel, made.lost_after, window_of(broker.traits.keeps)), settings, clock, run_commit
    )
    if store is None:
        store = _no_store(broker, reply_channel, settings, clock)
    reports = reply_channel is not None and (store.steps is not None or not store.ledger.complete)

    def count(addressing: Addressing | None = None) -> ChannelCount:
        return ChannelCount.of(channels, addressing or settings.addressing(), reports, broker.traits.most_channels)

    _refuse(_about_channels(count()))

    def when_probed() -> Deferred[None]:
        return gatherResults([store.when_probed(), broker.when_probed()]).addCallback(lambda _: None)

    steps = None
    lanes = settings.addressing().lanes()
    queues = [queue_name(channels.requests, in_name) for in_name, _, partition in lanes if partition is None]
    if store.steps is not None and reply_channel is not None:
        steps = StepsConsumer(broker, store.steps, clock, reply_channel)
    queue = BrokeredQueue(
        broker,
        store.ledger,
        clock,
        channels=channels,
        dead_letters=settings.queue.dead_letter_queue,
        lease=settings.queue.lease_seconds,
        steps=steps,
        queues=() if steps is None else queues,
        journaled=(settings.queue.accept or PRODUCTS[settings.queue.type].accept) == "journaled",
    )
    limit = store.ledger.limit
    return Backend(
        queue,
        store.results,
        store.timekeeper,
        when_probed,
        channels=count,
        broker=broker,
        requests_wait_in=[channel for each in queues for channel in channels.names(each)],
        limit=limit,
        on_redelivered=queue.redeliveries.on_redelivered,
        own_time=store.own_time,
        endings=store.endings,
        count_taken=store.count_taken,
    )


def _priorities(settings: Settings) -> Sequence[Priority]:
    """Those that have a channel of their own."""
    given = settings.queue.priorities or PRODUCTS[settings.queue.type].priorities
    return attrs.evolve(settings.queue, priorities=given).channel_priorities


def _store(beside: Beside, settings: Settings, clock: IReactorTime, run_commit: RunCommit) -> Store[Ledger] | None:
    """The store that ``cache.type`` names; None where this process only works and no store is shared."""
    keeper = record_keeper(settings, PRODUCTS)
    if keeper is None:
        return None
    make_store = _ROWS[keeper.name].make_store
    assert make_store is not None, "what keeps records has a store"
    return make_store(settings, clock, run_commit, beside)


def _no_store(
    broker: IBroker, reply_channel: str | None, settings: Settings, clock: IReactorTime
) -> Store[StorelessLedger]:
    """What a worker has in place of a store, where it can do without: it reports in ``reply_channel``."""
    if reply_channel is None:
        shared = " or ".join(row.name for row in PRODUCTS.record_keepers if row.reach is Reach.SHARED)
        reason = f"{settings.queue.type} does not count redeliveries, so a worker without a store could not tell a "
        reason += f"request that crashes it from any other: say cache.type: {shared}"
        raise ConfigurationError([Complaint("cache.type", reason)])
    ledger = StorelessLedger(broker, clock, reply_channel=reply_channel, name=os.urandom(8).hex())
    return Store(ledger, NullResultStore())


def _about_channels(count: ChannelCount) -> list[tuple[str, str]]:
    return [] if count.refusal is None else [("proxy.endpoints", count.refusal)]


def _refuse(found: list[tuple[str, str]]) -> None:
    if found:
        raise ConfigurationError([Complaint(key, reason) for key, reason in found])
