"""``python -m tests.kafka.fenced``: asks a Kafka that is alone, and fenced after the first answer, whether it answers.

A broker whose heartbeats come too late is fenced by the controller (KIP-631): it still answers, and tells of no broker.
This one is written by hand, because a real one cannot be told to be late.
"""

from __future__ import annotations

import socket
import sys
import threading
from struct import Struct
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from openhqm.errors import NotDurable
from openhqm.kafka.topics import Topics

METADATA, API_VERSIONS = 3, 18
UNKNOWN_TOPIC, UNSUPPORTED_VERSION = 3, 35
HEAD = Struct(">ihhi")
NOTHING = b"\xff\xff"


def text(value: str) -> bytes:
    return len(value).to_bytes(2, "big") + value.encode()


def number(value: int, size: int = 4) -> bytes:
    return value.to_bytes(size, "big", signed=True)


class Fenced:
    """One broker, in threads. https://kafka.apache.org/protocol: Metadata 8, and ApiVersions 0."""

    def __init__(self) -> None:
        self.is_fenced = False
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            connection, _ = self._listening.accept()
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        read = connection.makefile("rb")
        while head := read.read(HEAD.size):
            size, key, version, correlation = HEAD.unpack(head)
            body = read.read(size - HEAD.size + 4)
            answer = self._versions(version) if key == API_VERSIONS else self._metadata(body)
            connection.sendall(number(4 + len(answer)) + number(correlation) + answer)

    def _versions(self, asked: int) -> bytes:
        keys = ((METADATA, 8, 8), (API_VERSIONS, 0, 0))
        each = b"".join(number(value, 2) for key in keys for value in key)
        return number(UNSUPPORTED_VERSION if asked else 0, 2) + number(len(keys)) + each

    def _metadata(self, body: bytes) -> bytes:
        at = 2 + int.from_bytes(body[:2], "big")  # behind the name of the client
        count = int.from_bytes(body[at : at + 4], "big", signed=True)
        at += 4
        topics = number(max(0, count))
        for _ in range(count):
            name = body[at : at + 2 + int.from_bytes(body[at : at + 2], "big")]
            at += len(name)
            topics += number(UNKNOWN_TOPIC, 2) + name + b"\0" + number(0) + number(-(2**31))
        me = number(0) + text("127.0.0.1") + number(self.port) + NOTHING
        brokers, controller = (number(0), number(-1)) if self.is_fenced else (number(1) + me, number(0))
        return number(0) + brokers + text("alone") + controller + topics + number(-(2**31))


async def ask(reactor: Any) -> None:
    kafka = Fenced()
    topics = Topics({"bootstrap.servers": f"127.0.0.1:{kafka.port}", "log_level": 0}, reactor)
    topics.start()
    await topics.probe()
    print("it answers", flush=True)
    kafka.is_fenced = True
    for _ in range(2):
        try:
            await topics.probe()
        except NotDurable as error:
            print(error.reason)
    print("we live")


if __name__ == "__main__":
    react(lambda reactor: Deferred.fromCoroutine(ask(reactor)), sys.argv[1:])
