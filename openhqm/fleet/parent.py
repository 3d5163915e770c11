# -*- test-case-name: tests.fleet.test_parts,tests.fleet.test_fleet -*-
"""The parent, as one of its processes knows it: whom it tells how it is, whom it asks how the others are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError, fail
from twisted.internet.interfaces import IPushProducer
from twisted.internet.stdio import StandardIO
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from zope.interface import implementer

from openhqm.fleet.inheritance import HEARING, SPEAKING
from openhqm.fleet.protocol import Everybody, Leave, Pipe, Question, Report, Serve, Stop
from openhqm.runtime.deferreds import deferred

REPORT_SECONDS = 1.0
ANSWER_SECONDS = 1.0


@implementer(IPushProducer)
class Parent:
    """Hears what ``report`` makes, every second once this process has begun, and says what to do.

    ``serve`` is called when this process is to serve, ``leave`` when another has taken its place, and ``stop`` when
    everything stops, or the parent is gone: nobody else would end this process then.
    """

    _log = Logger()

    def __init__(
        self,
        clock: Any,
        report: Callable[[], Report],
        *,
        serve: Callable[[], Deferred[None]],
        leave: Callable[[], object],
        stop: Callable[[], object],
    ) -> None:
        self._clock = clock
        self._report = report
        self._serve = serve
        self._leave = leave
        self._stop = stop
        self._questions: dict[int, Deferred[Everybody]] = {}
        self._asked = 0
        self._transport: Any = None
        self._over: Deferred[None] = Deferred()
        self._full = False  # the pipe: the parent does not read just now
        self.pipe = Pipe(self._heard, self._lost)
        self._reporting = LoopingCall(self._say_how_it_is)
        self._reporting.clock = clock

    def connect(self, reactor: Any) -> None:
        """Listen to the parent, by the pipes that it left."""
        stdio: Any = StandardIO  # which of its two forms this is, no type checker knows
        self._transport = stdio(self.pipe, HEARING, SPEAKING, reactor)
        self._transport.registerProducer(self, True)

    def begin(self) -> None:
        """This process has started: tell, and go on telling."""
        self._reporting.start(REPORT_SECONDS)

    def ask(self, figures: bool) -> Deferred[Everybody]:
        """How all processes are. `TimeoutError` where the parent does not say so in time."""
        if self._full or self._over.called:
            return fail(TimeoutError(0.0, "the parent does not read"))
        self._say_how_it_is()  # so that what this process knows now is part of the answer
        self._asked += 1
        number = self._asked
        answer: Deferred[Everybody] = Deferred()
        self._questions[number] = answer
        self.pipe.say(Question(number, figures))
        answer.addTimeout(ANSWER_SECONDS, self._clock)
        answer.addBoth(lambda result: (self._questions.pop(number, None), result)[1])
        return answer

    @deferred
    async def end(self) -> None:
        """Tell for the last time, and hang up."""
        if not self._reporting.running or self._over.called:
            return
        self._say_how_it_is()
        self._reporting.stop()
        self._over.addTimeout(ANSWER_SECONDS, self._clock)
        self._transport.unregisterProducer()
        self._transport.loseConnection()
        try:
            await self._over
        except TimeoutError:
            return  # a parent that does not listen will not miss it

    def _say_how_it_is(self) -> None:
        if self._reporting.running and not self._full and not self._over.called:
            self.pipe.say(self._report())

    def _heard(self, word: object) -> None:
        if isinstance(word, Everybody):
            if (question := self._questions.get(word.number)) is not None and not question.called:
                question.callback(word)
        elif isinstance(word, Serve):
            serving = self._serve().addCallback(lambda _: self._say_how_it_is())
            serving.addErrback(lambda failure: self._log.failure("this process cannot serve", failure))
        elif isinstance(word, Leave):
            self._leave()
        elif isinstance(word, Stop):
            self._stop()

    def pauseProducing(self) -> None:
        """The pipe is full: what would be said meanwhile is out of date by then."""
        self._full = True

    def resumeProducing(self) -> None:
        """There is room again."""
        self._full = False

    def stopProducing(self) -> None:
        """The pipe is closed; `_lost` hears of it."""

    def _lost(self) -> None:
        if not self._over.called:
            self._over.callback(None)
        self._stop()
