# -*- test-case-name: tests.delivery.test_ending_streams -*-
"""One client of a stream of endings.

A stream is live, and writes what the feed offers; or it catches up, and reads the log itself from where it stands.
While its client does not read it does neither, and keeps a number.
"""

from __future__ import annotations

from typing import Protocol

import attrs
import msgspec
from twisted.logger import Logger

from openhqm.delivery.ending_feed import PIECE, EndingFeed
from openhqm.delivery.ending_frames import EndingFrames
from openhqm.delivery.selection import Cursor, Selection
from openhqm.delivery.streaming import Sink, Streaming
from openhqm.delivery.streams import KEEP_ALIVE, RECONNECT, framed
from openhqm.errors import NotDurable
from openhqm.messages import LoggedEnding, LogPage
from openhqm.runtime.deferreds import deferred
from openhqm.runtime.reactor_budget import ReactorBudget

AGAIN_SECONDS = 0.1


class Countable(Protocol):
    """A counter."""

    def inc(self) -> object:
        """Add one."""


class StreamCounts(Protocol):
    """What is counted: open streams, events written, clients that were told to have missed some, and that stalled."""

    @property
    def sent(self) -> Countable: ...

    @property
    def resets(self) -> Countable: ...

    @property
    def pauses(self) -> Countable: ...

    def open(self, count: int) -> object:
        """So many streams are open now."""


class Shared(Protocol):
    """What the streams of a process share."""

    feed: EndingFeed
    frames: EndingFrames
    budget: ReactorBudget
    metrics: StreamCounts

    def closed(self, stream: EndingStream) -> object:
        """A stream has ended."""


@attrs.frozen
class Beginning:
    """How a stream begins: the bounds of the log, the number of the ending after which it goes on, and whether its
    client is told that it may have missed endings.

    With ids: ``ended`` are those that have ended, whose endings the client does not have yet (``told`` is false) or may
    have (true); ``expired`` are those of which nothing is known any more.
    """

    page: LogPage
    after: int
    reset: bool = False
    ended: tuple[str, ...] = ()
    expired: tuple[str, ...] = ()
    told: bool = False


