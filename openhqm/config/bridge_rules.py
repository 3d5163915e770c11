# -*- test-case-name: tests.config.test_bridges -*-
"""What does not go together about brokers of other programs, the bridges from them and what is published to them."""

from __future__ import annotations

from collections.abc import Iterator

from openhqm.config.bridges import NONE, PER_KEY, REPLIES, STRICT, Bridge
from openhqm.config.inbox import INBOX, Inbox
from openhqm.config.model import Settings
from openhqm.config.products import ForeignChannels, Kind, Products, Reach
from openhqm.config.publishing import Answer, Publish
from openhqm.policy.text_templates import TextTemplate

STRICT_FIELD = "metadata.partition_key"
Found = Iterator[tuple[str, str]]


def about_bridges(settings: Settings, products: Products) -> Found:
    """Each key with what is wrong with it."""
    for name, broker in settings.brokers.items():
        if name == INBOX:  # its record is that of the queue
            continue
        default = type(broker.record)()
        for field in foreign_channels(settings, products, name).unused:
            if getattr(broker.record, field) != getattr(default, field):
                yield f"brokers.{name}.{field}", "has no effect, because it is for queue.connection: leave it out"
        for field, reason in foreign_channels(settings, products, name).check(broker.record):
            yield f"brokers.{name}.{field}", reason
    written = [each for each in settings.bridges if not isinstance(each, Inbox)]
    for index, bridge in enumerate(written):
        key = f"bridges.{index}"
        if bridge.from_.broker in settings.brokers:
            yield from _about_its_source(settings, products, bridge, key)
        else:
            yield f"{key}.from.broker", _no_broker(settings, bridge.from_.broker)
        yield from _about_its_replies(settings, products, bridge, key)
        yield from _about_its_failures(settings, products, bridge, key)
        yield from _about_its_destination(settings, bridge, key)
        yield from _about_its_order(settings, products, bridge, key)
    yield from _about_client_ids(settings, products)
    if written and settings.server.workers > 1:
        yield "bridges", f"read with one process: server.workers must be 1, not {settings.server.workers}"
    yield from _about_reply_channels(settings, products)
    for name, endpoint in settings.proxy.endpoints.items():
        if endpoint.publish is not None:
            yield from _about_publishing(
                settings, products, endpoint.publish, endpoint.reply, f"proxy.endpoints.{name}"
            )
        if name.startswith(REPLIES) and name.removeprefix(REPLIES) in settings.reply_brokers:
            yield f"proxy.endpoints.{name}", "is the name of the queue for replies to that broker: use another name"


def foreign_channels(settings: Settings, products: Products, broker: str) -> ForeignChannels:
    """How the channels of a broker are named."""
    found = products[settings.brokers[broker].type].foreign
    assert found is not None, "the record of brokers has no other products"
    return found


def _about_its_source(settings: Settings, products: Products, bridge: Bridge, key: str) -> Found:
    source, channels = bridge.from_, foreign_channels(settings, products, bridge.from_.broker)
    product = settings.brokers[source.broker].type
    for name in ("topics", "topic", "queue", "stream", "subscription"):
        if name != channels.key and source.channels(name):
            yield f"{key}.from.{name}", f"must be left out: the broker is {product}, which has {channels.key}"
    named = source.channels(channels.key)
    if not named:
        yield f"{key}.from.{channels.key}", f"is missing: it says what is read from {product}"
    for name in named:
        fault = channels.source_fault(name)
        if fault is not None:
            yield f"{key}.from.{channels.key}", f"{name!r} {fault}"
        elif bridge.partition_key is not None and not channels.ordered(name):
            yield f"{key}.partition_key", f"asks for an order that {name} does not keep: leave it out"
    if bridge.acknowledge == "ending" and channels.one_reader:
        yield f"{key}.acknowledge", f"must be acceptance: {product} is acknowledged in order, and one would hold up all"


def _about_its_replies(settings: Settings, products: Products, bridge: Bridge, key: str) -> Found:
    reply, broker = bridge.reply_channel, bridge.reply_broker
    if reply is None or broker is None or (reply.broker is None and broker not in settings.brokers):
        return
    if broker not in settings.brokers:
        yield f"{key}.reply.broker", _no_broker(settings, broker)
        return
    channels = foreign_channels(settings, products, broker)
    for name in reply.allow:
        if (fault := channels.source_fault(name)) is not None:
            yield f"{key}.reply.allow", f"{name!r} {fault}"
    if reply.topic is None:
        return
    example = TextTemplate(reply.topic).example
    fault = channels.fault(example)
    if fault is not None:
        yield f"{key}.reply.topic", f"{reply.topic!r} {fault}"
    for other in settings.bridges:
        if other.from_.broker == broker:
            for name in other.from_.channels(channels.key):
                if channels.source_fault(name) is None and channels.covers(name, example):
                    yield (
                        f"{key}.reply.topic",
                        f"is read by the bridge {other.name} ({name}): a reply would be a request",
                    )


def _about_reply_channels(settings: Settings, products: Products) -> Found:
    """About the channels that requests may name for their replies."""
    for name, topics in settings.callbacks.reply_topics.items():
        key = f"callbacks.channels.{name}"
        if name not in settings.brokers or name == INBOX:
            yield key, _no_broker(settings, name)
            continue
        channels = foreign_channels(settings, products, name)
        read = [
            each
            for bridge in settings.bridges
            if bridge.from_.broker == name
            for each in bridge.from_.channels(channels.key)
        ]
        for topic in topics:
            if topic.endswith("*"):
                if read:
                    yield key, f"{topic!r} may stand for what a bridge reads there: name each topic"
            elif (fault := channels.fault(topic)) is not None:
                yield key, f"{topic!r} {fault}"
            elif channels.needs_key(topic):
                yield key, f"{topic!r} takes no message without a key"
            elif any(channels.source_fault(each) is None and channels.covers(each, topic) for each in read):
                yield key, f"{topic!r} is read by a bridge: a reply would be a request"


