# -*- test-case-name: tests.test_check_report -*-
"""What ``--check`` prints: what the queue can and cannot promise, in plain words."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from openhqm import __version__
from openhqm.backends import PRODUCTS
from openhqm.config.guarantees import guarantees
from openhqm.config.model import Settings
from openhqm.interfaces import QueueTraits
from openhqm.queue.backend import Backend

WORDS: Mapping[str, str] = {
    "durable": "durable: a 202 survives a crash and a power cut",
    "ordered": "ordered: within one priority, the oldest request is delivered first",
    "atomic_settle": "one step: a reply and the end of its request are stored together",
    "largest_message": "largest message, in bytes (413 for a longer one)",
    "tells_oldest": "oldest request: it is known since when it waits",
    "tells_shares": "tenants: fair shares of all that waits, and not of what is prefetched alone",
}
"""A line for each trait of a queue."""
BROKER_WORDS: Mapping[str, str] = {
    "durable": "confirmed messages survive a restart of the broker",
    "acks": "an acknowledgement is for",
    "lease_seconds": "lease of a delivery, in seconds",
    "longest_lease_seconds": "longest lease with all extensions, in seconds",
    "requeues": "a delivery can be requeued",
    "counts_redeliveries": "redeliveries are counted (workers without a store need that)",
    "keeps": "messages that a channel keeps",
    "largest_message": "largest body, in bytes",
    "largest_batch": "messages in one publish",
    "in_order": "a channel is delivered in the order of publishing",
    "native_partitions": "messages with the same key stay in order",
    "competing_consumers": "several consumers share a channel",
    "makes_channels": "missing channels are made",
    "most_channels": "channels that there can be",
    "depth": "the depth of a channel is",
}
"""A line for each trait of a broker."""


def report(settings: Settings, backend: Backend, warnings: Sequence[str]) -> list[str]:
    """The lines to print about a backend that was opened and works. ``warnings`` are those besides the queue's own."""
    return [
        f"openhqm {__version__}: the configuration is sound",
        f"queue.type {settings.queue.type}",
        *(f"  {line}" for line in describe(backend.queue.traits, bool(backend.queue.warnings))),
        *(f"  {line}" for line in guarantees(settings, PRODUCTS, backend.queue.traits)),
        *(f"  {line}" for line in _channels(backend)),
        *(f"  broker: {line}" for line in _broker(backend)),
        *(f"  note: {warning}" for warning in (*backend.queue.warnings, *warnings)),
    ]


def describe(traits: QueueTraits, noted: bool = False) -> list[str]:
    """A line for each trait. ``noted``: the queue has warnings, which limit what it keeps."""
    lines = _lines(traits, WORDS)
    yes = f"{WORDS['durable']}: yes"
    return [f"{line}, but see the notes" if noted and line == yes else line for line in lines]


def _broker(backend: Backend) -> list[str]:
    return [] if backend.broker is None else _lines(backend.broker.traits, BROKER_WORDS)


def _lines(traits: Any, words: Mapping[str, str]) -> list[str]:
    return [f"{words[field.name]}: {_shown(getattr(traits, field.name))}" for field in attrs.fields(type(traits))]


def _shown(value: Any) -> str:
    if value is None:
        return "no limit"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value.value if isinstance(value, enum.Enum) else value)


def _channels(backend: Backend) -> list[str]:
    if backend.channels is None:
        return []
    count = backend.channels()
    most = "no limit that matters" if count.most is None else f"at most {count.most}"
    return [f"channels: {count}; the broker has {most}"]
