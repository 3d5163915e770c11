# -*- test-case-name: tests.ingress.test_sidecar -*-
"""The pass-through: one request is relayed to the application, and its response back to the client."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from openhqm.http1.pass_through import Relay
from openhqm.http1.rules import Head, Refusal
from openhqm.http1.tunnel import Tunnel
from openhqm.http1.upgrading import Upgrade
from openhqm.http1.upstream import Upstream
from openhqm.http1.upstream_pool import UpstreamPool
from openhqm.ingress.answers import problem
from openhqm.ingress.fast_path import instance
from openhqm.ingress.metrics import StraightMetrics
from openhqm.policy.proxying import end_to_end, forwarded_fields, with_via

_WITH_CONTENT = frozenset((b"POST", b"PUT", b"PATCH"))


class _Forwarding(Protocol):
    """The application, and the rules for forwarding to it; `ingress.sidecar.Sidecar` is one."""

    upstreams: UpstreamPool
    name: bytes
    timeout: float
    trusts: Callable[[str | None], bool]
    metrics: StraightMetrics | None


class PassThrough:
    """Relays a request to the application (a `RequestSink`), and the application's response back (a `ResponseSink`)."""

    _log = Logger()

    def __init__(self, forwarding: _Forwarding, head: Head, protocol: bytes | None = None) -> None:
        """``protocol``: the one that the application is asked to speak with the client from then on."""
        self._forwarding = forwarding
        self._head = head
        self._protocol = protocol
        self._connecting: Deferred[Any] | None = None
        self._upstream: Upstream | None = None
        self._relay: Any = None
        self._began_at: float | None = None  # None: not begun, or counted

    # The request

    def begin(self, relay: Relay) -> None:
        self._relay = relay
        if self._forwarding.metrics is not None:
            self._began_at = self._forwarding.metrics.clock.seconds()
        connecting = self._connecting = self._forwarding.upstreams.acquire()
        connecting.addCallbacks(self._connected, self._unreachable)
        connecting.addErrback(self._broken)
        if self._connecting is not None:
            relay.pauseProducing()

    def write(self, piece: bytes) -> None:
        if self._upstream is not None:
            self._upstream.write(piece)

    def ended(self) -> None:
        if self._upstream is not None:
            self._upstream.end()

    def lost(self) -> None:
        connecting, self._connecting = self._connecting, None
        upstream, self._upstream = self._upstream, None
        self._count(None)
        if connecting is not None:
            connecting.cancel()
        elif upstream is not None:
            upstream.abort()

    def _connected(self, upstream: Upstream) -> None:
        connecting, self._connecting = self._connecting, None
        if connecting is None:
            upstream.transport.abortConnection()  # the client has closed its connection in the same reactor turn
            return
        self._upstream = upstream
        head = self._head
        data = request_head(
            head,
            peer=self._relay.peer,
            scheme="https" if self._relay.secure else "http",
            name=self._forwarding.name,
            trusted=self._forwarding.trusts(self._relay.peer),
            protocol=self._protocol,
        )
        timeout = self._forwarding.timeout
        upstream.begin(data, head.method, head.length is None, self._relay, self, timeout, self._protocol)
        self._relay.resumeProducing()

    def _unreachable(self, failure: Failure) -> None:
        connecting, self._connecting = self._connecting, None
        if connecting is None or failure.check(CancelledError):
            return
        self._log.warn("the application cannot be reached: {reason}", reason=failure.getErrorMessage())
        self._refuse(502, "the application cannot be reached")

    def _broken(self, failure: Failure) -> None:
        self._log.failure("unhandled error in a request", failure, path=instance(self._head.target))
        self._relay.abort()
        self.lost()

    # The response

    def _passed(self, fields: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        try:
            return end_to_end(fields)
        except ValueError as error:
            raise Refusal(502, f"the application answered with a header that cannot be passed on: {error}") from None

    def responded(self, status: int, reason: bytes, fields: Sequence[tuple[bytes, bytes]], length: int | None) -> None:
        self._relay.respond(status, reason, self._passed(fields), length)
        if self._upstream is not None:
            self._relay.registerProducer(self._upstream, True)

    def switched(self, fields: Sequence[tuple[bytes, bytes]]) -> Tunnel:
        """The application has agreed to the other protocol."""
        forwarding, upstream = self._forwarding, self._upstream
        assert upstream is not None
        passed = [*self._passed(fields), (b"Connection", b"Upgrade"), (b"Upgrade", self._protocol or b"")]
        tunnel = Tunnel(upstream, forwarding.upstreams.clock, forwarding.timeout, self._closed)
        if self._relay.switch(Upgrade(tuple(passed), tunnel.begin, True)):
            self._upstream = None
            self._count(101)
            if forwarding.metrics is not None:
                forwarding.metrics.tunnels.inc()
        else:
            tunnel.cut()
        return tunnel

    def _closed(self) -> None:
        if self._forwarding.metrics is not None:
            self._forwarding.metrics.tunnels.dec()

    def received(self, piece: bytes) -> None:
        self._relay.write(piece)

    def completed(self) -> None:
        self._upstream = None
        self._relay.finish()
        self._count(self._relay.status)

    def failed(self, refusal: Refusal) -> None:
        self._upstream = None
        self._log.warn("the application failed: {reason}", reason=refusal.reason, path=instance(self._head.target))
        if self._relay.responding:
            self._relay.abort()  # the client must see that the body is incomplete
            self._count(None)
        else:
            self._refuse(refusal.status, refusal.reason)

    def _refuse(self, status: int, detail: str) -> None:
        self._relay.answer(problem(status, detail, instance=instance(self._head.target)))
        self._count(status)

    def _count(self, status: int | None) -> None:
        """Count the request, once. ``status`` None: the client got no complete response."""
        began_at, self._began_at = self._began_at, None
        if began_at is not None and self._forwarding.metrics is not None:
            self._forwarding.metrics.ended(status, began_at)


class RefusalSink:
    """A `RequestSink` that answers with a problem, and closes the connection after that."""

    def __init__(self, status: int, detail: str, head: Head) -> None:
        self._answer = problem(status, detail, instance=instance(head.target))

    def begin(self, relay: Relay) -> None:
        relay.persistent = False
        relay.answer(self._answer)

    def write(self, piece: bytes) -> None:
        pass

    def ended(self) -> None:
        pass

    def lost(self) -> None:
        pass


def request_head(
    head: Head, *, peer: str | None, scheme: str, name: bytes, trusted: bool, protocol: bytes | None = None
) -> bytes:
    """The head for the application: method, target and ``Host`` as the client sent them, and its end-to-end fields.

    ``Forwarded`` fields name the client ``peer``; where it is not ``trusted``, its own are dropped. ``Via`` names the
    gateway (RFC 9110, section 7.6.3). ``protocol``: the one that is asked for.
    """
    host = next((value for key, value in head.headers if key == b"host"), None)
    fields = [field for field in end_to_end(head.headers) if field[0] != b"host"]
    fields = forwarded_fields(fields, peer=peer, scheme=scheme, host=host, trusted=trusted)
    fields = with_via(fields, head.version, name)
    lines = [b"%b %b HTTP/1.1\r\nhost: %b\r\n" % (head.method, head.target, host or b"")]
    for key, value in fields:
        lines += (key, b": ", value, b"\r\n")
    if head.length is None:
        lines.append(b"transfer-encoding: chunked\r\n")
    elif head.length or head.method in _WITH_CONTENT or any(key == b"content-length" for key, _ in head.headers):
        lines.append(b"content-length: %d\r\n" % head.length)
    if protocol is not None:
        lines.append(b"connection: Upgrade\r\nupgrade: %b\r\n" % protocol)
    lines.append(b"\r\n")
    return b"".join(lines)
