# -*- test-case-name: tests.config.test_callbacks -*-
"""What an operator decides about callbacks."""

from __future__ import annotations

import attrs

from openhqm.config.structure import SECRET
from openhqm.config.validators import between
from openhqm.errors import DestinationRefused
from openhqm.policy.destinations import DestinationPolicy
from openhqm.policy.retry import Schedule
from openhqm.policy.webhooks import read_secret

MOST_SECRETS = 5
MOST_ATTEMPTS = 100
A_MONTH = 30 * 86400.0


def _secrets(instance: object, attribute: object, value: list[str]) -> None:
    if len(value) > MOST_SECRETS:
        raise ValueError(f"must be at most {MOST_SECRETS}: each callback has a signature by each of them")
    for each in value:
        read_secret(each)


def _allow(instance: object, attribute: object, value: list[str]) -> None:
    try:
        _policy(value)
    except DestinationRefused as refused:
        raise ValueError(f"has an origin that is none: {refused.reason}") from None


def _schedule(instance: object, attribute: object, value: list[float]) -> None:
    if len(value) >= MOST_ATTEMPTS or not all(0 <= each <= A_MONTH for each in value):
        raise ValueError(f"must be at most {MOST_ATTEMPTS - 1} numbers of seconds, each at most {A_MONTH:.0f}")


def _channels(instance: object, attribute: object, value: dict[str, list[str]]) -> None:
    for broker, topics in value.items():
        if not topics or not all(topics) or any("*" in each[:-1] for each in topics):
            raise ValueError(f"{broker}: must be topics, in which a * may stand at the end alone")


def _policy(allow: list[str]) -> DestinationPolicy:
    origins = [each for each in allow if "://" in each]
    return DestinationPolicy(allow=[each for each in allow if "://" not in each], origins=origins)


@attrs.frozen
class CallbackSettings:
    """Callbacks are sent where there are ``secrets`` to sign them with; each has a signature by each secret.

    ``allow`` are networks, host names and origins that may be called although they are not public; an origin also
    without https and at any port. ``schedule`` has the seconds between one attempt and the next, and so their number.
    ``channels`` has, for brokers of ``brokers``, the topics that ``metadata.reply_to`` may name: they need no secret.
    ``timeout`` is how long the answer to one may take, and ``max_in_flight`` how many are under way at once.
    """

    enabled: bool = True
    secrets: list[str] = attrs.field(factory=list, validator=_secrets, repr=False, metadata=SECRET)
    allow: list[str] = attrs.field(factory=list, validator=_allow)
    schedule: list[float] = attrs.field(
        factory=lambda: [5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 36000.0], validator=_schedule
    )
    timeout: float = attrs.field(default=15.0, validator=between(0.001, 300))
    max_in_flight: int = attrs.field(default=50, validator=between(1, 10_000))

    channels: dict[str, list[str]] = attrs.field(factory=dict, validator=_channels)

    @property
    def reply_topics(self) -> dict[str, list[str]]:
        """The topics that requests may name for their replies, by their broker."""
        return self.channels if self.enabled else {}

    @property
    def sends(self) -> bool:
        """Whether callbacks are sent."""
        return self.enabled and bool(self.secrets)

    @property
    def keys(self) -> list[bytes]:
        """The secrets as bytes."""
        return [read_secret(each) for each in self.secrets]

    def policy(self) -> DestinationPolicy:
        """Which URLs may be called."""
        return _policy(self.allow)

    @property
    def retries(self) -> Schedule:
        """When an attempt is repeated."""
        return Schedule(tuple(self.schedule))
