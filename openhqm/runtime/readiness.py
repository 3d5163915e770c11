# -*- test-case-name: tests.runtime.test_systemd -*-
"""Says that the process is ready when it is, and until then what it waits for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

LOOK_SECONDS = 0.2


class Readiness:
    """``reason`` returns what keeps the process from its work, or None; then ``ready`` is called, once."""

    _log = Logger()

    def __init__(self, clock: Any, reason: Callable[[], str | None], ready: Callable[[], None]) -> None:
        self._clock = clock
        self._reason = reason
        self._ready = ready
        self._said: str | None = None
        self._timer: Any = None

    def start(self) -> None:
        """Look now, and again until nothing is waited for."""
        self._timer = None
        reason = self._reason()
        if reason is None:
            self._ready()
            return
        if reason != self._said:
            self._said = reason
            self._log.info("openhqm has started, and is not ready yet: {reason}", reason=reason)
        self._timer = self._clock.callLater(LOOK_SECONDS, self.start)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
