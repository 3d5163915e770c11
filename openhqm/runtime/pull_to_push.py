# -*- test-case-name: tests.http1.test_channel -*-
"""A pull producer made into one that pushes: asked for more, turn by turn, until it is told to pause."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IReactorTime


class Puller:
    """Asks ``producer`` for a piece in each turn of the reactor while nobody holds it back."""

    def __init__(self, producer: Any, clock: IReactorTime) -> None:
        self._producer = producer
        self._clock = clock
        self._call: Any = None
        self.resumeProducing()

    def pauseProducing(self) -> None:
        """Ask no more for now."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def resumeProducing(self) -> None:
        """Ask again."""
        if self._call is None:
            self._call = self._clock.callLater(0, self._pull)

    def stop(self) -> None:
        """It has said all it had to say."""
        self.pauseProducing()

    def stopProducing(self) -> None:
        """Nobody listens any more."""
        self.pauseProducing()
        self._producer.stopProducing()

    def _pull(self) -> None:
        self._call = None
        self.resumeProducing()  # before asking: the answer may be that this was the last piece
        self._producer.resumeProducing()
