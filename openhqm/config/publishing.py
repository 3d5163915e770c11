# -*- test-case-name: tests.config.test_bridges -*-
"""The configuration of an endpoint that is a channel of a broker: requests are published there."""

from __future__ import annotations

import re

import attrs
from attrs.validators import optional

from openhqm.config.validators import between, not_empty
from openhqm.policy.text_templates import TextTemplate

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}")
LONGEST_EXCHANGE = 255


def _template(instance: object, attribute: object, value: str) -> None:
    TextTemplate(value)


def _headers(instance: object, attribute: object, value: dict[str, str]) -> None:
    for name, text in value.items():
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a header name")
        try:
            TextTemplate(text)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None


def _exchange(instance: object, attribute: object, value: str) -> None:
    if not 0 < len(value.encode()) <= LONGEST_EXCHANGE:
        raise ValueError(f"must have 1 to {LONGEST_EXCHANGE} bytes")


@attrs.frozen
class Publish:
    """Where a request is published. ``exchange``, ``key``, ``qos``, ``retain`` and ``expiry`` (in seconds) are for
    brokers that have them. ``exchange`` None: ``topic`` is the queue, and else the routing key.
    """

    broker: str = attrs.field(default="", validator=not_empty)
    topic: str = attrs.field(default="", validator=[not_empty, _template])
    headers: dict[str, str] = attrs.field(factory=dict, validator=_headers)
    exchange: str | None = attrs.field(default=None, validator=optional(_exchange))
    key: str | None = attrs.field(default=None, validator=optional(_template))
    qos: int = attrs.field(default=1, validator=between(0, 2))
    retain: bool = False
    expiry: int | None = attrs.field(default=None, validator=optional(between(1, 0xFFFF_FFFF)))


@attrs.frozen
class Answer:
    """The answer that a published request waits for, ``timeout`` seconds. ``topic`` None: one of our own."""

    topic: str | None = attrs.field(default=None, validator=optional(_template))
    timeout: float = attrs.field(default=10.0, validator=between(0.001, 86400))
