# -*- test-case-name: tests.policy.test_retry -*-
"""When to try again: exponential back-off with jitter and a cap, and when to stop."""

from __future__ import annotations

from collections.abc import Callable

import attrs


@attrs.frozen
class RetryPolicy:
    """``max_retries`` more attempts after the first, ``base_seconds * factor**n`` apart.

    ``jitter`` is the share by which a delay may be longer or shorter, so that requests that failed
    together do not come back together.
    """

    max_retries: int = 3
    base_seconds: float = 1.0
    factor: float = 2.0
    max_seconds: float = 60.0
    jitter: float = 0.1

    def exhausted(self, attempt: int) -> bool:
        """Whether attempt number ``attempt`` (from 1) was the last one allowed."""
        return attempt > self.max_retries

    def delay(self, attempt: int, random: Callable[[], float]) -> float:
        """Seconds to wait after attempt number ``attempt`` failed; ``random`` gives numbers in [0, 1)."""
        try:
            delay = min(self.max_seconds, self.base_seconds * self.factor ** (attempt - 1))
        except OverflowError:  # 2.0**5000 is no large number, it is an error
            delay = self.max_seconds if self.base_seconds else 0.0
        return delay * (1 + self.jitter * (2 * random() - 1))
