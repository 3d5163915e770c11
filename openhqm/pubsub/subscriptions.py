# -*- test-case-name: tests.pubsub.test_subscriptions,tests.pubsub.test_faults -*-
"""The topics and subscriptions that are used: made where they are missing, and looked at for what breaks a promise.

https://cloud.google.com/pubsub/docs/reference/rest/v1/projects.subscriptions has the fields of a subscription.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import attrs
import msgspec

from openhqm.errors import NotDurable
from openhqm.interfaces import ChannelMissing
from openhqm.pubsub.errors import AlreadyThere, Forbidden, Missing
from openhqm.pubsub.names import subscription_path, topic_path
from openhqm.pubsub.rest import Rest
from openhqm.runtime.deferreds import deferred

SHORTEST_DEADLINE, LONGEST_DEADLINE = 10, 600
DELETED = "_deleted-topic_"
DAY = 86400.0
DEFAULT_EXPIRATION = 31 * DAY
DEFAULT_RETENTION = 7 * DAY
MOST_DELIVERIES = 100
"""The most that a dead-letter policy may say."""


@attrs.frozen
class Wanted:
    """What a subscription of ours is made with. ``dead_letters``: a topic; then Pub/Sub counts deliveries."""

    lease: float
    retention: float = DEFAULT_RETENTION
    dead_letters: str | None = None
    own: bool = True


@attrs.frozen
class _Known:
    deadline: float | None
    fault: str | None
    warnings: Sequence[str]


class Subscriptions:
    """The channels of ``project``. What was looked at is known until `forget`."""

    def __init__(self, rest: Rest, project: str, wanted: Wanted, seconds: float) -> None:
        self._rest = rest
        self._project = project
        self._wanted = wanted
        self._seconds = seconds
        self._known: dict[str, _Known] = {}
        self._warned: dict[str, Sequence[str]] = {}
        self._refused: dict[str, str] = {}

    @property
    def warnings(self) -> Sequence[str]:
        """What of the subscriptions' own settings breaks a promise, or may."""
        return [*(each for found in self._warned.values() for each in found), *self._refused.values()]

    def forget(self) -> None:
        """Look at each once more, before it is used again."""
        self._known.clear()

    def refused(self, channel: str, reason: str | None) -> None:
        """Why the subscription could not be pulled from at last; None: it could."""
        if reason is None:
            self._refused.pop(channel, None)
        else:
            self._refused[channel] = f"the subscription {channel} cannot be pulled from: {reason}"

    @deferred
    async def make(self, channel: str) -> None:
        """The topic, and then its subscription, before anything is published: an earlier message would be lost."""
        wanted = self._wanted
        if wanted.dead_letters is not None:
            await self._put(topic_path(self._project, wanted.dead_letters), {})
        topic = topic_path(self._project, channel)
        await self._put(topic, {})
        asked: dict[str, Any] = {
            "topic": topic,
            "ackDeadlineSeconds": int(min(max(wanted.lease, SHORTEST_DEADLINE), LONGEST_DEADLINE)),
            "messageRetentionDuration": f"{wanted.retention:.0f}s",
            "expirationPolicy": {},  # never
            "enableMessageOrdering": True,
        }
        if wanted.dead_letters is not None:
            asked["deadLetterPolicy"] = {
                "deadLetterTopic": topic_path(self._project, wanted.dead_letters),
                "maxDeliveryAttempts": MOST_DELIVERIES,
            }
        await self._put(subscription_path(self._project, channel), asked)
        self._known.pop(channel, None)
        await self.check(channel)

    @deferred
    async def check(self, channel: str) -> None:
        """`ChannelMissing`; or `NotDurable` where what is published there would not come, or not in order."""
        known = self._known.get(channel)
        if known is None:
            known = await self._look(channel)
        if known.fault is not None:
            raise NotDurable(known.fault)

    @deferred
    async def look(self, channel: str) -> None:
        """Look now whether topic and subscription are there. `ChannelMissing`."""
        await self._look(channel)
        if self._wanted.own:
            with suppress(Forbidden):
                await self._get(topic_path(self._project, channel), channel)

    @deferred
    async def deadline(self, channel: str) -> float | None:
        """For how many seconds a delivery of the subscription stays out where nothing is said; None: not known."""
        known = self._known.get(channel)
        if known is None:
            known = await self._look(channel)
        if known.fault is not None:
            raise NotDurable(known.fault)
        return known.deadline

    async def _look(self, channel: str) -> _Known:
        try:
            found = await self._get(subscription_path(self._project, channel), channel)
        except Forbidden as error:
            warning = f"the account may not look at the subscription {channel}: {error.reason}"
            known = _Known(None, None, [warning])
        else:
            fault, warnings = judge(channel, found, self._wanted, topic_path(self._project, channel))
            known = _Known(float(found.get("ackDeadlineSeconds") or SHORTEST_DEADLINE), fault, warnings)
        self._known[channel] = known
        self._warned[channel] = [*known.warnings, *(() if known.fault is None else (known.fault,))]
        return known

    async def _get(self, path: str, channel: str) -> dict[str, Any]:
        try:
            answer = await self._rest.call("GET", path, "", None, self._seconds)
        except Missing:
            self._known.pop(channel, None)
            self._warned.pop(channel, None)
            raise ChannelMissing(channel) from None
        return msgspec.json.decode(answer, type=dict[str, Any])

    async def _put(self, path: str, asked: dict[str, Any]) -> None:
        with suppress(AlreadyThere):
            await self._rest.call("PUT", path, "", msgspec.json.encode(asked), self._seconds)


