# -*- test-case-name: tests.ingress.test_web_sockets -*-
"""Server-Sent Events as messages of a WebSocket: what a stream writes, one message for each event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

_FIELDS = ("id", "event", "data")


class Stream(Protocol):
    """An open stream."""

    def lost(self) -> object:
        """Its client is gone."""


def message(ref: str | int | None, name: str, value: bytes) -> str:
    """The JSON object with a member ``ref``, where there is one, and a member ``name`` whose JSON text is ``value``."""
    about = "" if ref is None else f'"ref":{msgspec.json.encode(ref).decode()},'
    return f'{{{about}"{name}":{value.decode()}}}'


class SocketSink:
    """The `Sink` of one stream. ``send`` takes a message, and ``finished`` is called with this at the stream's end."""

    def __init__(self, ref: str | int, send: Callable[[str], object], finished: Callable[[SocketSink], object]) -> None:
        self._ref = ref
        self._send = send
        self._finished = finished
        self._producer: Any = None
        self.stream: Stream | None = None
        self.paused = False

    def write(self, data: bytes) -> None:
        """Whole events (HTML standard, section 9.2.5). Comments, and when to reconnect, are not for a WebSocket."""
        for block in data.split(b"\n\n"):
            found: dict[str, bytes] = {}
            for line in block.split(b"\n"):
                name, _, value = line.partition(b": ")
                field = name.decode()
                if field in _FIELDS:
                    found[field] = found[field] + b"\n" + value if field in found else value
            if found:
                self._send(self._message(found))

    def _message(self, found: dict[str, bytes]) -> str:
        members = [f'"ref":{msgspec.json.encode(self._ref).decode()}']
        for name in ("event", "id"):
            if name in found:
                members.append(f'"{name}":{msgspec.json.encode(found[name].decode()).decode()}')
        if "data" in found:
            members.append(f'"data":{found["data"].decode()}')
        return "{" + ",".join(members) + "}"

    def finish(self) -> None:
        """The stream is complete."""
        self._finished(self)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Pause ``producer`` while the client does not keep up."""
        self._producer = producer
        if self.paused:
            producer.pauseProducing()

    def unregisterProducer(self) -> None:
        """Control the producer no more."""
        self._producer = None

    def pause(self) -> None:
        """The client does not keep up."""
        self.paused = True
        if self._producer is not None:
            self._producer.pauseProducing()

    def resume(self) -> None:
        """The client reads again."""
        self.paused = False
        if self._producer is not None:
            self._producer.resumeProducing()

    def leave(self) -> None:
        """The client listens no more."""
        self._producer = None
        if self.stream is not None:
            self.stream.lost()
