# -*- test-case-name: tests.ingress.test_unavailable -*-
"""Logs why submissions are not accepted: each reason when it first occurs, and then at most every ten seconds.

The caller is not told the reason, because it may name hosts behind this gateway.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

PAUSE_SECONDS = 10.0
MOST_REASONS = 20


class Unavailable:
    """Logs each reason at most every `PAUSE_SECONDS`. A metric counts how often it occurs."""

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._logged_at: dict[str, float] = {}

    def note(self, reason: str) -> None:
        """Log that a submission was answered with 503 because of ``reason``."""
        now = self._clock.seconds()
        logged_at = self._logged_at.get(reason)
        if logged_at is not None and now - logged_at < PAUSE_SECONDS:
            return
        if len(self._logged_at) >= MOST_REASONS:
            self._logged_at = {reason: at for reason, at in self._logged_at.items() if now - at < PAUSE_SECONDS}
            if len(self._logged_at) >= MOST_REASONS:
                return
        self._logged_at[reason] = now
        self._log.warn("a submission was not accepted (503): {reason}", reason=reason)
