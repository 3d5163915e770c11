# -*- test-case-name: tests.ingress.test_web_sockets -*-
"""A connection that speaks another protocol from now on: the answer 101 (RFC 9110, section 7.8)."""

from __future__ import annotations

from typing import Protocol

from openhqm.http1.messages import SERVER, StreamedAnswer, http_date


class Receiver(Protocol):
    """Gets the bytes that the client sends from then on. It writes to what `Upgrade.begin` was called with.

    As a producer that is registered there, it is paused while the client does not read, and stopped once it is gone.
    """

    @property
    def held(self) -> int:
        """How many bytes of what it was given it keeps in memory."""

    def received(self, data: bytes) -> object:
        """Some bytes have come."""

    def overloaded(self) -> object:
        """There is no memory for what it holds: end the connection."""

    def half_closed(self) -> object:
        """The client sends nothing more."""

    @property
    def takes_more(self) -> bool:
        """Whether it may be given more bytes. It calls `ResponseWriter.update_reading` when that changes."""


class Upgrade(StreamedAnswer, frozen=True):
    """``fields`` name the protocol. ``begin`` returns a `Receiver`.

    ``passed_on``: the answer is another server's, with fields of its own about that server.
    """

    passed_on: bool = False


def render_upgrade(answer: Upgrade) -> bytes:
    """The head of the answer."""
    pieces = [b"HTTP/1.1 101 Switching Protocols\r\n"]
    if not answer.passed_on:
        pieces.append(b"Server: %b\r\nDate: %b\r\n" % (SERVER, http_date()))
    pieces += [b"%b: %b\r\n" % field for field in answer.fields]
    return b"".join((*pieces, b"\r\n"))
