"""An MQTT 5 broker that sends what no broker should: raw packets, until each is acknowledged."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress

from tests.mqtt.scripted import CONNECT, PING, PUBACK, PUBLISH, SUBSCRIBE, UNSUBSCRIBE, packet, publish

LAST = b'"the last one"'
"""The message behind all poison."""
MIB = 1024 * 1024
LARGEST = 0xFFF_FFFF
"""The largest packet of MQTT, without the byte and the length before it: 256 MiB less one byte."""


class LaxBroker:
    """Who subscribes gets the messages that are not acknowledged. Once all are, it gets the first of the ``poison``: at
    which it may hang up, and gets the next one when it is back. ``acknowledged`` are identifiers.
    """

    def __init__(self) -> None:
        self.acknowledged: list[int] = []
        self.poison: list[bytes] = []
        self._messages: dict[int, bytes] = {}
        self._largest = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def add(self, topic: bytes, payload: bytes, properties: bytes = b"\0") -> None:
        """One more message, for the next subscriber."""
        mid = len(self._messages) + 1
        self._messages[mid] = publish(topic, payload, mid, properties)

    def add_the_largest(self, topic: bytes) -> None:
        """One more message, and the last one: zeros, as many as a packet can have."""
        self._largest = mid = len(self._messages) + 1
        self._messages[mid] = b"\x32\xff\xff\xff\x7f" + _head(topic, mid)
        self._zeros = LARGEST - len(_head(topic, mid))

    def close(self) -> None:
        """Take no connections any more."""
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=(self._listening.accept()[0],), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError, IndexError), connection, connection.makefile("rb") as come:
            while True:
                kind, size, shift = come.read(1)[0] >> 4, 0, 0
                while True:
                    byte = come.read(1)[0]
                    size, shift = size | (byte & 127) << shift, shift + 7
                    if byte < 128:
                        break
                connection.sendall(self._answer(kind, come.read(size)))
                if kind == SUBSCRIBE and self._largest and self._largest not in self.acknowledged:
                    for sent in range(0, self._zeros, MIB):
                        connection.sendall(bytes(min(MIB, self._zeros - sent)))

    def _answer(self, kind: int, body: bytes) -> bytes:
        if kind == CONNECT:
            return packet(2, b"\0\0\0")
        if kind == SUBSCRIBE:
            left = [message for mid, message in self._messages.items() if mid not in self.acknowledged]
            return packet(9, body[:2] + b"\0\x01") + b"".join(left) + self._next_poison()
        if kind == UNSUBSCRIBE:
            return packet(11, body[:2] + b"\0\0")
        if kind == PUBLISH:
            start = 2 + struct.unpack(">H", body[:2])[0]
            return packet(4, body[start : start + 2])
        if kind == PUBACK:
            self.acknowledged.append(struct.unpack(">H", body[:2])[0])
            return self._next_poison()
        return packet(13, b"") if kind == PING else b""

    def _next_poison(self) -> bytes:
        if not self.poison or len(self.acknowledged) < len(self._messages):
            return b""
        if len(self.poison) == 1:
            self.add(b"t/last", LAST)
        return self.poison.pop(0)


def _head(topic: bytes, mid: int) -> bytes:
    return struct.pack(">H", len(topic)) + topic + struct.pack(">H", mid) + b"\0"
