# -*- test-case-name: tests.http1.test_channel -*-
"""All connections of a server: what stands behind them, one ticker for their deadlines, and their end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.web.server import Site

from openhqm.http1.access import Access
from openhqm.http1.channel import HTTP1
from openhqm.http1.known_heads import KnownHeads
from openhqm.http1.messages import Answer, FastPath, render
from openhqm.http1.pass_through import Passage
from openhqm.http1.rules import Refusal
from openhqm.runtime.deferreds import deferred

MOST_CONNECTIONS = 10_000
MOST_BUFFERED = 256 * 1024 * 1024
LOOK_SECONDS = 1.0
AT_ONCE = 100  # connections looked after in one go: nobody waits behind thousands of others
LEAVING_SECONDS = 0.05


class _OneTooMany(Protocol):
    """A connection that is told so and closed. It is not lingered over: that would be a connection more."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(render(self._answer, b"HTTP/1.1", False))
        self.transport.loseConnection()


class HTTP1Site(Site):
    """Connections, and what is served on them.

    ``problem`` makes the answer to a refused request. ``passage`` may take a request by its head, and lets its body
    through instead of having it collected: ``most_body`` does not bound it then.

    ``buffered`` are the bytes of all bodies that are being collected, or wait behind another request on their
    connection. Beyond ``most_buffered`` nothing more is collected, and beyond ``most_connections`` nobody is let in.
    ``access`` hears of each request once it was answered: None by default, for a line costs more than the request.
    """

    noisy = False
    displayTracebacks = False

    def __init__(
        self,
        resource: Any,
        clock: IReactorTime,
        fast_path: FastPath,
        problem: Callable[[Refusal], Answer],
        most_body: int,
        passage: Passage | None = None,
        most_connections: int = MOST_CONNECTIONS,
        most_buffered: int = MOST_BUFFERED,
        access: Access | None = None,
    ) -> None:
        # Parsing form bodies would read every body a second time, for a kind of content no route takes.
        super().__init__(resource, parsePOSTFormSubmission=False)
        self.clock = clock
        self.fast_path = fast_path
        self.problem = problem
        self.most_body = most_body
        self.passage = passage
        self.most_connections = most_connections
        self.most_buffered = most_buffered
        self.buffered = 0
        self.known = KnownHeads()
        self.access = access
        self.leaving = self.draining = False
        self.connections: set[HTTP1] = set()
        self._round: list[HTTP1] = []
        self._next_look: Any = None

    def buildProtocol(self, addr: object) -> Any:
        if len(self.connections) < self.most_connections:
            return HTTP1(self)
        return _OneTooMany(self.problem(Refusal(503, "there are as many connections as may be")))

    def startFactory(self) -> None:
        # Site's own would open an access log.
        if self._next_look is None:
            self._next_look = self.clock.callLater(LOOK_SECONDS, self._look)

    def stopFactory(self) -> None:
        """The last port was closed; what is connected is still looked after, until `stop`."""

    def leave(self) -> None:
        """Answer from now on with ``Connection: close``. Whose last answer did not say so may ask once more."""
        self.leaving = True
        for connection in list(self.connections):
            connection.leave()

    def drain(self) -> None:
        """The same, and close what is idle, now and later."""
        self.leave()
        self.draining = True
        for connection in list(self.connections):
            if connection.idle:
                connection.loseConnection()

    @deferred
    async def none_idle(self, seconds: float) -> None:
        """Fires once no connection is idle, or after ``seconds``."""
        await self._until(lambda: not any(connection.idle for connection in self.connections), seconds)

    @deferred
    async def empty(self, seconds: float) -> None:
        """Fires once there is no connection, or after ``seconds``."""
        await self._until(lambda: not self.connections, seconds)

    async def _until(self, reached: Callable[[], bool], seconds: float) -> None:
        due = self.clock.seconds() + seconds
        while not reached() and (left := due - self.clock.seconds()) > 0:
            await deferLater(self.clock, min(LEAVING_SECONDS, left))

    def stop(self) -> None:
        """Watch over connections no more."""
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None

    def log(self, request: object) -> None:
        """That of ``twisted.web`` alone: `access` hears of all."""

    def _look(self) -> None:
        """Look after some; so often that everybody has had a turn within a second or two."""
        if not self._round:
            self._round = list(self.connections)
        turn = self._round[-AT_ONCE:]
        del self._round[-AT_ONCE:]
        pause = LOOK_SECONDS * AT_ONCE / max(AT_ONCE, len(self.connections))
        self._next_look = self.clock.callLater(pause, self._look)
        now = self.clock.seconds()
        for connection in turn:
            if connection in self.connections:
                connection.tick(now)
