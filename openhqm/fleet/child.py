# -*- test-case-name: tests.fleet.test_parts,tests.fleet.test_fleet -*-
"""One process, as its parent knows it: what it has reported, whether it still does, and how it ended."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from openhqm.fleet.inheritance import HEARING, SPEAKING
from openhqm.fleet.protocol import Everybody, Leave, Pipe, Question, Report, Serve, Standing, Stop, Word, speaking_by
from openhqm.runtime.deferreds import deferred

SILENT_SECONDS = 5.0
LAST_WORDS_SECONDS = 1.0
"""For how long a process that has died is still listened to, where somebody keeps its pipes open."""
PATIENCE_SECONDS = 10.0
"""How much longer than ``server.drain_seconds`` it may take to end."""


class Child(ProcessProtocol):
    """``asked`` answers its questions; ``ended`` is called with it once it is no more, and all it said was heard."""

    transport: Any
    _hanging_up: Any
    _log = Logger()

    def __init__(
        self,
        clock: Any,
        drain_seconds: float,
        asked: Callable[[Question], Everybody],
        ended: Callable[[Child], object],
    ) -> None:
        self._clock = clock
        self._drain_seconds = drain_seconds
        self._asked = asked
        self._on_end = ended
        self._pipe = Pipe(self._heard)
        self._waiting: list[tuple[Callable[[], bool], Deferred[bool]]] = []
        self.pid = 0
        self.born = self._heard_at = clock.seconds()
        self.report: Report | None = None
        self.leaving = False
        """It was told to end: no other takes its place for that."""
        self.over = self._listens = False
        self.code: int | None = None
        self.how = ""

    @property
    def state(self) -> str:
        """One of `STATES`."""
        if self.report is None or not (self.report.serving or self.leaving):
            return "starting"
        if self._clock.seconds() - self._heard_at > SILENT_SECONDS:
            return "silent"
        return "leaving" if self.leaving else "ready"

    @property
    def standing(self) -> Standing:
        """How it is, as it says itself, or as its silence says."""
        if self.report is None:
            return Standing(unavailable_reason="it is starting")
        if self.state == "silent":
            seconds = round(self._clock.seconds() - self._heard_at)
            words = f"it has said nothing for {seconds} seconds: most likely a blocking handler in the reactor"
            return Standing(unavailable_reason=words, stuck=words)
        return self.report.standing

    @property
    def lived(self) -> float:
        """For how many seconds."""
        return float(self._clock.seconds() - self.born)

    def started(self, seconds: float) -> Deferred[bool]:
        """Whether it reports within ``seconds``."""
        return self._reached(lambda: self.report is not None, seconds)

    def sound(self, seconds: float) -> Deferred[bool]:
        """Whether it says within ``seconds`` that it could keep a 202."""
        return self._reached(
            lambda: self.report is not None and self.report.standing.unavailable_reason is None, seconds
        )

    def serve(self, seconds: float) -> Deferred[bool]:
        """Have it take connections, and work; whether it says within ``seconds`` that it does."""
        if not self.leaving:
            self._say(Serve())
        return self._reached(lambda: self.report is not None and self.report.serving, seconds)

    def gone(self, seconds: float) -> Deferred[bool]:
        """Whether it ends within ``seconds``."""
        return self._reached(lambda: self.over, seconds)

    def leave(self) -> Deferred[None]:
        """Another has taken its place: it serves whoever is connected, and ends. Fires when it has."""
        return self._see_off(Leave())

    def stop(self) -> Deferred[None]:
        """Everything stops. Fires when it has ended."""
        return self._see_off(Stop())

    def kill(self) -> None:
        """At once."""
        self.leaving = True
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess("KILL")

    # What Twisted tells

    def connectionMade(self) -> None:
        self.pid = self.transport.pid
        self._listens = True
        speaking_by(self._pipe, lambda data: self.transport.writeToChild(HEARING, data))

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        if childFD == SPEAKING:
            self._pipe.dataReceived(data)

    def childConnectionLost(self, childFD: int) -> None:
        if childFD == HEARING:
            self._listens = False

    def processExited(self, reason: Failure) -> None:
        # Twisted waits for the pipes as well, and what the process has forked may hold them for as long as it lives.
        self._hanging_up = self._clock.callLater(LAST_WORDS_SECONDS, self._hang_up, reason)

    def processEnded(self, reason: Failure) -> None:
        if self._hanging_up.active():
            self._hanging_up.cancel()
            self._end(reason)

    def _hang_up(self, reason: Failure) -> None:
        self._listens = False
        for descriptor in (HEARING, SPEAKING):
            self.transport.closeChildFD(descriptor)
        self._end(reason)

    def _end(self, reason: Failure) -> None:
        self.over = True
        value: Any = reason.value
        self.code, signal = value.exitCode, value.signal
        self.how = f"by signal {signal}" if signal is not None else f"with {self.code}"
        self._look()
        self._on_end(self)

    @deferred
    async def _see_off(self, word: Leave | Stop) -> None:
        self.leaving = True
        self._say(word)
        if not await self.gone(self._drain_seconds + PATIENCE_SECONDS):
            self._log.error("process {pid} was told to end, did not, and is killed", pid=self.pid)
            self.kill()
            await self.gone(PATIENCE_SECONDS)

    def _heard(self, word: object) -> None:
        self._heard_at = self._clock.seconds()
        if isinstance(word, Report):
            self.report = word
            self._look()
        elif isinstance(word, Question):
            self._say(self._asked(word))

    def _say(self, word: Word) -> None:
        if self._listens:
            self._pipe.say(word)

    def _reached(self, reached: Callable[[], bool], seconds: float) -> Deferred[bool]:
        waiting: Deferred[bool] = Deferred()
        self._waiting.append((reached, waiting))
        late = self._clock.callLater(seconds, waiting.callback, False)
        waiting.addBoth(lambda result: (late.active() and late.cancel(), result)[1])
        self._look()
        return waiting

    def _look(self) -> None:
        for reached, waiting in list(self._waiting):
            if waiting.called:
                self._waiting.remove((reached, waiting))
            elif reached() or self.over:
                self._waiting.remove((reached, waiting))
                waiting.callback(reached())
