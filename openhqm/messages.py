# -*- test-case-name: tests.test_messages -*-
"""The values that travel through the system: submissions, requests, events and replies. All are frozen and valid.

Times are seconds since the epoch, as floats. Payloads and results are JSON *text* (bytes), unchanged: big numbers, the
order of keys and white space survive, and no step has to parse them.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec


class Status(enum.Enum):
    """The status of a request: PENDING, PROCESSING, then exactly one of the four endings."""

    PENDING = "PENDING"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    TIMEOUT = "TIMEOUT"
    CANCELLED = "CANCELLED"

    __hash__ = object.__hash__  # each member exists once, and Enum's own hash is slow Python code

    @property
    def ended(self) -> bool:
        """Whether this is an ending."""
        return self not in (Status.PENDING, Status.PROCESSING)


class Priority(enum.Enum):
    """Requests of a higher priority are handled first. Within one priority, the oldest is."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"

    __hash__ = object.__hash__


class Coalescing(msgspec.Struct, frozen=True):
    """That a request takes the place of an earlier one with the same ``key`` that has not begun.

    The request begins ``window`` seconds after it was accepted, or ``most`` seconds after the first one whose place was
    taken, if that is earlier. Keys of different ``scope`` are different keys.
    """

    key: str
    window: float
    most: float
    scope: str = ""


class Submission(msgspec.Struct, frozen=True):
    """What a caller asked for, parsed and checked, before it has an id.

    ``payload`` is JSON text. ``body`` holds content that is not JSON; the payload is then ``null``. ``metadata`` is all
    of the caller's metadata; the attributes beside it are what the gateway acts on. ``timeout`` is the deadline of the
    whole request in seconds from its acceptance (None: no deadline of its own). ``not_before`` is the time before which
    no attempt begins, or None.

    ``endpoint`` and ``partition`` determine the queue in which the request waits (`policy.queue_names`): None is the
    queue shared by all requests without an endpoint or a partition. ``reply_to`` names a stream of the broker that gets
    a copy of the reply; only a message of that broker can ask for it.

    ``tenant`` is on whose behalf the caller asks, ``tags`` are words to find the request by. ``parent_reply`` is the
    reply of the request that this one follows up (`IMessageQueue.accept`), once that has ended; ``transform`` is the
    template that makes the payload from it, where this is a step of a chain. Where not ``keeps_result``, no caller asks
    for what a completed one results in: its reply has the status alone. ``share`` is the tenant whose share of the
    workers it waits for, in a queue beside that of its endpoint; None: it waits there.

    ``coalescing`` is for the step that accepts the request, which sets ``not_before``. It is not stored.
    """

    payload: bytes
    headers: Mapping[str, str] = {}
    metadata: Mapping[str, Any] = {}
    priority: Priority = Priority.NORMAL
    timeout: float | None = None
    not_before: float | None = None
    body: bytes | None = None
    endpoint: str | None = None
    partition: int | None = None
    reply_to: str | None = None
    tenant: str | None = None
    tags: tuple[str, ...] = ()
    parent_reply: Reply | None = None
    keeps_result: bool = True
    transform: str | None = None
    share: str | None = None
    coalescing: Coalescing | None = None


class Child(msgspec.Struct, frozen=True):
    """A step of a request that consists of steps, which is its parent.

    ``stage`` counts from 1. The steps of one stage are worked on together; those of the next one begin once all of
    them have completed, with what that stage results in as their ``parent_reply``. ``joined``: that is a list of the
    results of its steps, in order. Else it has one step, and it is that one's reply. ``name`` says to a person what the
    step is.
    """

    submission: Submission
    stage: int = 1
    name: str = ""
    joined: bool = False


class ChildState(msgspec.Struct, frozen=True):
    """What is known of a step: see `Child`. Where not ``begun``, it is held back behind those of earlier stages.

    ``size``: how many bytes of its reply are kept for the next stage, where that was asked for.
    """

    correlation_id: str
    stage: int
    name: str
    status: Status = Status.PENDING
    joined: bool = False
    begun: bool = False
    size: int = 0


class Request(msgspec.Struct, frozen=True):
    """A submission that was accepted: it has an id, and ends exactly once."""

    correlation_id: str
    submitted_at: float
    submission: Submission

    @property
    def deadline(self) -> float | None:
        """When the request ends with TIMEOUT, if it has not ended before. None: it has no deadline."""
        timeout = self.submission.timeout
        return None if timeout is None else self.submitted_at + timeout


