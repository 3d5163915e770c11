# -*- test-case-name: tests.http1.test_channel -*-
"""Requests of ``twisted.web``, made from requests that our channel has read, and what they call on a channel."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from twisted.web.http_headers import Headers as WebHeaders
from twisted.web.server import Request

from openhqm.http1.messages import FullRequest


class WebRequest(Request):
    """A request of ``twisted.web``, made from a request that was read completely."""

    def __init__(self, channel: Any, request: FullRequest, keep_alive: bool) -> None:
        super().__init__(channel, False)
        self.requestHeaders = WebHeaders()
        for name, value in request.head.headers:
            self.requestHeaders.addRawHeader(name, value)
        self.content = BytesIO(request.body)
        self.admitted = request.admitted
        self.connection = request.connection
        if not keep_alive:
            self.disable_keep_alive()

    def disable_keep_alive(self) -> None:
        """The response ends the connection, unless its head was sent already."""
        if not self.startedWriting:
            self.responseHeaders.setRawHeaders(b"connection", [b"close"])

    @property
    def closes_connection(self) -> bool:
        """Whether the response ends the connection."""
        return any(value.lower() == b"close" for value in self.responseHeaders.getRawHeaders(b"connection", []))


class WebChannel:
    """Mix-in for a channel: what ``twisted.web`` requests call on it, passed on to the transport."""

    transport: Any
    counted_as: Any = None
    """What counts the submissions of the client's address, for the door."""
    _peer_host: str | None = None
    identified = False
    identity: Any = None
    """Whom the client of the connection has proved to be, for the door, once that is ``identified``."""

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: WebHeaders) -> None:
        lines = [version, b" ", code, b" ", reason, b"\r\n"]
        for name, values in headers.getAllRawHeaders():
            for value in values:
                lines += (name, b": ", value, b"\r\n")
        lines.append(b"\r\n")
        self.transport.write(b"".join(lines))

    def write(self, data: bytes) -> None:
        self.transport.write(data)

    def writeSequence(self, pieces: list[bytes]) -> None:
        self.transport.write(b"".join(pieces))

    def loseConnection(self) -> None:
        self.transport.loseConnection()

    def getPeer(self) -> Any:
        return self.transport.getPeer()

    @property
    def peer_host(self) -> str:
        """The address of the client; empty: it has none, as on a Unix socket. The transport is asked once."""
        if self._peer_host is None:
            self._peer_host = getattr(self.getPeer(), "host", None) or ""
        return self._peer_host

    def getHost(self) -> Any:
        return self.transport.getHost()

    def isSecure(self) -> bool:
        return hasattr(self.transport, "getPeerCertificate")
