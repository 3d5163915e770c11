# -*- test-case-name: tests.ingress.test_web_sockets -*-
"""``GET /api/v1/ws``: who may open a WebSocket, and all those that are open."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import msgspec
from twisted.internet.interfaces import IReactorTime

from openhqm.delivery.ending_streams import EndingStreams
from openhqm.delivery.keep_alive import KeepAlive
from openhqm.delivery.streams import EventStreams
from openhqm.errors import how_to_install
from openhqm.http1.messages import Answer, FastPath, FullRequest, StreamedAnswer
from openhqm.http1.rules import Credentials
from openhqm.http1.upgrading import Upgrade
from openhqm.ingress.access import Access
from openhqm.ingress.answers import HTTPProblem, problem
from openhqm.ingress.door import Door
from openhqm.ingress.fast_path import instance
from openhqm.ingress.rate_limiting import RateLimiter
from openhqm.policy.api_keys import Caller, Role
from openhqm.policy.cors import Cors

if TYPE_CHECKING:
    from openhqm.http1.web_socket import WebSocket
    from openhqm.ingress.socket_sessions import SocketSession

SOCKET = b"/api/v1/ws"
OFFERED_KEY = b"openhqm.key."
"""What stands before a key or a token among the offered protocols."""
MISSING = f"this process has no WebSocket: {how_to_install('websocket')}"


def _offered_key(message: FullRequest) -> Credentials:
    """The key among the protocols that a page offers: browsers let it set no header field of this request."""
    for name, value in message.head.headers:
        if name == b"sec-websocket-protocol":
            for offer in value.split(b","):
                if offer.strip().startswith(OFFERED_KEY):
                    return ((b"openhqm-key", offer.strip()[len(OFFERED_KEY) :]),)
    return ()


class WebSockets:
    """Answers the requests that ask for a WebSocket. A message of a client is of at most ``most`` bytes.

    A browser sends a page's request for a WebSocket wherever it goes, without a preflight. So a request with an
    ``Origin`` is served where ``cors`` allows that, or where it is that of the gateway itself.
    """

    def __init__(
        self,
        door: Door,
        streams: EventStreams,
        ending_streams: EndingStreams | None,
        clock: IReactorTime,
        most: int,
        on_count: Callable[[int], object],
        access: Access | None = None,
        cors: Cors | None = None,
        limiter: RateLimiter | None = None,
    ) -> None:
        self.door = door
        self.streams = streams
        self.ending_streams = ending_streams
        self._clock = clock
        self._most = most
        self._on_count = on_count
        self._access = access
        self._cors = cors
        self._limiter = limiter
        self._open: set[SocketSession] = set()
        self._keep_alive = KeepAlive(clock)
        self._stopped = False

    def fast_path(self, inner: FastPath) -> FastPath:
        """A fast path that answers them, and gives all other requests to ``inner``."""

        def path(message: FullRequest) -> Coroutine[Any, Any, Answer | StreamedAnswer] | None:
            target = message.head.target
            if target.startswith(SOCKET) and target.partition(b"?")[0] == SOCKET:
                return self._answer(message)
            return inner(message)

        return path

    async def _answer(self, message: FullRequest) -> Answer | StreamedAnswer:
        refusal, _ = self._check(message, Role.READ, True)
        if refusal is not None:  # the bytes that every route has for it
            return refusal
        try:
            return self._upgrade(message)
        except HTTPProblem as error:
            return problem(error.status, error.detail, instance=instance(message.head.target), fields=error.fields)

    def _upgrade(self, message: FullRequest) -> Upgrade:
        if find_spec("wsproto") is None:
            raise HTTPProblem(501, MISSING)
        from openhqm.http1.web_socket import NotAWebSocket, WebSocket, handshake
        from openhqm.ingress.socket_sessions import SocketSession

        try:
            fields = handshake(message)
        except NotAWebSocket as error:
            raise HTTPProblem(error.status, str(error), error.fields) from None
        if not self._knows_origin(message):
            raise HTTPProblem(403, "pages of this origin may not call: see cors.origins")
        if self._stopped or self.door.closed:
            raise HTTPProblem(503, "the process is stopping", ((b"Retry-After", b"1"),))

        def begin(socket: WebSocket) -> SocketSession:
            session = SocketSession(
                self, socket, lambda role: self._admit(message, role), lambda *sent: self._limit(message, *sent)
            )
            self._open.add(session)
            self._on_count(len(self._open))
            self._keep_alive.add(session)
            return session

        return Upgrade(fields, lambda writer: WebSocket(writer, self._clock, self._most, begin))

    def _check(self, message: FullRequest, role: Role, count: bool) -> tuple[Answer | None, Caller | None]:
        """See `Access.check`."""
        if self._access is None:
            return None, None
        credentials = message.head.credentials or _offered_key(message)
        return self._access.check(role, message.head.target, credentials, message.connection, count)

    def _admit(self, message: FullRequest, role: Role) -> Caller | None:
        """Who it is, once the WebSocket has begun. `HTTPProblem` with the refusal."""
        refusal, caller = self._check(message, role, False)
        if refusal is not None:
            raise HTTPProblem(refusal.status, msgspec.json.decode(refusal.body)["detail"], refusal.fields)
        return caller

    def _limit(self, message: FullRequest, caller: Caller | None, size: int) -> None:
        if self._limiter is not None:
            refusal, _ = self._limiter.take(caller, message.connection, size=size)
            if refusal is not None:
                raise refusal.error()

    def _knows_origin(self, message: FullRequest) -> bool:
        origins = [value for name, value in message.head.headers if name == b"origin"]
        if not origins:
            return True  # no browser
        if len(origins) > 1:
            return False
        own = origins[0].partition(b"://")[2] == (message.field(b"host") or b"").lower()
        return own or (self._cors is not None and self._cors.allows(origins[0]))

    def ended(self, session: SocketSession) -> None:
        """See `Calls`."""
        self._open.discard(session)
        self._on_count(len(self._open))
        self._keep_alive.discard(session)

    def stop(self) -> None:
        """End all, and let none begin."""
        self._stopped = True
        for session in list(self._open):
            session.stop()
