# -*- test-case-name: tests.config.test_config -*-
"""What an operator decides about Redis, and what of it does not go together."""

from __future__ import annotations

import attrs

from openhqm.config.model import Settings, short_form
from openhqm.config.validators import between, not_empty
from openhqm.redis.address import parse_address


def _url(instance: object, attribute: object, value: str) -> None:
    parse_address(value)


@attrs.frozen
class RedisSettings:
    """Where Redis is, or the Sentinels that know it.

    ``url``: see `openhqm.redis.address`. ``key_prefix`` is what all of our keys begin with. ``timeout_seconds`` is how
    long Redis may take to answer.
    """

    url: str = attrs.field(
        default="redis://localhost:6379/0", repr=False, validator=_url, metadata=short_form("redis_url")
    )
    key_prefix: str = attrs.field(default="{openhqm}:", validator=not_empty)
    timeout_seconds: float = attrs.field(default=1.5, validator=between(0.1, 60))


def check(settings: Settings) -> list[tuple[str, str]]:
    """What does not go together where the queue is in Redis: each key with the reason."""
    name, prefix = settings.queue.response_queue, settings.queue.of(RedisSettings).key_prefix
    if name is not None and name.startswith(prefix):
        return [("queue.response_queue", f"must not begin with {prefix}: streams of that name are read here")]
    return []
