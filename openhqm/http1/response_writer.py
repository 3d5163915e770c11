# -*- test-case-name: tests.ingress.test_fast_path -*-
"""Writes a response of unknown length to a connection, piece by piece."""

from __future__ import annotations

from typing import Any, Protocol


class _Channel(Protocol):
    def write(self, data: bytes) -> None:
        """Write ``data`` to the transport."""

    def stream_finished(self, writer: ChannelWriter) -> None:
        """The response is complete."""

    def update_reading(self) -> None:
        """Read from the client, or pause it."""

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """As `twisted.internet.interfaces.IConsumer` has it."""

    def unregisterProducer(self) -> None:
        """As `twisted.internet.interfaces.IConsumer` has it."""


class ChannelWriter:
    """A `ResponseWriter` that writes to a connection: in chunks, or (HTTP/1.0) up to the end of the connection."""

    __slots__ = ("_channel", "_chunked", "sent")

    def __init__(self, channel: _Channel, chunked: bool) -> None:
        self._channel = channel
        self._chunked = chunked
        self.sent = 0  # bytes of the body

    def write(self, data: bytes) -> None:
        self.sent += len(data)
        self._channel.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def finish(self) -> None:
        if self._chunked:
            self._channel.write(b"0\r\n\r\n")
        self._channel.stream_finished(self)

    def update_reading(self) -> None:
        self._channel.update_reading()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self._channel.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        self._channel.unregisterProducer()
