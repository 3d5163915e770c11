# -*- test-case-name: tests.test_http1 -*-
"""All connections of a server: what stands behind them, one ticker for their deadlines, and their end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.web.server import Site

from openhqm.runtime.http1 import HTTP1
from openhqm.runtime.http1_messages import Answer, ShortLane
from openhqm.runtime.http1_passing import Passage
from openhqm.runtime.http1_rules import Refusal


class HTTP1Site(Site):
    """Connections, and what is served on them.

    ``problem`` makes the answer to a refused request. ``passage`` may take a request by its head, and lets its body
    through instead of having it collected: ``most_body`` does not bound it then.
    """

    noisy = False
    displayTracebacks = False

    def __init__(
        self,
        resource: Any,
        clock: IReactorTime,
        short_lane: ShortLane,
        problem: Callable[[Refusal], Answer],
        most_body: int,
        passage: Passage | None = None,
    ) -> None:
        # Parsing form bodies would read every body a second time, for a kind of content no route takes.
        super().__init__(resource, parsePOSTFormSubmission=False)
        self.clock = clock
        self.short_lane = short_lane
        self.problem = problem
        self.most_body = most_body
        self.passage = passage
        self.draining = False
        self.connections: set[HTTP1] = set()
        self._ticking = LoopingCall(self._tick)
        self._ticking.clock = clock

    def buildProtocol(self, addr: object) -> Any:
        return HTTP1(self)

    def startFactory(self) -> None:
        # Site's own would open an access log.
        if not self._ticking.running:
            self._ticking.start(1.0, now=False)

    def stopFactory(self) -> None:
        """The last port was closed; what is connected is still looked after, until `stop`."""

    def drain(self) -> None:
        """Answer what is being served with ``Connection: close``, and close what is idle."""
        self.draining = True
        for connection in list(self.connections):
            connection.drain()

    def stop(self) -> None:
        """Watch over connections no more."""
        if self._ticking.running:
            self._ticking.stop()

    def log(self, request: object) -> None:
        """Requests are counted, not listed: a line for each would cost more than the request."""

    def _tick(self) -> None:
        now = self.clock.seconds()
        for connection in list(self.connections):
            connection.tick(now)
