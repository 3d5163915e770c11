# -*- test-case-name: tests.mqtt.test_connecting -*-
"""The socket under paho, or under its websocket: much is read and sent at once.

paho reads a packet in three calls, and sends each by itself; here most of these calls reach no kernel.

paho 2.2 forgets a packet of which its websocket could send only a part (``_WebsocketWrapper._send_impl`` returns 0, and
``_packet_write`` drops the packet). So all that is sent is taken, and waits for `flush`. It is no more than what waits
to be confirmed.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import Any

_READ_BYTES = 65_536


class BufferedSocket:
    """``raw`` does not block. Everything but sending and receiving is its own."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self._come = b""
        self._at = 0
        self._left = bytearray()

    @classmethod
    def under(cls, paho: Any, websocket: bool) -> BufferedSocket:
        """Put one under a paho client that is connected, or under its websocket."""
        holder, name = (paho.socket(), "_socket") if websocket else (paho, "_sock")
        made: BufferedSocket = cls(getattr(holder, name))
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
                return bytes(self._raw.recv(size))
            self._come, self._at = self._raw.recv(_READ_BYTES), 0
        start, self._at = self._at, min(self._at + size, len(self._come))
        return self._come[start : self._at]

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
