# -*- test-case-name: tests.bridges.test_bridge -*-
"""When a request has ended, as the result store knows it."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from openhqm.errors import ExpiredRequest, UnknownRequest
from openhqm.interfaces import IResultStore
from openhqm.messages import Event, Record, Reply


class StoreEndings:
    """Those of the requests in ``store``."""

    def __init__(self, store: IResultStore) -> None:
        self._store = store

    def when_ended(self, correlation_id: str) -> Deferred[Reply | None]:
        """Fires with its reply once it has ended, or with None where it is not known any more. It does not fail."""
        ended: Deferred[Reply | None] = Deferred()

        def fire(reply: Reply | None) -> None:
            if not ended.called:
                stop()
                ended.callback(reply)

        def on_event(event: Event) -> None:
            if event.reply is not None:
                fire(event.reply)

        def on_record(record: Record) -> None:
            if record.status.ended:
                fire(record.reply)

        def on_failure(failure: Failure) -> None:
            if failure.check(UnknownRequest, ExpiredRequest):
                fire(None)  # where the store did not answer, its next event tells

        stop = self._store.watch(correlation_id, on_event)
        self._store.find(correlation_id).addCallbacks(on_record, on_failure)
        return ended
