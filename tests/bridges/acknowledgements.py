"""A proxy before an MQTT broker that notes what its clients acknowledge: the payload of each PUBLISH they answered."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

from tests.servers import free_port

PUBLISH, PUBACK = 3, 4


class Packets:
    """The control packets in a stream of bytes (MQTT 5, section 2.1)."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[tuple[int, int, bytes]]:
        """Each whole packet: its type, its flags and what follows its fixed header."""
        self._buffer += data
        found = []
        while len(self._buffer) >= 2:
            length, start = variable(self._buffer, 1)
            if start == 0 or len(self._buffer) < start + length:
                break
            found.append((self._buffer[0] >> 4, self._buffer[0] & 15, self._buffer[start : start + length]))
            self._buffer = self._buffer[start + length :]
        return found


def variable(data: bytes, at: int) -> tuple[int, int]:
    """A variable byte integer, and where it ends; 0: it is not there yet."""
    value, shift = 0, 0
    for index in range(at, min(at + 4, len(data))):
        value |= (data[index] & 127) << shift
        shift += 7
        if not data[index] & 128:
            return value, index + 1
    return 0, 0


class AcknowledgementProxy:
    """``acknowledged`` has every payload that was acknowledged, through any connection to ``port``."""

    def __init__(self, broker_port: int) -> None:
        self.port = free_port()
        self.acknowledged: list[bytes] = []
        self._broker_port = broker_port
        self._listening = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Accept no more connections."""
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            broker = socket.create_connection(("127.0.0.1", self._broker_port))
        except OSError:
            client.close()
            return
        sent: dict[bytes, bytes] = {}
        back = threading.Thread(target=self._pass, args=(broker, client, lambda *packet: delivered(sent, *packet)))
        back.daemon = True
        back.start()
        self._pass(client, broker, lambda kind, flags, rest: self._note(sent, kind, rest))

    def _note(self, sent: dict[bytes, bytes], kind: int, rest: bytes) -> None:
        if kind == PUBACK and rest[:2] in sent:
            self.acknowledged.append(sent.pop(rest[:2]))

    def _pass(self, source: socket.socket, sink: socket.socket, look: object) -> None:
        packets = Packets()
        with suppress(OSError):
            while data := source.recv(1 << 16):
                for packet in packets.feed(data):
                    look(*packet)  # type: ignore[operator]
                sink.sendall(data)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


def delivered(sent: dict[bytes, bytes], kind: int, flags: int, rest: bytes) -> None:
    """Note the payload of a PUBLISH of MQTT 5 with QoS 1, by its packet identifier."""
    if kind == PUBLISH and flags & 6:
        end = 2 + int.from_bytes(rest[:2], "big")
        length, start = variable(rest, end + 2)
        sent[rest[end : end + 2]] = rest[start + length :]
