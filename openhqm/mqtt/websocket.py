# -*- test-case-name: tests.mqtt.test_connecting -*-
"""The socket under paho's websocket, which takes all that is sent.

paho 2.2 forgets a packet of which its websocket could send only a part (``_WebsocketWrapper._send_impl`` returns 0, and
``_packet_write`` drops the packet). So that never happens: what the kernel does not take waits here. It is no more than
what waits to be confirmed.
"""

from __future__ import annotations

import ssl
from typing import Any


class WholeSocket:
    """``raw`` does not block. Everything but sending is its own."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self._left = bytearray()

    @classmethod
    def under(cls, websocket: Any) -> WholeSocket:
        """Put one under a websocket of paho's that is connected."""
        made: WholeSocket = cls(websocket._socket)
        websocket._socket = made
        return made

    @property
    def waiting(self) -> bool:
        """Whether something waits to be sent."""
        return bool(self._left)

    def send(self, data: bytes) -> int:
        """Send it, now or later."""
        self._left += data
        self.flush()
        return len(data)

    def flush(self) -> None:
        """Send as much of what waits as the kernel takes."""
        while self._left:
            try:
                sent = self._raw.send(self._left)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            del self._left[:sent]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)
