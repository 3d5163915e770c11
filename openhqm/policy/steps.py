# -*- test-case-name: tests.test_codec -*-
"""What a worker without a store tells whoever keeps the books: one step in the life of a request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from openhqm.messages import DeadLetter, Reply

PROCESSING, PROGRESS, RETRYING, ENDED, BURIED = "processing", "progress", "retrying", "ended", "buried"
"""``BURIED`` is about a message that is no request of anybody's."""


@attrs.frozen
class Step:
    """``name`` tells it from every other step of its request: one that is told twice is one step.

    ``detail`` is what the history says of it. An ending carries the reply and, where the request rests in the dead
    letters from now on, the reason. ``letter`` is what is buried.
    """

    correlation_id: str
    name: str
    type: str = attrs.field(validator=attrs.validators.in_((PROCESSING, PROGRESS, RETRYING, ENDED, BURIED)))
    at: float
    detail: Mapping[str, Any] = attrs.field(factory=dict)
    reply: Reply | None = None
    reason: str | None = None
    letter: DeadLetter | None = None

    def __attrs_post_init__(self) -> None:
        if (self.type == ENDED) != (self.reply is not None) or (self.type == BURIED) != (self.letter is not None):
            raise ValueError(f"a step {self.type!r} without what belongs to it, or with what does not")
        if self.reply is not None and self.reply.correlation_id != self.correlation_id:
            raise ValueError("a reply to another request")
