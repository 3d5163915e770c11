# -*- test-case-name: tests.delivery.test_ending_streams -*-
"""Server-Sent Events over many requests: the endings of some ids, of some tags, or of all, over the log of endings."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.internet.interfaces import IReactorTime

from openhqm.delivery.ending_feed import PIECE, EndingFeed
from openhqm.delivery.ending_frames import EndingFrames
from openhqm.delivery.ending_stream import Beginning, EndingStream, StreamCounts
from openhqm.delivery.keep_alive import KeepAlive
from openhqm.delivery.selection import Selection, read_cursor
from openhqm.delivery.streaming import Sink
from openhqm.delivery.streams import PIECES_AT_ONCE, reconnect_later
from openhqm.delivery.tenant_records import TenantRecords
from openhqm.errors import ExpiredRequest
from openhqm.interfaces import IEndingLog, IResultStore
from openhqm.messages import LogPage
from openhqm.policy.places import Places
from openhqm.runtime.deferreds import deferred
from openhqm.runtime.reactor_budget import ReactorBudget
from openhqm.runtime.steady_time import never_ahead


class EndingStreams:
    """All streams of endings of this process. ``random`` is from 0 to 1; ``ahead``: see `EventStreams`."""

    def __init__(
        self,
        log: IEndingLog,
        store: IResultStore,
        clock: IReactorTime,
        metrics: StreamCounts,
        random: Callable[[], float],
        ahead: Callable[[], float] = never_ahead,
        places: Places | None = None,
    ) -> None:
        self._places = places or Places("open event streams")
        self.metrics = metrics
        self.frames = EndingFrames(store, ahead)
        self.feed = EndingFeed(log, self.frames, clock)
        self.budget = ReactorBudget(clock, PIECES_AT_ONCE)
        self._store = store
        self._records = TenantRecords(store, clock)
        self._random = random
        self._open: dict[EndingStream, str | None] = {}
        self._keep_alive = KeepAlive(clock)
        self._stopped = False

    def __len__(self) -> int:
        return len(self._open)

    @deferred
    async def prepare(self, selection: Selection, last_event_id: str = "") -> Beginning | None:
        """How a stream begins whose client has the event ``last_event_id`` (empty: none). None: nothing is left to say.

        `UnknownRequest` where an id was never given out, `ExpiredRequest` where all have expired; `NotDurable`;
        `TooManyOpen` where its tenant has too many.
        """
        self._places.check(selection.tenant)
        beginning = await self._beginning(selection, last_event_id)
        self._places.check(selection.tenant)  # others may have taken the place in the meantime
        return beginning

    async def _beginning(self, selection: Selection, last_event_id: str) -> Beginning | None:
        page = await self.feed.bounds()
        cursor = read_cursor(last_event_id)
        if cursor is None or not page.follows(cursor.name, cursor.number):
            return await self._afresh(selection, page, reset=bool(last_event_id))
        ended, expired = await self._ended(selection.ids, selection.tenant)
        if len(ended) + len(expired) == len(selection.ids) > 0 and not await self._any(selection, cursor.number):
            return None
        return Beginning(page, cursor.number, ended=tuple(ended), expired=tuple(expired), told=True)

    async def _afresh(self, selection: Selection, page: LogPage, *, reset: bool) -> Beginning:
        """From now on, and with ids from their beginning."""
        ended, expired = await self._ended(selection.ids, selection.tenant)
        if selection.ids and len(expired) == len(selection.ids):
            raise ExpiredRequest(selection.ids[0])
        while True:
            page = await self.feed.bounds()
            # What has ended since it was looked up may lie before where the stream begins.
            left = [id for id in selection.ids if id not in ended and id not in expired]
            more, gone = await self._ended(left, selection.tenant)
            if not more and not gone:
                return Beginning(page, page.last, reset, tuple(ended), tuple(expired))
            ended, expired = [*ended, *more], [*expired, *gone]

    async def _ended(self, ids: Iterable[str], tenant: str | None) -> tuple[list[str], list[str]]:
        """Which of ``ids`` have ended, and which have expired. `UnknownRequest`, also for one of another tenant."""
        ended, expired = [], []
        for id in ids:
            try:
                record = await (self._store.find(id) if tenant is None else self._records.find(id, tenant))
            except ExpiredRequest:
                expired.append(id)
                continue
            if record.reply is not None:
                ended.append(id)
        return ended, expired

    async def _any(self, selection: Selection, after: int) -> bool:
        """Whether an ending in ``selection`` lies in the log behind ``after``."""
        while True:
            page = await self.feed.log.read(after, PIECE)
            if any(selection.wants(each) for each in page.endings):
                return True
            if len(page.endings) < PIECE:
                return False
            after = page.endings[-1].number

    def open(self, selection: Selection, beginning: Beginning, sink: Sink) -> EndingStream:
        """Open a stream that was prepared."""
        stream = EndingStream(self, selection, beginning, sink)
        self._open[stream] = selection.tenant
        self._places.enter(selection.tenant)
        self.metrics.open(len(self._open))
        self._keep_alive.add(stream)
        stream.begin(beginning)
        if self._stopped:
            self._drain(stream)
        return stream

    def closed(self, stream: EndingStream) -> None:
        """A stream has ended."""
        if stream in self._open:
            self._places.leave(self._open.pop(stream))
        self.metrics.open(len(self._open))
        self._keep_alive.discard(stream)
        self.feed.leave(stream)

    def stop(self) -> None:
        """End all streams, and later ones as they begin. Clients reconnect by themselves, to another process."""
        self._stopped = True
        for stream in list(self._open):
            self._drain(stream)

    def _drain(self, stream: EndingStream) -> None:
        stream.drain(reconnect_later(self._random))