def judge(channel: str, found: dict[str, Any], wanted: Wanted, topic: str) -> tuple[str | None, Sequence[str]]:
    """Why the subscription cannot be used, or None; and what an operator should know about it."""
    name = f"the subscription {channel}"
    return _fault(name, found, wanted, topic), list(_warnings(name, found, wanted))


def _fault(name: str, found: dict[str, Any], wanted: Wanted, topic: str) -> str | None:
    of = str(found.get("topic", ""))
    if of == DELETED:
        return f"{name} has no topic, because that was deleted: nothing comes any more. Delete it, and make both again"
    for kind, key in (("pushConfig", "pushEndpoint"), ("bigqueryConfig", "table"), ("cloudStorageConfig", "bucket")):
        if (found.get(kind) or {}).get(key):
            return f"{name} delivers by {kind}, and cannot be pulled from"
    if found.get("detached"):
        return f"{name} is detached from its topic: nothing comes any more"
    if not wanted.own:
        return None
    if of != topic:
        return f"{name} is of {of}, and not of {topic}: what is published there does not come"
    if found.get("filter"):
        return f"{name} has a filter: what that leaves out would be lost"
    if not found.get("enableMessageOrdering"):
        return f"{name} does not keep the order of messages (enableMessageOrdering): make another"
    return None


def _warnings(name: str, found: dict[str, Any], wanted: Wanted) -> Any:
    expiration = found.get("expirationPolicy")
    ttl = DEFAULT_EXPIRATION if expiration is None else seconds_of(expiration.get("ttl"))
    if ttl:
        yield (
            f"{name} expires after {ttl / DAY:g} days without a reader, and its messages with it: "
            "let it never expire (expirationPolicy)"
        )
    retention = seconds_of(found.get("messageRetentionDuration")) or DEFAULT_RETENTION
    if retention < wanted.retention:
        yield (
            f"{name} keeps a message for {retention / DAY:g} days, and not for {wanted.retention / DAY:g}: "
            "raise its messageRetentionDuration"
        )
    policy = found.get("deadLetterPolicy") or {}
    if policy and policy.get("maxDeliveryAttempts", MOST_DELIVERIES) < MOST_DELIVERIES and wanted.own:
        yield (
            f"{name} moves a message away after {policy.get('maxDeliveryAttempts')} deliveries, which OpenHQM does not "
            f"see: say {MOST_DELIVERIES} in its dead-letter policy"
        )
    if not policy and wanted.dead_letters is not None:
        yield f"{name} has no dead-letter policy, so that Pub/Sub counts no deliveries: workers without a store need it"
    if found.get("enableExactlyOnceDelivery"):
        yield f"{name} has exactly-once delivery, which costs time and adds nothing here"


def seconds_of(duration: Any) -> float:
    """The seconds of a duration as ``"600s"``; 0 where there is none."""
    text = str(duration or "0").removesuffix("s")
    try:
        return float(text)
    except ValueError:
        return 0.0
