# -*- test-case-name: tests.ingress.test_unavailable -*-
"""Why submissions are not accepted, for whoever reads the log: each reason when it comes up, and then now and then.

The caller is not told more than to come again, for a reason may name what is behind this server.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

PAUSE_SECONDS = 10.0
MOST_REASONS = 20


class Unavailable:
    """Says each reason at most every ten seconds; how often it came up is counted elsewhere."""

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._said: dict[str, float] = {}

    def note(self, reason: str) -> None:
        """A submission was answered with 503."""
        now = self._clock.seconds()
        said = self._said.get(reason)
        if said is not None and now - said < PAUSE_SECONDS:
            return
        if len(self._said) >= MOST_REASONS:
            self._said = {reason: at for reason, at in self._said.items() if now - at < PAUSE_SECONDS}
            if len(self._said) >= MOST_REASONS:
                return
        self._said[reason] = now
        self._log.warn("a submission was not accepted (503): {reason}", reason=reason)
