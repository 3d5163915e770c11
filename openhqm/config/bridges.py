# -*- test-case-name: tests.config.test_bridges -*-
"""The configuration of brokers that other programs use, and of the bridges that make requests of their messages."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from attrs.validators import optional

from openhqm.config.structure import Tagged, Wrong
from openhqm.config.validators import between, not_empty, one_of, tenant_name
from openhqm.messages import Priority
from openhqm.policy.guarantees import OF_A_BRIDGE
from openhqm.policy.text_templates import TextTemplate

FORMATS = ("auto", "json", "text", "bytes", "cloudevents", "envelope")
NONE = "none"
PER_KEY, STRICT = "per_key", "strict"
ORDERS = (PER_KEY, STRICT, NONE)
REPLIES = "replies-"
"""What the names of the queues begin with in which replies wait: one for each broker that gets some."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class NamedBroker(Tagged):
    """A broker that other programs use: its product, and what an operator decides about that."""


def _template(instance: object, attribute: object, value: str) -> None:
    TextTemplate(value)


def _topic(instance: object, attribute: object, value: str) -> None:
    not_empty(instance, attribute, value)
    TextTemplate(value)


@attrs.frozen
class Source:
    """The channel of a bridge. ``client_id`` is what the broker knows it by; None: as `Bridge.client_id` has it."""

    broker: str = attrs.field(default="", validator=not_empty)
    topics: list[str] = attrs.field(factory=list)
    topic: str | None = attrs.field(default=None, validator=optional(not_empty))
    queue: str | None = attrs.field(default=None, validator=optional(not_empty))
    subscription: str | None = attrs.field(default=None, validator=optional(not_empty))
    stream: str | None = attrs.field(default=None, validator=optional(not_empty))
    client_id: str | None = attrs.field(default=None, validator=optional(not_empty))
    format: str = attrs.field(default="auto", validator=one_of(FORMATS))

    @classmethod
    def of(cls, broker: str, key: str, channel: str, format: str) -> Source:
        """The source that is one channel, where the broker's product has ``key`` for channels."""
        named: dict[str, Any] = {key: [channel] if key == "topics" else channel}
        return cls(broker, format=format, **named)

    def channels(self, key: str) -> Sequence[str]:
        """What the key for channels of the broker's product says."""
        value = getattr(self, key)
        return value if isinstance(value, list) else [] if value is None else [value]


@attrs.frozen
class ReplyChannel:
    """Where replies go. ``broker`` None: to that of the message.

    ``topic`` None: to the message's own address, if it has one that one of ``allow`` covers.
    """

    topic: str | None = attrs.field(default=None, validator=optional(_topic))
    broker: str | None = attrs.field(default=None, validator=optional(not_empty))
    allow: list[str] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        """Check keys that depend on each other. Raises `Wrong`, so that each complaint has its key."""
        if self.topic is None and not self.allow:
            raise Wrong([(("topic",), "is missing: say where replies go, or which of their own addresses are allowed")])
        if self.topic is not None and self.allow:
            raise Wrong([(("allow",), "has no effect beside topic, which stands above the message's own address")])
        if self.topic is None and self.broker is not None:
            raise Wrong([(("broker",), "has no effect without topic: an address is one of the message's own broker")])


@attrs.frozen
class Replay:
    """How the backlog goes, once its target has recovered: at ``rate`` requests a second. None: as all others go."""

    rate: float | None = attrs.field(default=None, validator=optional(between(0.001, 1_000_000)))


def _reply(instance: object, attribute: object, value: Any) -> None:
    if isinstance(value, str) and value != NONE:
        raise ValueError(f"must be none, or the broker and the topic for replies, not {value!r}")


