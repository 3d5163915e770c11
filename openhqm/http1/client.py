# -*- test-case-name: tests.http1.test_client,tests.http1.test_agent -*-
"""An HTTP client for a gateway: it follows no redirect, repeats no request, keeps no cookie and limits what it reads.

It speaks HTTP by the connections of `openhqm.http1.upstream`, and so reads a response as strictly as the sidecar does.
`Client.fetch` is for whole requests and responses. `Client.request` is Twisted's `IAgent`, by which treq and others can
ride on the same connections, with bodies in pieces.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import attrs
from twisted.internet.defer import Deferred, DeferredList, fail
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.interfaces import IReactorTime
from twisted.web.error import SchemeNotSupported
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IPolicyForHTTPS, IResponse
from zope.interface import implementer

from openhqm.http1.bodies import Content
from openhqm.http1.calls import Fetch, Fetched, Streamed, StreamedBody
from openhqm.http1.failures import connecting_failure
from openhqm.http1.field_lines import FRAMING, TOKEN, FieldLines, check_value, lower
from openhqm.http1.response import ClientRequest
from openhqm.http1.rules import is_authority, request_target
from openhqm.http1.upstream_pool import UpstreamPool
from openhqm.runtime.connecting import host_endpoint
from openhqm.runtime.tunnels import HTTPProxy

CONNECT_SECONDS = 10.0
MOST_SERVERS = 64  # whose idle connections one client keeps
_URL = re.compile(rb"(https?)://([^/?#]*)", re.IGNORECASE)
_VISIBLE = re.compile(rb"[!-~]+")

Fields = Iterable[tuple[bytes, bytes]]


@attrs.frozen
class Server:
    """What a connection leads to, and what stands in ``Host``. An IPv6 address has no brackets here."""

    secure: bool
    host: bytes
    port: int
    authority: bytes


MakePool = Callable[[Server], UpstreamPool]
"""Returns the connections to a server. Raises an error, with which the call then fails."""


class IFetch(Protocol):
    """What calls a server with a whole request, and collects the whole response."""

    def fetch(self, method: bytes, url: bytes, fields: Fields, content: bytes | None, most: int) -> Deferred[Fetched]:
        """See `Client.fetch`."""

    def connect(self, url: bytes) -> Deferred[None]:
        """See `Client.connect`."""


def make_client(
    reactor: Any, tls: IPolicyForHTTPS | None = None, *, kept: int = 64, through: HTTPProxy | None = None
) -> Client:
    """A client that keeps up to ``kept`` idle connections to each server.

    ``tls`` is the policy for https (`runtime.tls.TLSPolicy`); without it, https URLs fail with `SchemeNotSupported`.
    ``through``: a proxy that opens a tunnel to each server. TLS is within the tunnel.
    """
    reach = host_endpoint if through is None else through.endpoint

    def endpoint(server: Server) -> Any:
        plain = reach(reactor, server.host, server.port, CONNECT_SECONDS)
        if not server.secure:
            return plain
        if tls is None:
            raise SchemeNotSupported("https needs a TLS policy")
        return wrapClientTLS(tls.creatorForNetloc(server.host, server.port), plain)

    return Client(pools(endpoint, reactor, kept), kept=kept)


def pools(endpoint: Callable[[Server], Any], clock: IReactorTime, kept: int) -> MakePool:
    """Makes pools whose connections are opened by an ``endpoint``, each of which keeps up to ``kept`` idle."""

    def make(server: Server) -> UpstreamPool:
        return UpstreamPool(
            endpoint(server), clock, secure=server.secure, most_idle=kept, connect_seconds=CONNECT_SECONDS
        )

    return make


@implementer(IAgent)
class Client:
    """Calls servers, each over connections of its own.

    ``kept`` is how many idle connections to one server its pool keeps; 0: none, each request has a new one, and a pool
    of its own. How many are in use is for the callers to bound.
    """

    def __init__(self, make_pool: MakePool, *, kept: int) -> None:
        self._make_pool = make_pool
        self._kept = kept
        self._servers: dict[bytes, tuple[Server, UpstreamPool]] = {}
        self._latest: tuple[bytes, tuple[Server, UpstreamPool, bytes]] | None = None  # an endpoint has one URL

    def fetch(self, method: bytes, url: bytes, fields: Fields, content: bytes | None, most: int) -> Deferred[Fetched]:
        """Call the server of ``url``, and fire with its whole response, whose body has at most ``most`` bytes.

        ``fields`` are sent in their order (`FieldLines` cost the least); the client adds ``Host``, where it is not
        among them, and what frames the ``content`` (None: the request has none). There is no time limit: cancel the
        Deferred, which closes the connection.

        Fails with `NotConnected`, `CallFailed` or `AnswerTooLong`, and with `ValueError` where the request cannot be
        written: a URL, a method or a field that HTTP does not allow.
        """
        try:
            server, pool, target = self._server(url)
            length = None if content is None else len(content)
            if method == b"OPTIONS":
                target = request_target(method, url)
            head = self._head(server, method, target, fields, length, chunked=False)
        except Exception as error:
            return fail(error)
        call = Fetch(most)
        call.start(pool, head + content if content else head, method)
        return call.done

    def connect(self, url: bytes) -> Deferred[None]:
        """Fires once there is a connection to the server of ``url``, for the next call of it. Fails as `fetch` does."""
        try:
            _, pool, _ = self._server(url)
        except Exception as error:
            return fail(error)
        return pool.acquire().addCallbacks(pool.put_back, connecting_failure)

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: IBodyProducer | None = None
    ) -> Deferred[IResponse]:
        """As `IAgent` has it, and fails as `fetch` does. The body of the response waits for ``deliverBody``."""
        headers = Headers() if headers is None else headers
        try:
            server, pool, _ = self._server(uri)
            length = None if bodyProducer is None else bodyProducer.length
            known = isinstance(length, int)
            fields = [(name, value) for name, values in headers.getAllRawHeaders() for value in values]
            head = self._head(
                server,
                method,
                request_target(method, uri),
                fields,
                length if known else None,
                chunked=bodyProducer is not None and not known,
            )
        except Exception as error:
            return fail(error)
        call = Streamed(ClientRequest(method, uri, headers))
        if bodyProducer is None or isinstance(bodyProducer, Content):
            call.start(pool, head + (b"" if bodyProducer is None else bodyProducer.content), method)
        else:
            call.start(pool, head, method, StreamedBody(bodyProducer, length if known else None))
        return call.done

    def close_idle(self) -> Deferred[None]:
        """Close the connections that no call uses. Fires when they are closed."""
        closing = [each for _, pool in self._servers.values() for each in pool.close_idle()]
        closed: Deferred[Any] = DeferredList(closing)
        return closed.addCallback(lambda results: None)

    def _server(self, url: bytes) -> tuple[Server, UpstreamPool, bytes]:
        """The server of ``url``, its connections, and the target of a request that is not OPTIONS."""
        latest = self._latest
        if latest is not None and latest[0] == url:
            return latest[1]
        match = _URL.match(url)
        if match is None or _VISIBLE.fullmatch(url) is None:
            raise ValueError("a URL must begin with http:// or https://, and be visible ASCII")
        known = self._servers.get(match[0])
        if known is None:
            known = self._new_server(match[0], match[1].lower() == b"https", match[2])
        found = (*known, request_target(b"GET", url))
        if self._kept:
            self._latest = url, found
        return found

    def _new_server(self, key: bytes, secure: bool, authority: bytes) -> tuple[Server, UpstreamPool]:
        server = _read_server(secure, authority)
        pool = self._make_pool(server)
        if self._kept:
            if len(self._servers) >= MOST_SERVERS:
                _, oldest = self._servers.pop(next(iter(self._servers)))
                oldest.retire()
                self._latest = None
            self._servers[key] = server, pool
        return server, pool

    def _head(
        self, server: Server, method: bytes, target: bytes, fields: Fields, length: int | None, *, chunked: bool
    ) -> bytes:
        lines: list[bytes] = []
        hosted = False
        if isinstance(fields, FieldLines):
            lines.append(fields.lines)
        else:
            for name, value in fields:
                key = lower(name)
                check_value(name, value)
                if key not in FRAMING:
                    hosted = hosted or key == b"host"
                    lines.append(b"%b: %b\r\n" % (name, value))
        if TOKEN.match(method) is None:
            raise ValueError("the method of the request is not a token")
        if not self._kept:
            lines.append(b"Connection: close\r\n")
        if length is not None:
            lines.append(b"Content-Length: %d\r\n" % length)
        elif chunked:
            lines.append(b"Transfer-Encoding: chunked\r\n")
        host = b"" if hosted else b"Host: %b\r\n" % server.authority
        return b"%b %b HTTP/1.1\r\n%b%b\r\n" % (method, target, host, b"".join(lines))


def _read_server(secure: bool, authority: bytes) -> Server:
    if not is_authority(authority) or authority[:1] in (b"", b":"):
        raise ValueError("the host of the URL is malformed")
    usual = 443 if secure else 80
    host, colon, digits = authority.rpartition(b":")
    if not colon or authority.endswith(b"]"):
        host, digits = authority, b""
    port = int(digits or usual)
    shown = host if port == usual else b"%b:%d" % (host, port)
    return Server(secure, host.strip(b"[]"), port, shown)