def _about_its_failures(settings: Settings, products: Products, bridge: Bridge, key: str) -> Found:
    if products[settings.queue.type].reach is Reach.PROCESS and not settings.server.enabled:
        why = f"because {settings.queue.type} is gone with the process: what rests here alone would be lost"
        if bridge.acknowledge != "ending":
            yield f"{key}.acknowledge", f"must be ending, {why}"
        if bridge.dead_letters is None:
            yield f"{key}.dead_letters", f"is needed, {why}"
        if bridge.reply != NONE:
            yield f"{key}.reply", f"must be none, {why}"
    if bridge.dead_letters is None or bridge.from_.broker not in settings.brokers:
        return
    if bridge.acknowledge != "ending":
        yield f"{key}.dead_letters", "has no effect without acknowledge: ending"
    channels = foreign_channels(settings, products, bridge.from_.broker)
    if (fault := channels.fault(bridge.dead_letters)) is not None:
        yield f"{key}.dead_letters", f"{bridge.dead_letters!r} {fault}"
    elif any(channels.covers(name, bridge.dead_letters) for name in bridge.from_.channels(channels.key)):
        yield f"{key}.dead_letters", "is read by this bridge: what fails would come again for ever"


def _about_publishing(
    settings: Settings, products: Products, publish: Publish, answer: Answer | None, key: str
) -> Found:
    if publish.broker not in settings.brokers:
        yield f"{key}.publish.broker", _no_broker(settings, publish.broker)
        return
    channels, product = foreign_channels(settings, products, publish.broker), settings.brokers[publish.broker].type
    fault = channels.fault(TextTemplate(publish.topic).example)
    if fault is not None:
        yield f"{key}.publish.topic", f"{publish.topic!r} {fault}"
    if publish.key is None and channels.needs_key(publish.topic):
        yield f"{key}.publish.key", f"is missing: {publish.topic} takes no message without one"
    for name in channels.without:
        if getattr(publish, name) != getattr(Publish("-", "-"), name):
            yield f"{key}.publish.{name}", f"has no effect, because {product} has none: leave it out"
    if publish.exchange is not None and not channels.exchanges:
        yield f"{key}.publish.exchange", f"has no effect, because {product} has none: leave it out"
    if answer is None:
        return
    if not channels.answers:
        yield f"{key}.reply", f"{product} is published to only: leave it out"
    elif answer.topic is not None and not channels.answers_by_topic:
        yield f"{key}.reply.topic", f"must be left out: in {product} the answer comes to an address of our own"
    elif answer.topic is not None and (fault := channels.fault(TextTemplate(answer.topic).example)) is not None:
        yield f"{key}.reply.topic", f"{answer.topic!r} {fault}"


def _about_its_destination(settings: Settings, bridge: Bridge, key: str) -> Found:
    endpoint = bridge.endpoint
    if endpoint is not None and endpoint not in settings.proxy.names:
        more = "" if settings.proxy.enabled else ": proxy.enabled is false"
        yield f"{key}.endpoint", f"there is no endpoint {endpoint!r}{more}"
    if endpoint is not None and bridge.operation is not None:
        yield f"{key}.operation", "must be left out beside endpoint"
    if bridge.partition_key is not None and not settings.partitioning.enabled:
        yield f"{key}.partition_key", "has no effect: set partitioning.enabled, or leave it out"


def _about_its_order(settings: Settings, products: Products, bridge: Bridge, key: str) -> Found:
    partitions, source = settings.partitioning, bridge.from_
    keyed = source.broker in settings.brokers and foreign_channels(settings, products, source.broker).keyed
    if bridge.order in (PER_KEY, STRICT) and not partitions.enabled:
        yield f"{key}.order", f"{bridge.order} needs partitioning.enabled"
    elif bridge.order == STRICT and partitions.key_field != STRICT_FIELD:
        yield f"{key}.order", f"strict needs partitioning.key_field: {STRICT_FIELD}"
    elif bridge.order == PER_KEY and bridge.partition_key is None and not keyed:
        yield f"{key}.order", "per_key needs partition_key, for its messages have no key of their own"
    if bridge.replay.rate is not None and products[settings.queue.type].kind is not Kind.BACKEND:
        durable = " or ".join(row.name for row in products.record_keepers)
        yield f"{key}.replay.rate", f"cannot be kept where requests wait in {settings.queue.type}: take {durable}"


def _about_client_ids(settings: Settings, products: Products) -> Found:
    seen: dict[tuple[object, str], str] = {}
    for index, bridge in enumerate(settings.bridges):
        broker = settings.brokers.get(bridge.from_.broker)
        if broker is None or not foreign_channels(settings, products, bridge.from_.broker).one_reader:
            continue
        record = broker.record
        client_id = bridge.client_id(settings.brokers)
        address = (broker.type, getattr(record, "host", None), getattr(record, "port", None), client_id)
        other = seen.setdefault((address, client_id), bridge.name)
        if other != bridge.name:
            reason = f"{client_id!r} is that of the bridge {other}, too: the broker would disconnect each for the other"
            yield f"bridges.{index}.from.client_id", reason


def _no_broker(settings: Settings, name: str) -> str:
    known = ", ".join(sorted(settings.brokers)) or "none are configured"
    return f"there is no broker {name!r} in brokers ({known})"