class IdempotencyClaim(msgspec.Struct, frozen=True):
    """A caller's claim that repeated submissions under ``key`` are the same request.

    ``fingerprint`` is a digest of the submission, ``lifetime`` is in seconds. Keys of different ``scope`` are different
    keys. ``repeats_only``: what is no repeat is not accepted now (`QueueFull`).
    """

    key: str
    fingerprint: bytes
    lifetime: float = 24 * 3600.0
    scope: str = ""
    repeats_only: bool = False


class Acceptance(msgspec.Struct, frozen=True):
    """The answer to a durable submission: its id, when it was accepted, and whether an earlier one had the same key.

    ``follow_ups`` are the ids of its follow-ups; a repeat does not name them.
    """

    correlation_id: str
    submitted_at: float
    replayed: bool = False
    follow_ups: tuple[str, ...] = ()


class Reply(msgspec.Struct, frozen=True):
    """How a request ended.

    ``result`` is JSON text, or None; ``body`` holds the bytes of a reply that is not JSON. ``status_code`` and
    ``headers`` are those with which the raw body is served. ``error`` says to a person why it did not complete,
    ``reason_class`` in one word to a program, where it is known: ``overflow``, ``expired``, ``superseded``.
    ``superseded_by`` is the id of the request that has taken the place of this one.
    """

    correlation_id: str
    status: Status
    completed_at: float
    result: bytes | None = None
    body: bytes | None = None
    status_code: int = 200
    headers: Mapping[str, str] = {}
    error: str | None = None
    attempt: int = 0
    processing_time_ms: int = 0
    reason_class: str | None = None
    superseded_by: str | None = None

    def __post_init__(self) -> None:
        if not self.status.ended:
            raise ValueError(f"the status of a reply must be an ending, not {self.status.value}")


class DeadLetter(msgspec.Struct, frozen=True):
    """A request that failed for good: the reason, and the last reply.

    ``first_attempt_at`` and ``last_attempt_at`` are when its attempts began, by the clock of the store; None: there was
    none. The step that ends the request sets them.
    """

    request: Request
    reason: str
    reply: Reply
    at: float
    first_attempt_at: float | None = None
    last_attempt_at: float | None = None


class Event(msgspec.Struct, frozen=True):
    """One step in the life of a request. ``number`` counts from 1 without gaps, for each request.

    ``type`` is pending, processing, progress, retrying, or the ending in lower case. An ending carries its reply.
    """

    number: int
    type: str
    at: float
    detail: Mapping[str, Any] = {}
    reply: Reply | None = None


class Record(msgspec.Struct, frozen=True):
    """Everything that is known of a request now.

    ``tenant`` is on whose behalf it was submitted; None: it has none. ``children`` are its steps, where it consists of
    some.
    """

    correlation_id: str
    status: Status
    submitted_at: float
    updated_at: float
    attempt: int = 0
    next_attempt_at: float | None = None
    reply: Reply | None = None
    expires_at: float | None = None
    tenant: str | None = None
    children: tuple[ChildState, ...] = ()


class Depth(msgspec.Struct, frozen=True):
    """The number of messages in a queue: ready to be received, delayed, and delivered but not settled.

    ``oldest`` is when the oldest ready message was published, or None.
    """

    ready: int
    delayed: int
    in_flight: int
    oldest: float | None = None


class Waiting(msgspec.Struct, frozen=True):
    """The requests of one priority that wait in a queue for their first attempt: how many, and since when the first.

    ``since`` is None where none waits, and where that is not known.
    """

    count: int
    since: float | None = None


class Load(msgspec.Struct, frozen=True):
    """The requests that have not ended: how many there are, and the bytes of their envelopes."""

    requests: int
    bytes: int


class LoggedEnding(msgspec.Struct, frozen=True):
    """An ending as the log of endings has it: its number there, of which request, and when it was written down."""

    number: int
    correlation_id: str
    status: Status
    at: float
    tags: tuple[str, ...] = ()
    tenant: str | None = None


class LogPage(msgspec.Struct, frozen=True):
    """A piece of the log of endings.

    ``first`` is the number of the oldest ending that is kept, and ``last`` that of the newest; where there is none,
    ``first`` is the number of the next one. ``name`` is empty where the log is not kept. Endings of logs with different
    names have nothing to do with each other.
    """

    name: str
    first: int
    last: int
    endings: Sequence[LoggedEnding] = ()

    def follows(self, name: str, after: int) -> bool:
        """Whether a reader that knows all of the log ``name`` up to the number ``after`` has missed nothing."""
        return bool(name) and self.name == name and self.first - 1 <= after <= self.last