class EndingStream(Streaming):
    """A client that reads the endings in ``selection``."""

    __slots__ = (
        "_after",
        "_first",
        "_left",
        "_live",
        "_name",
        "_placed",
        "_streams",
        "_told",
        "_working",
        "selection",
    )
    _log = Logger()

    def __init__(self, streams: Shared, selection: Selection, beginning: Beginning, sink: Sink) -> None:
        super().__init__(sink)
        self.selection = selection
        self._streams = streams
        self._name = beginning.page.name
        self._after = beginning.after
        self._live = self._working = False
        # Of a stream over ids: what was not told yet; and what has to be looked up before the log is read.
        self._left: set[str] | None = set(selection.ids) - set(beginning.expired) if selection.ids else None
        self._first = () if beginning.told else beginning.ended
        self._told: tuple[str, ...] = beginning.ended if beginning.told else ()
        self._placed = False  # the client knows where in the log it stands
        streams.feed.join(self, beginning.page)

    def begin(self, beginning: Beginning) -> None:
        """Write what comes before the first event, and begin to catch up."""
        self._sink.write(RECONNECT)
        self._sink.registerProducer(self, True)
        if beginning.reset:
            self._write_reset()
        if not beginning.told:
            for id in beginning.expired:
                self._sink.write(framed("expired", msgspec.json.encode({"correlation_id": id})))
        self._catch_up()

    # The feed

    def offer(self, ending: LoggedEnding, frame: bytes | None) -> None:
        """See `Reader`."""
        if not self._live or ending.number <= self._after or not self._wants(ending):
            return
        if frame is None:
            self._fall_behind()
            self._catch_up()
        else:
            self._write(ending, frame)

    def begin_again(self, page: LogPage) -> None:
        """See `Reader`. The ids that are left are looked up: they may have ended unseen."""
        if self._closed or page.follows(self._name, self._after):  # it has begun again already
            return
        self._live = False
        self._name, self._after = page.name, page.last
        self._told = ()
        self._first = tuple(self._left or ())
        self._placed = False
        self._write_reset()
        self._catch_up()

    # Catching up

    def _catch_up(self) -> None:
        if not (self._working or self._paused or self._closed or self._live):
            self._working = True
            self._work()

    @deferred
    async def _work(self) -> None:
        try:
            await self._look_up()
            while not (self._paused or self._closed or self._live):
                await self._read()
        except NotDurable as error:
            self._log.warn(
                "a stream of endings ends early, and its client will reconnect: the store failed: {reason}",
                reason=error.reason,
            )
            self.close()
        except Exception:
            self._log.failure("a stream of endings broke down")
            self.close()
        finally:
            self._working = False
        self._catch_up()  # it may have been resumed in between

    async def _look_up(self) -> None:
        """Write what has ended, without an id: a client that comes back before all of it was written gets it again."""
        while self._first and not (self._paused or self._closed):
            id = self._first[0]
            reply = await self._streams.frames.reply(id)
            if self._paused or self._closed or not self._first or self._first[0] != id:
                return
            self._first = self._first[1:]
            if reply is not None and self._left is not None and id in self._left:
                self._left.discard(id)
                self._count_and_write(self._streams.frames.replied(reply))
        if not (self._paused or self._closed or self._first):
            self._place()

    def _place(self) -> None:
        if not self._placed:
            self._placed = True
            self._write_cursor()

    def _write_cursor(self) -> None:
        """An event of its own: a block that has an id and no data some clients pass over."""
        self._sink.write(b"id: %b\nevent: cursor\ndata: {}\n\n" % bytes(Cursor(self._name, self.position)))

    async def _read(self) -> None:
        streams = self._streams
        if not streams.budget.try_acquire():
            await streams.budget.acquire()
        if self._first:  # it began again in between
            await self._look_up()
            return
        name, after = self._name, self._after
        page = await streams.feed.log.read(after, PIECE)
        if self._paused or self._closed or (self._name, self._after) != (name, after):
            return
        if not page.follows(self._name, self._after):
            self.begin_again(page if page.name else await streams.feed.bounds())
            await self._look_up()
            return
        for ending in page.endings:
            if self._wants(ending):
                frame = await streams.frames.of(ending)
                if self._paused or self._closed or self._name != name:
                    return
                self._write(ending, frame)
                if self._paused or self._closed:
                    return
            self._after = ending.number
        if len(page.endings) == PIECE:
            return
        if streams.feed.name != name:  # it has not noticed yet
            streams.feed.look()
            await streams.feed.turn(AGAIN_SECONDS)
        elif self._after >= streams.feed.position:
            self._go_live()

    def _go_live(self) -> None:
        self._live = True
        if self._left is not None:
            self._left.difference_update(self._told)  # their endings lie before where the client stood
            self._told = ()
            if not self._left:
                self._place()
                self.close()

    def _fall_behind(self) -> None:
        if self._live:
            self._after = self.position
            self._live = False

    @property
    def position(self) -> int:
        """The number up to which the client knows all that it wants."""
        return max(self._after, self._streams.feed.settled) if self._live else self._after

    # Writing

    def _wants(self, ending: LoggedEnding) -> bool:
        return ending.correlation_id in self._left if self._left is not None else self.selection.wants(ending)

    def _write(self, ending: LoggedEnding, frame: bytes) -> None:
        self._after = ending.number
        if self._left is not None:
            self._left.discard(ending.correlation_id)
        self._count_and_write(b"id: %b\n%b" % (bytes(Cursor(self._name, ending.number)), frame))
        if self._left is not None and not self._left:
            self.close()

    def _count_and_write(self, data: bytes) -> None:
        self._streams.metrics.sent.inc()
        self._sink.write(data)

    def _write_reset(self) -> None:
        self._streams.metrics.resets.inc()
        detail = "endings may have been missed: ask for those that you wait for"
        self._sink.write(framed("reset", msgspec.json.encode({"detail": detail})))

    def keep_alive(self) -> None:
        """Write where the client stands, or else a comment, unless the client is stalled."""
        if self._paused or self._closed:
            return
        if self._live:
            self._write_cursor()
        else:
            self._sink.write(KEEP_ALIVE)

    # The end

    def _closing(self) -> None:
        self._fall_behind()

    def _gone(self) -> None:
        self._streams.closed(self)

    def pauseProducing(self) -> None:
        self._streams.metrics.pauses.inc()
        self._fall_behind()
        super().pauseProducing()