@attrs.frozen
class Bridge:
    """A foreign channel whose messages become requests.

    ``endpoint`` and ``operation``: where they go; routes decide where both are None. ``most`` is how many messages
    may be neither accepted nor acknowledged. ``reply`` None: a reply goes to the message's own address, if it has
    one. ``dead_letters`` is the channel of the same broker into which a message that fails for good is published.
    ``required`` is what has to be kept (`openhqm.policy.guarantees`). The requests are on behalf of ``tenant``, whose
    keys may read them. ``seen_seconds``: for so long after its acknowledgement a message is recognised. ``order``: the
    messages of one key are worked on one after the other, all are, or none.
    """

    name: str = ""
    from_: Source = attrs.field(factory=lambda: Source(broker="-"))
    endpoint: str | None = attrs.field(default=None, validator=optional(not_empty))
    operation: str | None = attrs.field(default=None, validator=optional(not_empty))
    priority: str | None = attrs.field(default=None, validator=optional(one_of([each.value for each in Priority])))
    timeout: float | None = attrs.field(default=None, validator=optional(between(0.001, 30 * 86400)))
    partition_key: str | None = attrs.field(default=None, validator=optional(_template))
    path: str | None = attrs.field(default=None, validator=optional(_template))
    acknowledge: str | None = attrs.field(default=None, validator=optional(one_of(("acceptance", "ending"))))
    most: int = attrs.field(default=100, validator=between(1, 10_000))
    order: str | None = attrs.field(default=None, validator=optional(one_of(ORDERS)))
    replay: Replay = attrs.field(factory=Replay)
    reply: ReplyChannel | str | None = attrs.field(default=None, validator=optional(_reply))
    dead_letters: str | None = attrs.field(default=None, validator=optional(not_empty))
    required: str | None = attrs.field(default=None, validator=optional(one_of(OF_A_BRIDGE)))
    tenant: str | None = attrs.field(default=None, validator=optional(tenant_name))
    seen_seconds: float = attrs.field(default=3600.0, validator=between(60, 90 * 86400))

    def __attrs_post_init__(self) -> None:
        """Check keys that depend on each other. Raises `Wrong`, so that each complaint has its key."""
        found: list[tuple[tuple[str, ...], str]] = []
        if not _NAME.fullmatch(self.name):
            found.append((("name",), "must be 1 to 64 letters, digits, hyphens and underscores"))
        if self.from_.broker == "-":
            found.append((("from",), "is missing: name a broker, and what is read there"))
        if self.partition_key is not None and self.order in (STRICT, NONE):
            found.append((("partition_key",), f"has no effect with order: {self.order}"))
        if found:
            raise Wrong(found)

    def client_id(self, brokers: Mapping[str, NamedBroker]) -> str:
        """What the broker knows the bridge by: that of the broker's settings, a slash and its name, unless it says."""
        own = getattr(brokers[self.from_.broker].record, "client_id", "openhqm")
        return self.from_.client_id or f"{own}/{self.name}"

    @property
    def reply_channel(self) -> ReplyChannel | None:
        """Where every reply goes, whatever its message says."""
        return self.reply if isinstance(self.reply, ReplyChannel) else None

    @property
    def allowed_replies(self) -> Sequence[str] | None:
        """What has to cover the address of a message for its reply; None: it may have any."""
        reply = self.reply_channel
        return reply.allow if reply is not None and reply.topic is None else None

    @property
    def reply_broker(self) -> str | None:
        """The broker that replies go to; None: there are none."""
        if self.reply == NONE:
            return None
        return (self.reply_channel.broker if self.reply_channel is not None else None) or self.from_.broker


def endpoints_apart(bridges: Sequence[Bridge], endpoints: Sequence[str]) -> frozenset[str]:
    """Which of ``endpoints`` have a queue for the backlog of bridges, beside the one for what comes now."""
    found: set[str] = set()
    for each in bridges:
        if each.replay.rate is not None:
            found.update(endpoints if each.endpoint is None else {each.endpoint})
    return frozenset(found)


def replies_of(broker: str) -> str:
    """The name of the endpoint, not for callers, at which replies to ``broker`` wait."""
    return f"{REPLIES}{broker}"


def unique_names(instance: object, attribute: object, value: list[Bridge]) -> None:
    """Names of bridges are unique, because sessions and logs use them."""
    names: set[str] = set()
    found: list[tuple[tuple[str, ...], str]] = []
    for index, each in enumerate(value):
        if each.name in names:
            found.append(((str(index), "name"), f"must be unique: another bridge is called {each.name}"))
        names.add(each.name)
    if found:
        raise Wrong(found)


def broker_names(instance: object, attribute: object, value: Mapping[str, NamedBroker]) -> None:
    """Names of brokers are parts of names of queues."""
    found = [((name,), "must be a name of 1 to 56 letters, digits, hyphens and underscores") for name in value]
    found = [each for each in found if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,55}", each[0][0])]
    if found:
        raise Wrong(list(found))
