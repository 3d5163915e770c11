# -*- test-case-name: tests.sqs.test_settings -*-
"""What an operator decides about SQS, and what of it does not go together."""

from __future__ import annotations

import re

import attrs
from attrs.validators import optional

from openhqm.config.model import Settings, short_form
from openhqm.config.validators import between, not_empty
from openhqm.policy.queue_names import queue_name
from openhqm.sqs.names import DOT, FIFO, LONGEST_NAME, is_fifo, is_url, queue_fault, queue_of

PREFIX = "openhqm-"
_PREFIX = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_REGION = re.compile(r"[a-z0-9-]{1,40}\Z")
_ENDPOINT = re.compile(r"https?://[^/@\s]+/?\Z")


def _region(instance: object, attribute: object, value: str | None) -> None:
    if value is not None and not _REGION.match(value):
        raise ValueError(f"{value!r} is not a region: write it as us-east-1")


def _endpoint(instance: object, attribute: object, value: str | None) -> None:
    if value is not None and not _ENDPOINT.match(value):
        raise ValueError("must be a URL without a path and without a password: https://sqs.eu-west-1.amazonaws.com")


@attrs.frozen
class SqsSettings:
    """Where SQS is, and what our queues are called. Credentials are found by boto3's own chain.

    ``region`` None: as ``AWS_REGION`` or the profile say. ``endpoint_url`` stands in for the region's own, behind a
    VPC endpoint, say. A queue that is missing is made, and its name begins with ``prefix``; None: `PREFIX`, unless
    ``queue_url`` names the one queue in which requests wait. ``fifo``: queues are FIFO queues. ``timeout_seconds`` is
    how long an answer may take. ``lost_after_seconds`` is how long an account that has none of our queues is not
    believed, before requests whose only message was there end.
    """

    region: str | None = attrs.field(default=None, validator=_region, metadata=short_form("sqs_region"))
    queue_url: str | None = attrs.field(default=None, metadata=short_form("sqs_queue_url"))
    prefix: str | None = attrs.field(default=None, validator=optional(not_empty))
    fifo: bool = False
    endpoint_url: str | None = attrs.field(default=None, validator=_endpoint)
    timeout_seconds: float = attrs.field(default=5.0, validator=between(0.5, 300))
    lost_after_seconds: float = attrs.field(default=60.0, validator=between(0, 366 * 86400))

    @property
    def names_begin_with(self) -> str | None:
        """What the names of our queues begin with; None: there is one queue, which ``queue_url`` names."""
        return self.prefix or (None if self.queue_url else PREFIX)


def check(settings: Settings) -> list[tuple[str, str]]:
    """What does not go together where the queue is in SQS: each key with the reason."""
    ours = settings.queue.of(SqsSettings)

    def key(name: str) -> str:
        return settings.queue.key(SqsSettings, name)

    found = []
    prefix = ours.names_begin_with
    if prefix is not None and not _PREFIX.match(prefix):
        found.append((key("prefix"), "is part of the name of a queue, which has letters, digits, '-' and '_' alone"))
    elif prefix is not None:
        found += _about_names(settings, prefix, ours.fifo, key("prefix"))
    if not ours.queue_url:
        return found
    if not is_url(ours.queue_url) or (fault := queue_fault(ours.queue_url)) is not None:
        fault = queue_fault(ours.queue_url) if is_url(ours.queue_url) else "is not a URL: it begins with https://"
        found.append((key("queue_url"), fault or ""))
    elif is_fifo(ours.queue_url) != ours.fifo:
        kind = "a FIFO" if is_fifo(ours.queue_url) else "a standard"
        found.append((key("fifo"), f"must be {str(not ours.fifo).lower()}: {key('queue_url')} is {kind} queue"))
    if ours.prefix is None:
        if len({in_name for in_name, _, _ in settings.addressing().lanes()}) > 1:
            reason = f"names one queue, and each endpoint has its own: set {key('prefix')}, or leave this out"
            found.append((key("queue_url"), reason))
        elif settings.queue.priorities is not None and len(settings.queue.priorities) > 1:
            found.append(("queue.priorities", f"has a queue for each: set {key('prefix')}, which they are made with"))
    return found


def _about_names(settings: Settings, prefix: str, fifo: bool, key: str) -> list[tuple[str, str]]:
    requests = settings.queue.request_queue
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", requests):
        return [("queue.request_queue", "is part of the name of a queue: letters, digits, '.', '-' and '_' alone")]
    found = []
    for in_name in sorted({in_name or "" for in_name, _, _ in settings.addressing().lanes()}):
        channel = prefix + queue_name(requests, in_name or None)
        longest = queue_of(f"{channel}._normal", fifo)
        if DOT in channel:
            reason = f"make {channel!r}, in which {DOT!r} stands for a dot in SQS: use another name"
            found.append((f"proxy.endpoints.{in_name}" if in_name else key, reason))
        elif len(longest) > LONGEST_NAME:
            reason = f"makes the name {longest}, and SQS takes {LONGEST_NAME} characters, with {FIFO}"
            found.append((f"proxy.endpoints.{in_name}" if in_name else key, reason))
    return found
