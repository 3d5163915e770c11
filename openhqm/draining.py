# -*- test-case-name: tests.test_draining -*-
"""What a process that stops still waits for, told to the log."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

TELL_SECONDS = 5.0


class DrainLog:
    """Counts what is not finished while the process stops: at once, and then every `TELL_SECONDS`.

    ``working`` returns how many requests are worked on, and ``serving`` how many connections are being served.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime, working: Callable[[], int], serving: Callable[[], int]) -> None:
        self._clock = clock
        self._working = working
        self._serving = serving
        self._due = 0.0
        self._telling = LoopingCall(self._tell)
        self._telling.clock = clock

    def start(self, seconds: float) -> None:
        """Begin: the process waits for at most ``seconds``."""
        self._due = self._clock.seconds() + seconds
        self._telling.start(TELL_SECONDS)

    def stop(self) -> None:
        """Nothing is waited for any more."""
        if self._telling.running:
            self._telling.stop()

    def _tell(self) -> None:
        working, serving = self._working(), self._serving()
        if working or serving:
            self._log.info(
                "openhqm is stopping: {working} being worked on, {serving} being served; at most {seconds} s are left",
                working=counted(working, "request"),
                serving=counted(serving, "connection"),
                seconds=round(max(0.0, self._due - self._clock.seconds())),
            )


def counted(number: int, noun: str) -> str:
    """``1 request is`` or ``2 requests are``."""
    return f"{number} {noun} is" if number == 1 else f"{number} {noun}s are"
