# -*- test-case-name: tests.http1.test_channel -*-
"""A pull producer wrapped as a push producer: it is asked for pieces until it is paused."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IReactorTime


class PullToPush:
    """Asks ``producer`` for a piece in each iteration of the reactor, unless it is paused."""

    def __init__(self, producer: Any, clock: IReactorTime) -> None:
        self._producer = producer
        self._clock = clock
        self._call: Any = None
        self.resumeProducing()

    def pauseProducing(self) -> None:
        """Ask for no more pieces until `resumeProducing` is called."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def resumeProducing(self) -> None:
        """Ask for pieces again."""
        if self._call is None:
            self._call = self._clock.callLater(0, self._pull)

    def stop(self) -> None:
        """The producer has produced everything: ask for no more pieces."""
        self.pauseProducing()

    def stopProducing(self) -> None:
        """The consumer is gone: ask for no more pieces, and stop the producer."""
        self.pauseProducing()
        self._producer.stopProducing()

    def _pull(self) -> None:
        self._call = None
        self.resumeProducing()  # before the producer is called, which may call stop with its last piece
        self._producer.resumeProducing()
