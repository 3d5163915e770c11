# -*- test-case-name: tests.http1.test_channel -*-
"""The connections of an HTTP server: what serves their requests, the timer for their deadlines, and shutting down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.web.server import Site

from openhqm.http1.access import AccessLog
from openhqm.http1.admission import Admit, admit_all
from openhqm.http1.channel import HTTP1Channel
from openhqm.http1.head_cache import HeadCache
from openhqm.http1.messages import Answer, FastPath, render
from openhqm.http1.pass_through import SelectSink
from openhqm.http1.rules import Head, IsOwn, Refusal, always_own
from openhqm.http1.send_budget import SendBudget
from openhqm.runtime.deferreds import deferred

MOST_CONNECTIONS = 10_000
MOST_BUFFERED = 256 * 1024 * 1024
MOST_UNSENT = 256 * 1024 * 1024
CHECK_SECONDS = 1.0
CHECKED_AT_ONCE = 100  # connections; more in one iteration of the reactor would delay its other work
POLL_SECONDS = 0.05


class _RejectedConnection(Protocol):
    """A connection beyond the limit: it gets one response and is closed, without `HTTP1Channel`'s lingering."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(render(self._answer, b"HTTP/1.1", False))
        self.transport.loseConnection()


class HTTP1Site(Site):
    """A factory of `HTTP1Channel`.

    Arguments:

    - ``resource``: the ``twisted.web`` resource that serves what the fast path and the sinks leave.
    - ``clock``: an `IReactorTime`.
    - ``fast_path``: serves requests of the hot routes.
    - ``answer_refusal``: makes the answer to a refused request.
    - ``most_body``: the most bytes of a body that is collected. Relayed bodies may be longer.
    - ``select_sink``: chooses by the head whether a request is relayed; None where no request is.
    - ``most_connections``: a connection beyond them gets 503.
    - ``most_buffered``: the most bytes of bodies in memory, over all connections; a body beyond them gets 503.
    - ``send_budget``: bounds the bytes of responses that wait for slow readers, over all connections.
    - ``access_log``: called with the record of each request. None by default, because a log line costs more than
      serving a request.
    - ``admit``: decides by the head whether a body is read that is still to come (`http1.admission`).
    - ``is_own``: says which paths are the server's own. Requests for others may have any method and target.

    ``buffered`` counts the bytes of all bodies that are being collected, or that wait behind another request on their
    connection.
    """

    noisy = False
    displayTracebacks = False

    def __init__(
        self,
        resource: Any,
        clock: IReactorTime,
        fast_path: FastPath,
        answer_refusal: Callable[[Refusal], Answer],
        most_body: int,
        select_sink: SelectSink | None = None,
        most_connections: int = MOST_CONNECTIONS,
        most_buffered: int = MOST_BUFFERED,
        access_log: AccessLog | None = None,
        is_own: IsOwn = always_own,
        send_budget: SendBudget | None = None,
        admit: Admit = admit_all,
    ) -> None:
        # twisted.web would parse form bodies, which no route accepts.
        super().__init__(resource, parsePOSTFormSubmission=False)
        self.clock = clock
        self.fast_path = fast_path
        self.answer_refusal = answer_refusal
        self.most_body = most_body
        self.select_sink = select_sink
        self.most_connections = most_connections
        self.most_buffered = most_buffered
        self.buffered = 0
        self.send_budget = send_budget or SendBudget(MOST_UNSENT)
        self.head_cache: HeadCache[Head] = HeadCache()
        self.access_log = access_log
        self.is_own = is_own
        self.admit = admit
        self.keep_alive_disabled = self.draining = False
        self.connections: set[HTTP1Channel] = set()
        self._unchecked: list[HTTP1Channel] = []
        self._timer: Any = None
        self._check_due = 0.0

    def buildProtocol(self, addr: object) -> Any:
        if len(self.connections) < self.most_connections:
            return HTTP1Channel(self)
        return _RejectedConnection(
            self.answer_refusal(Refusal(503, "the server has as many connections as it accepts"))
        )

    def startFactory(self) -> None:
        # twisted.web's own method would open its access log.
        if self._timer is None:
            self._check_due = self.clock.seconds() + CHECK_SECONDS
            self._timer = self.clock.callLater(CHECK_SECONDS, self._check_deadlines)

    def stopFactory(self) -> None:
        """The last port was closed. Connections are still served, and their deadlines checked, until `stop`."""

    def disable_keep_alive(self) -> None:
        """From now on, close each connection behind a response that announces it with ``Connection: close``.

        A client whose response has begun without that field may send one more request.
        """
        self.keep_alive_disabled = True
        for connection in list(self.connections):
            connection.disable_keep_alive()

    def drain(self) -> None:
        """Disable keep-alive, and close connections as soon as they are idle."""
        self.disable_keep_alive()
        self.draining = True
        for connection in list(self.connections):
            connection.close_between_requests()

    @property
    def serving(self) -> int:
        """How many connections a request is being read from, or a response sent to."""
        return sum(not connection.idle for connection in self.connections)

    @deferred
    async def wait_until_none_idle(self, seconds: float) -> None:
        """Fires once no connection is idle, or after ``seconds``."""
        await self._wait_until(lambda: not any(connection.idle for connection in self.connections), seconds)

    @deferred
    async def wait_until_closed(self, seconds: float) -> None:
        """Fires once all connections are closed, or after ``seconds``."""
        await self._wait_until(lambda: not self.connections, seconds)

    async def _wait_until(self, reached: Callable[[], bool], seconds: float) -> None:
        due = self.clock.seconds() + seconds
        while not reached() and (left := due - self.clock.seconds()) > 0:
            await deferLater(self.clock, min(POLL_SECONDS, left))

    def stop(self) -> None:
        """Cut the connections that are still being served, and check no more deadlines."""
        for connection in list(self.connections):
            connection.cut()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def log(self, request: object) -> None:
        """Called by ``twisted.web`` for its own requests. ``access_log`` is called for all."""

    def _check_deadlines(self) -> None:
        """Check some connections, so often that each is checked about once in `CHECK_SECONDS`.

        Where this is called later than it was due, this process did not run. That time does not count: what clients
        sent in it is not read yet.
        """
        if not self._unchecked:
            self._unchecked = list(self.connections)
        some = self._unchecked[-CHECKED_AT_ONCE:]
        del self._unchecked[-CHECKED_AT_ONCE:]
        pause = CHECK_SECONDS * CHECKED_AT_ONCE / max(CHECKED_AT_ONCE, len(self.connections))
        self._timer = self.clock.callLater(pause, self._check_deadlines)
        now = self.clock.seconds()
        not_run, self._check_due = now - self._check_due, now + pause
        if not_run > CHECK_SECONDS:  # the process was stopped, or the machine suspended
            for connection in list(self.connections):
                connection.postpone(not_run)
        for connection in some:
            if connection in self.connections:
                connection.check_deadlines(now)
