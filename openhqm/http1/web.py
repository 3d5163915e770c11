# -*- test-case-name: tests.http1.test_channel -*-
"""What ``twisted.web`` requests are made of, and what they want of a channel beyond order and back-pressure."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from twisted.web.http_headers import Headers as WebHeaders
from twisted.web.server import Request

from openhqm.http1.messages import Message


class WebRequest(Request):
    """A request of ``twisted.web`` that a channel has read."""

    def __init__(self, channel: Any, message: Message, keep_alive: bool) -> None:
        super().__init__(channel, False)
        self.requestHeaders = WebHeaders()
        for name, value in message.head.headers:
            self.requestHeaders.addRawHeader(name, value)
        self.content = BytesIO(message.body)
        if not keep_alive:
            self.say_close()

    def say_close(self) -> None:
        """Its response ends the connection, unless its head is on the way already."""
        if not self.startedWriting:
            self.responseHeaders.setRawHeaders(b"connection", [b"close"])

    @property
    def says_close(self) -> bool:
        """Whether its response ends the connection."""
        return any(value.lower() == b"close" for value in self.responseHeaders.getRawHeaders(b"connection", []))


class WebChannel:
    """The part of a channel that only hands on to its transport."""

    transport: Any

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

    def getHost(self) -> Any:
        return self.transport.getHost()

    def isSecure(self) -> bool:
        return hasattr(self.transport, "getPeerCertificate")
