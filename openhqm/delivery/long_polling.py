# -*- test-case-name: tests.delivery.test_long_polling -*-
"""Long polling: callers wait for the ending of a request, and an event in memory wakes them."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from openhqm.interfaces import IResultStore
from openhqm.messages import Record
from openhqm.runtime.deferreds import deferred


class LongPolls:
    """All callers in this process that wait for the ending of a request."""

    def __init__(self, store: IResultStore, clock: IReactorTime) -> None:
        self._store = store
        self._clock = clock
        self._waiting: set[Deferred[None]] = set()
        self._none: list[Deferred[None]] = []
        self._stopped = False

    @deferred
    async def wait_for_ending(self, correlation_id: str, seconds: float) -> Record:
        """Fires with the record once the request has ended, or as it is after ``seconds``.

        Fails at once with `UnknownRequest` or `ExpiredRequest`. Cancelling ends the wait, and does not cancel the
        request.
        """
        ended: Deferred[None] = Deferred()

        def wake() -> None:
            if not ended.called:
                ended.callback(None)

        # Watch first and look second, or an ending in between would be missed.
        unwatch = self._store.watch(correlation_id, lambda event: wake() if event.reply else None)
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
            unwatch()
            self._waiting.discard(ended)
            if not self._waiting:
                self._tell_none()
            if timer is not None and timer.active():
                timer.cancel()

    @deferred
    async def wait_until_none(self, seconds: float) -> None:
        """Fires once no caller waits, or after ``seconds``."""
        if not self._waiting or seconds <= 0:
            return
        none: Deferred[None] = Deferred()
        self._none.append(none)

        def give_up() -> None:
            self._none.remove(none)
            none.callback(None)

        timer = self._clock.callLater(seconds, give_up)
        await none
        if timer.active():
            timer.cancel()

    def _tell_none(self) -> None:
        waiting, self._none = self._none, []
        for none in waiting:
            none.callback(None)

    def stop(self) -> None:
        """End all waits with the records as they are now. Later calls do not wait."""
        self._stopped = True
        for ended in list(self._waiting):
            if not ended.called:  # it was woken already, and its record is being looked up
                ended.callback(None)
