"""An MQTT 5 server that says what a test tells it to say (https://docs.oasis-open.org/mqtt/mqtt/v5.0/mqtt-v5.0.html)."""

from __future__ import annotations

import struct
from typing import Any

from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol

from openhqm.mqtt.address import Address
from tests.servers import free_port

CONNECT, PUBLISH, PUBACK, SUBSCRIBE, UNSUBSCRIBE, PING = 1, 3, 4, 8, 10, 12


def packet(kind: int, body: bytes, flags: int = 0) -> bytes:
    """A control packet."""
    left, size = len(body), bytearray()
    while left or not size:
        left, digit = divmod(left, 128)
        size.append(digit | (128 if left else 0))
    return b"%c%b%b" % (kind << 4 | flags, size, body)


def publish(topic: bytes, payload: bytes, mid: int = 1, properties: bytes = b"\0") -> bytes:
    """A PUBLISH with QoS 1 of MQTT 5. ``properties`` begin with their length."""
    return packet(
        PUBLISH, struct.pack(">H", len(topic)) + topic + struct.pack(">H", mid) + properties + payload, flags=2
    )


class _Connection(Protocol):
    factory: ScriptedServer

    def __init__(self) -> None:
        self._data = b""

    def connectionMade(self) -> None:
        self.factory.connections.append(self)

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        while len(self._data) > 1:
            length, size, shift = 0, 1, 0
            while True:
                if size >= len(self._data):
                    return
                byte = self._data[size]
                length |= (byte & 127) << shift
                size, shift = size + 1, shift + 7
                if byte < 128:
                    break
            if len(self._data) < size + length:
                return
            first, body = self._data[0], self._data[size : size + length]
            self._data = self._data[size + length :]
            self.factory.heard.append((first >> 4, body))
            self._answer(first >> 4, body)

    def _answer(self, kind: int, body: bytes) -> None:
        server = self.factory
        if kind == CONNECT and server.connect_code is not None:
            self.say(
                packet(2, bytes([server.session, server.connect_code, len(server.properties)]) + server.properties)
            )
        elif kind == SUBSCRIBE:
            topic = body[5 : 5 + struct.unpack(">H", body[3:5])[0]]
            self.say(packet(9, body[:2] + b"\0" + bytes([server.subscribe_codes.get(topic, server.subscribe_code)])))
            if topic in server.retained:
                self.say(packet(3, struct.pack(">H", len(topic)) + topic + b"\0" + server.retained[topic], flags=1))
        elif kind == UNSUBSCRIBE:
            self.say(packet(11, body[:2] + b"\0\0"))
        elif kind == PUBLISH and server.publish_code is not None:
            start = 2 + struct.unpack(">H", body[:2])[0]
            self.say(packet(4, body[start : start + 2] + bytes([server.publish_code, 0])))
        elif kind == PING:
            self.say(packet(13, b""))

    def say(self, data: bytes) -> None:
        self.transport.write(data)  # type: ignore[union-attr]


class ScriptedServer(Factory):
    """``heard`` are the packets that came: the type of each, and its body. ``properties`` are those of the CONNACK.

    The codes are what CONNECT, SUBSCRIBE and PUBLISH are answered with; None: not at all. ``subscribe_codes`` are for
    some topics, and ``retained`` is what lies in some.
    """

    protocol = _Connection
    noisy = False

    def __init__(self) -> None:
        self.port = free_port()
        self.connections: list[_Connection] = []
        self.heard: list[tuple[int, bytes]] = []
        self.properties = b""
        self.session = 0
        self.connect_code: int | None = 0
        self.subscribe_code = 1
        self.subscribe_codes: dict[bytes, int] = {}
        self.retained: dict[bytes, bytes] = {}
        self.publish_code: int | None = 0
        self._listening: Any = reactor.listenTCP(self.port, self, interface="127.0.0.1")  # type: ignore[attr-defined]

    @property
    def address(self) -> Address:
        """Where it is."""
        return Address("127.0.0.1", self.port, keepalive=60)

    def count(self, kind: int) -> int:
        """How many packets of that type came."""
        return sum(each == kind for each, _ in self.heard)

    def say(self, data: bytes) -> None:
        """Say it to the client that connected last."""
        self.connections[-1].say(data)

    async def close(self) -> None:
        """End every connection, and take none any more."""
        for connection in self.connections:
            connection.transport.abortConnection()  # type: ignore[union-attr]
        await self._listening.stopListening()
