# -*- test-case-name: tests.ingress.test_fast_path -*-
"""A response of unknown length, straight into a connection."""

from __future__ import annotations

from typing import Any, Protocol


class _Channel(Protocol):
    def write(self, data: bytes) -> None:
        """Send this."""

    def streamed(self, outlet: ChannelOutlet) -> None:
        """The response is complete."""

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """As transports have it."""

    def unregisterProducer(self) -> None:
        """As transports have it."""


class ChannelOutlet:
    """An `Outlet` straight into a connection."""

    __slots__ = ("_channel", "_chunked", "sent")

    def __init__(self, channel: _Channel, chunked: bool) -> None:
        self._channel = channel
        self._chunked = chunked
        self.sent = 0

    def write(self, data: bytes) -> None:
        self.sent += len(data)
        self._channel.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def finish(self) -> None:
        if self._chunked:
            self._channel.write(b"0\r\n\r\n")
        self._channel.streamed(self)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self._channel.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        self._channel.unregisterProducer()
