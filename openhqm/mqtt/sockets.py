# -*- test-case-name: tests.mqtt.test_connecting -*-
"""The socket under paho, or under its websocket: much is read and sent at once.

paho reads a packet in three calls, and sends each by itself; here most of these calls reach no kernel. A message that
has come as a whole is taken from here without paho.

paho 2.2 forgets a packet of which its websocket could send only a part (``_WebsocketWrapper._send_impl`` returns 0, and
``_packet_write`` drops the packet). So all that is sent is taken, and waits for `flush`. It is no more than what waits
to be confirmed.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import Any, Protocol

from twisted.internet.interfaces import IReadWriteDescriptor
from zope.interface import implementer

from openhqm.mqtt.received import read_number

_PUBLISH = 3
_READ_BYTES = 65_536


class _Owner(Protocol):
    def read(self) -> None: ...

    def write(self) -> None: ...

    def abort(self) -> None: ...


@implementer(IReadWriteDescriptor)
class Descriptor:
    """What the reactor knows of the socket ``raw`` of ``client``."""

    def __init__(self, client: _Owner, raw: Any) -> None:
        self._client = client
        self._number = raw.fileno()

    def fileno(self) -> int:
        return int(self._number)

    def logPrefix(self) -> str:
        return "mqtt"

    def connectionLost(self, reason: Any) -> None:
        self._client.read()  # the broker's reason may lie there
        self._client.abort()

    def doRead(self) -> None:
        self._client.read()

    def doWrite(self) -> None:
        self._client.write()


class BufferedSocket:
    """``raw`` does not block. Everything but sending and receiving is its own. ``framed``: it carries no packets, but
    the frames of a websocket.
    """

    def __init__(self, raw: Any, framed: bool = False) -> None:
        self._raw = raw
        self._framed = framed
        self._come = b""
        self._at = 0
        self._left = bytearray()

    @classmethod
    def under(cls, paho: Any, websocket: bool) -> BufferedSocket:
        """Put one under a paho client that is connected, or under its websocket."""
        holder, name = (paho.socket(), "_socket") if websocket else (paho, "_sock")
        made: BufferedSocket = cls(getattr(holder, name), websocket)
        setattr(holder, name, made)
        return made

    @property
    def waiting(self) -> bool:
        """Whether something waits to be sent."""
        return bool(self._left)

    def pending(self) -> bool:
        """Whether something has come that the reactor cannot see."""
        return self._at < len(self._come) or (isinstance(self._raw, ssl.SSLSocket) and self._raw.pending() > 0)

    def recv(self, size: int) -> bytes:
        """At most ``size`` bytes of what has come; none at its end. `BlockingIOError` and those of TLS: nothing yet."""
        if self._at >= len(self._come):
            if size >= _READ_BYTES:
                return bytes(self._raw.recv(_READ_BYTES))
            self._come, self._at = self._raw.recv(_READ_BYTES), 0
        start, self._at = self._at, min(self._at + size, len(self._come))
        return self._come[start : self._at]

    def take_publish(self) -> tuple[int, bytes] | None:
        """Take a PUBLISH packet: its first byte, and what is behind its length. It is asked for where a packet begins.

        None: what comes next is another packet, or has not all come.
        """
        if self._framed:
            return None
        if self._at >= len(self._come):
            with suppress(OSError):  # paho meets it next
                self._come, self._at = self._raw.recv(_READ_BYTES), 0
        come, at = self._come, self._at
        if at >= len(come) or come[at] >> 4 != _PUBLISH:
            return None
        try:
            length, start = read_number(come, at + 1)
        except (IndexError, ValueError):
            return None
        end = start + length
        if end > len(come):
            return None
        self._at = end
        return come[at], come[start:end]

    def send(self, data: bytes) -> int:
        """Have it sent by the next `flush`."""
        self._left += data
        return len(data)

    def flush(self) -> None:
        """Send as much of what waits as the kernel takes. `OSError`."""
        while self._left:
            try:
                sent = self._raw.send(self._left)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            del self._left[:sent]

    def close(self) -> None:
        """Send what the kernel takes, and close it."""
        with suppress(OSError):
            self.flush()
        self._come, self._at = b"", 0
        self._raw.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)
