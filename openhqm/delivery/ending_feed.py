# -*- test-case-name: tests.delivery.test_ending_streams -*-
"""Reads the log of endings once for all streams of this process, and offers each ending to those that want it.

It runs while there are streams. It looks when the log says that there is more, and from time to time. A stream that
cannot take what it is offered reads the log itself, from where it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from openhqm.delivery.ending_frames import EndingFrames
from openhqm.delivery.selection import Selection
from openhqm.errors import NotDurable
from openhqm.interfaces import IEndingLog
from openhqm.messages import LoggedEnding, LogPage
from openhqm.policy.tags import KEPT_SECONDS
from openhqm.runtime.deferreds import deferred

PIECE = 128
"""How many endings are read at once."""
MOST_IN_A_TURN = 500
"""How many events are written in one turn of the reactor, about."""
LOOK_SECONDS = 5.0
RENEW_SECONDS = KEPT_SECONDS / 10
_BEYOND = 10**15
"""Above the number of any ending: to read where the log begins and ends."""


class Reader(Protocol):
    """A stream, to the feed."""

    selection: Selection

    def offer(self, ending: LoggedEnding, frame: bytes | None) -> object:
        """An ending that it wants has happened. ``frame`` is None where it has to look the event up."""

    def begin_again(self, page: LogPage) -> object:
        """Endings were missed: go on behind the last one of ``page``."""


_Key = tuple[str | None, str | None]
"""A tenant and a tag. None: of any tenant; with any tags."""


def _keys(selection: Selection) -> tuple[_Key, ...]:
    """What a reader without ids is found by."""
    if selection.ids:
        return ()
    return tuple((selection.tenant, tag) for tag in selection.tags or (None,))


class EndingFeed:
    """``position`` is the number of the last ending that was offered to a stream, in the log called ``name``.

    All streams were offered those up to ``settled``.
    """

    _log = Logger()

    def __init__(self, log: IEndingLog, frames: EndingFrames, clock: IReactorTime) -> None:
        self.log = log
        self.clock = clock
        self._frames = frames
        self.name = ""
        self.position = self.settled = 0
        self._renew_at = 0.0
        self._by_id: dict[str, tuple[Reader, ...]] = {}
        self._by_tag: dict[_Key, dict[Reader, None]] = {}
        self._readers = 0
        self._looking = self._again = False
        self._stop_watching: Callable[[], None] | None = None
        self._timer: Any = None

    @deferred
    async def bounds(self) -> LogPage:
        """Have the log kept, and return where it begins and ends. `NotDurable`."""
        await self._renew()
        page = await self.log.read(_BEYOND, 1)
        if not page.name:  # it was not kept yet, or Redis was started again
            await self._keep()
            page = await self.log.read(_BEYOND, 1)
        if not page.name:
            raise NotDurable("the log of endings is not kept", retry_after=1)
        return page

    async def _renew(self) -> None:
        """Have the log kept for longer. Where that fails, it is kept for most of an hour yet."""
        if self.clock.seconds() >= self._renew_at:
            try:
                await self._keep()
            except NotDurable as error:
                self._log.debug("the log of endings is kept for no longer: {reason}", reason=error.reason)

    async def _keep(self) -> None:
        asked = self.clock.seconds()
        await self.log.keep()
        self._renew_at = asked + RENEW_SECONDS

    def join(self, reader: Reader, page: LogPage) -> None:
        """Offer endings to ``reader``. ``page`` is the `bounds` that it begins with."""
        selection = reader.selection
        for id in selection.ids:
            self._by_id[id] = (*self._by_id.get(id, ()), reader)
        for key in _keys(selection):
            self._by_tag.setdefault(key, {})[reader] = None
        self._readers += 1
        if self._readers == 1:
            self._adopt(page)
            self._stop_watching = self.log.watch(self.look)
            self._timer = self.clock.callLater(LOOK_SECONDS, self._look_again)

    def leave(self, reader: Reader) -> None:
        """Offer ``reader`` no more."""
        for id in reader.selection.ids:
            left = tuple(each for each in self._by_id.get(id, ()) if each is not reader)
            if left:
                self._by_id[id] = left
            else:
                self._by_id.pop(id, None)
        for key in _keys(reader.selection):
            readers = self._by_tag.get(key, {})
            readers.pop(reader, None)
            if not readers:
                self._by_tag.pop(key, None)
        self._readers -= 1
        if not self._readers and self._stop_watching is not None:
            self._stop_watching()
            self._stop_watching = None
            self._timer.cancel()

    def look(self) -> None:
        """There may be more in the log. Many calls in one turn of the reactor are one look."""
        if self._looking:
            self._again = True
        elif self._readers:
            self._looking = True
            self.clock.callLater(0, self._follow_all)

    def _look_again(self) -> None:
        self._timer = self.clock.callLater(LOOK_SECONDS, self._look_again)
        self.look()

    @deferred
    async def _follow_all(self) -> None:
        try:
            await self._follow()
        except NotDurable as error:  # the next look goes on from here
            self._log.debug("the log of endings cannot be read now: {reason}", reason=error.reason)
        except Exception:  # a bug of ours must not end all streams for good
            self._log.failure("reading the log of endings broke down")
        finally:
            self._looking = False
        if self._again:
            self._again = False
            self.look()

    async def _follow(self) -> None:
        await self._renew()
        while self._readers:
            self._again = False
            page = await self.log.read(self.position, PIECE)
            if not page.follows(self.name, self.position):
                page = await self.bounds()
                self._adopt(page)
                for reader in self._everybody():
                    reader.begin_again(page)
            await self._offer_all(page.endings)
            if len(page.endings) < PIECE and not self._again:
                return

    def _adopt(self, page: LogPage) -> None:
        self.name, self.position, self.settled = page.name, page.last, page.last

    async def _offer_all(self, endings: Iterable[LoggedEnding]) -> None:
        frames = {each.number: await self._frames.of(each) for each in endings if self._wanted_by(each)}
        written = 0
        for ending in endings:
            self.position = ending.number
            for reader in self._wanted_by(ending):
                reader.offer(ending, frames.get(ending.number))
                written += 1
                if written % MOST_IN_A_TURN == 0:
                    await self.turn()
            self.settled = ending.number

    def _wanted_by(self, ending: LoggedEnding) -> tuple[Reader, ...]:
        by_id = self._by_id.get(ending.correlation_id, ())
        if not self._by_tag:
            return by_id
        found: dict[Reader, None] = {}
        for tenant in (None,) if ending.tenant is None else (None, ending.tenant):
            for tag in (None, *ending.tags):
                found.update(self._by_tag.get((tenant, tag), {}))
        return (*by_id, *found)

    def _everybody(self) -> tuple[Reader, ...]:
        found: dict[Reader, None] = {}
        for readers in (*self._by_id.values(), *self._by_tag.values()):
            found.update(dict.fromkeys(readers))
        return tuple(found)

    def turn(self, seconds: float = 0.0) -> Deferred[None]:
        """Fires in another turn of the reactor."""
        return deferLater(self.clock, seconds)
