# -*- test-case-name: tests.storeless.test_steps,tests.test_codec -*-
"""What a worker without a store reports to the process that accepted the request: one step in the request's life."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from openhqm.messages import DeadLetter, Reply

PROCESSING, PROGRESS, RETRYING, RELEASED, ENDED, REJECTED = (
    "processing",
    "progress",
    "retrying",
    "released",
    "ended",
    "rejected",
)
"""``REJECTED`` is about a message that is no request."""
TYPES = (PROCESSING, PROGRESS, RETRYING, RELEASED, ENDED, REJECTED)
MOST_ATTEMPTS = 2**31


@attrs.frozen
class Step:
    """A report.

    ``name`` tells it from every other step of its request: one that is reported twice is one step. ``at`` is by the
    worker's clock. ``generation`` is that of the message that is worked on, ``attempt`` the number of the attempt.

    Progress carries ``detail``, for the history. A retry carries ``reason`` and ``delay``, the seconds until the next
    attempt; it carries no body, for the process that accepted the request keeps it. An ending carries ``reply`` and,
    where the request becomes a dead letter, ``reason``. ``letter`` is the dead letter of a rejected message.
    """

    correlation_id: str
    name: str
    type: str = attrs.field(validator=attrs.validators.in_(TYPES))
    at: float
    generation: int = 0
    attempt: int = attrs.field(default=0, validator=[attrs.validators.ge(0), attrs.validators.le(MOST_ATTEMPTS)])
    detail: Mapping[str, Any] = attrs.field(factory=dict)
    delay: float = attrs.field(default=0.0, validator=attrs.validators.ge(0.0))
    reason: str | None = None
    reply: Reply | None = None
    letter: DeadLetter | None = None

    def __attrs_post_init__(self) -> None:
        if (self.type == ENDED) != (self.reply is not None) or (self.type == REJECTED) != (self.letter is not None):
            raise ValueError(f"a step {self.type!r} without what belongs to it, or with what does not")
        if self.reply is not None and self.reply.correlation_id != self.correlation_id:
            raise ValueError("a reply to another request")
