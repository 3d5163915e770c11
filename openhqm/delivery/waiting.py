# -*- test-case-name: tests.delivery.test_waiting -*-
"""Waiting for an ending, woken in memory: nothing polls."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from openhqm.interfaces import IResultStore
from openhqm.messages import Record
from openhqm.runtime.deferreds import deferred


class Waiting:
    """Everybody in this process who waits for an ending."""

    def __init__(self, store: IResultStore, clock: IReactorTime) -> None:
        self._store = store
        self._clock = clock
        self._waiting: set[Deferred[None]] = set()
        self._stopped = False

    @deferred
    async def ending(self, correlation_id: str, seconds: float) -> Record:
        """The record once the request has ended, or as it stands after ``seconds``.

        `UnknownRequest` and `ExpiredRequest` come at once. Cancelling stops the waiting and nothing else.
        """
        ended: Deferred[None] = Deferred()

        def wake() -> None:
            if not ended.called:
                ended.callback(None)

        # Listen first and look second, or an ending in between would go unheard.
        stop_listening = self._store.watch(correlation_id, lambda event: wake() if event.reply else None)
        timer = None
        try:
            record = await self._store.find(correlation_id)
            if record.status.ended or seconds <= 0 or self._stopped:
                return record
            timer = self._clock.callLater(seconds, wake)
            self._waiting.add(ended)
            await ended
            return await self._store.find(correlation_id)
        finally:
            stop_listening()
            self._waiting.discard(ended)
            if timer is not None and timer.active():
                timer.cancel()

    def stop(self) -> None:
        """Let everybody go with what is known now, and nobody wait any more."""
        self._stopped = True
        for ended in list(self._waiting):
            if not ended.called:  # or it has ended, and is being looked up
                ended.callback(None)
