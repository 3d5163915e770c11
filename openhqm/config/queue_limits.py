# -*- test-case-name: tests.config.test_config -*-
"""What a queue takes: `queue.limits`."""

from __future__ import annotations

import attrs
from attrs.validators import optional

from openhqm.config.validators import between, one_of
from openhqm.policy.limits import Limits


@attrs.frozen
class QueueLimits:
    """The most that a queue takes; None: no limit. ``bytes`` are those of the envelopes.

    ``age_seconds`` is how long a request may wait for its first attempt. ``dead_letters`` is how many of those are
    kept, and ``dead_letter_seconds`` for how long. ``shed_waiting`` and ``shed_seconds`` are how many requests may wait
    in one queue, and for how long the first of them, before it takes no more.
    """

    requests: int | None = attrs.field(default=None, validator=optional(between(1, 10**12)))
    bytes: int | None = attrs.field(default=None, validator=optional(between(1, 1 << 50)))
    age_seconds: float | None = attrs.field(default=None, validator=optional(between(1, 10 * 365 * 86400)))
    overflow: str = attrs.field(default="refuse", validator=one_of(("refuse", "drop_oldest")))
    dead_letters: int | None = attrs.field(default=None, validator=optional(between(1, 10**12)))
    dead_letter_seconds: float | None = attrs.field(default=None, validator=optional(between(1, 10 * 365 * 86400)))
    shed_waiting: int | None = attrs.field(default=None, validator=optional(between(1, 10**12)))
    shed_seconds: float | None = attrs.field(default=None, validator=optional(between(0.1, 10 * 365 * 86400)))

    @property
    def limits(self) -> Limits:
        """The limits these settings describe."""
        drop_oldest = self.overflow == "drop_oldest"
        return Limits(
            self.requests,
            self.bytes,
            drop_oldest,
            self.dead_letters,
            self.dead_letter_seconds,
            self.age_seconds,
            self.shed_waiting,
            self.shed_seconds,
        )
