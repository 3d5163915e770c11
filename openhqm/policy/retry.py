# -*- test-case-name: tests.policy.test_retry -*-
"""When an attempt is repeated: after an exponential back-off up to a number of retries, or by a schedule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import attrs


class Retries(Protocol):
    """When an attempt is repeated, and how often."""

    @property
    def max_retries(self) -> int:
        """How many attempts may follow the first."""

    def exhausted(self, attempt: int) -> bool:
        """Whether attempt number ``attempt`` (from 1) was the last one allowed."""

    def delay(self, attempt: int, random: Callable[[], float]) -> float:
        """Seconds to wait after attempt number ``attempt`` failed. ``random`` returns numbers in [0, 1)."""


@attrs.frozen
class RetryPolicy:
    """``max_retries`` retries after the first attempt, ``base_seconds * factor**n`` apart, at most ``max_seconds``.

    ``jitter`` is the share by which a delay may be longer or shorter, so that requests that failed together are not
    retried together.
    """

    max_retries: int = 3
    base_seconds: float = 1.0
    factor: float = 2.0
    max_seconds: float = 60.0
    jitter: float = 0.1

    def exhausted(self, attempt: int) -> bool:
        return attempt > self.max_retries

    def delay(self, attempt: int, random: Callable[[], float]) -> float:
        try:
            delay = min(self.max_seconds, self.base_seconds * self.factor ** (attempt - 1))
        except OverflowError:  # a float power raises where the result is too large
            delay = self.max_seconds if self.base_seconds else 0.0
        return delay * (1 + self.jitter * (2 * random() - 1))


@attrs.frozen
class Schedule:
    """``seconds`` are those between one attempt and the next. ``jitter`` is the share by which each may differ."""

    seconds: tuple[float, ...]
    jitter: float = 0.1

    @property
    def max_retries(self) -> int:
        return len(self.seconds)

    def exhausted(self, attempt: int) -> bool:
        return attempt > len(self.seconds)

    def delay(self, attempt: int, random: Callable[[], float]) -> float:
        return self.seconds[attempt - 1] * (1 + self.jitter * (2 * random() - 1))
