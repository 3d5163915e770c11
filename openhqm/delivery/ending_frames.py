# -*- test-case-name: tests.delivery.test_ending_streams -*-
"""The bytes of an ending on a stream, made once for all streams that want it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import msgspec

from openhqm.delivery.documents import event_document
from openhqm.delivery.streams import framed
from openhqm.errors import ExpiredRequest, UnknownRequest
from openhqm.interfaces import IResultStore
from openhqm.messages import Event, LoggedEnding, Reply, Status
from openhqm.runtime.times import rfc3339

MOST_BYTES = 4 * 1024 * 1024


class EndingFrames:
    """Makes the events of endings, and keeps the newest `MOST_BYTES` of them. ``ahead``: see `EventStreams`."""

    def __init__(self, store: IResultStore, ahead: Callable[[], float]) -> None:
        self._store = store
        self._ahead = ahead
        self._known: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0

    async def of(self, ending: LoggedEnding) -> bytes:
        """Name and data of its event, without an id. `NotDurable` where the store cannot be read."""
        id = ending.correlation_id
        found = self._known.get(id)
        if found is None:
            reply = await self.reply(id)
            found = self._expired(ending) if reply is None else self.replied(reply)
            self._keep(id, found)
        return found

    async def reply(self, correlation_id: str) -> Reply | None:
        """The reply of a request that was accepted. None: it has not ended, or its reply has expired."""
        try:
            return (await self._store.find(correlation_id)).reply
        except (ExpiredRequest, UnknownRequest):
            return None

    def replied(self, reply: Reply) -> bytes:
        """The event of a reply."""
        event = Event(0, _type(reply.status), reply.completed_at, reply=reply)
        return framed(event.type, event_document(reply.correlation_id, event, self._ahead()))

    def _expired(self, ending: LoggedEnding) -> bytes:
        """The log may go back further than the store keeps replies."""
        document = {
            "correlation_id": ending.correlation_id,
            "status": ending.status.value,
            "completed_at": rfc3339(ending.at + self._ahead()),
            "expired": True,
        }
        return framed(_type(ending.status), msgspec.json.encode(document))

    def _keep(self, id: str, frame: bytes) -> None:
        self._size += len(frame) - len(self._known.pop(id, b""))
        self._known[id] = frame
        while self._size > MOST_BYTES:
            _, dropped = self._known.popitem(last=False)
            self._size -= len(dropped)


def _type(status: Status) -> str:
    return status.value.lower()
