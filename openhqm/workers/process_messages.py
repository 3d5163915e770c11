# -*- test-case-name: tests.workers.test_processes -*-
"""What this process and those of the handlers say to each other, over pipes: frames of msgpack behind their length."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

TO_HANDLER, FROM_HANDLER = 3, 4
"""The descriptors of the pipes in the process of the handler."""
MOST_BESIDES = 1 << 20
"""How many bytes a message may have besides the answer: header fields, the traceback, a progress event."""
_LENGTH = 4


class Call(msgspec.Struct, frozen=True, tag=True):
    """Call the handler at ``path`` with ``request``, an envelope of `openhqm.codec`.

    ``time_left`` is in seconds. ``most`` is the largest answer in bytes.
    """

    path: str
    request: bytes
    attempt: int
    max_attempts: int
    time_left: float
    most: int


class Progress(msgspec.Struct, frozen=True, tag=True):
    """The handler reports a progress event; ``detail`` is JSON text."""

    detail: bytes


class Outcome(msgspec.Struct, frozen=True, tag=True):
    """What came of a call. ``kind`` is one of ``completed``, ``rejected``, ``later``, ``unusable`` and ``failed``.

    ``result`` and ``body`` are those of the answer; both None: there is none. ``delay`` and ``at_least``: see
    `RetryLater`. ``traceback`` is for the log.
    """

    kind: str
    error: str = ""
    result: bytes | None = None
    body: bytes | None = None
    status_code: int = 200
    headers: dict[str, str] = {}
    delay: float | None = None
    at_least: float = 0.0
    traceback: str = ""


Message = Call | Progress | Outcome
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Call | Progress | Outcome)


def to_frame(message: Message) -> bytes:
    """A message as it is written to a pipe."""
    content = _encoder.encode(message)
    return len(content).to_bytes(_LENGTH, "big") + content


def read_frame(read: Callable[[int], bytes]) -> Any:
    """The next message, by ``read``, which returns as many bytes as it is asked for. `EOFError` where none follows."""
    length = int.from_bytes(_exactly(read, _LENGTH), "big")
    return _decoder.decode(_exactly(read, length))


def _exactly(read: Callable[[int], bytes], count: int) -> bytes:
    found = read(count)
    if len(found) < count:
        raise EOFError
    return found


class Frames:
    """Takes what comes from a pipe, in pieces of any size. ``received`` is called with each message.

    A message has at most ``most`` bytes.
    """

    def __init__(self, received: Callable[[Any], None], most: int) -> None:
        self._received = received
        self._most = most
        self._pieces: list[bytes] = []
        self._size = 0
        self._wanted = _LENGTH

    def feed(self, data: bytes) -> None:
        """Take the next piece. `ValueError` for what is no message, or is too large."""
        self._pieces.append(data)
        self._size += len(data)
        while self._size >= self._wanted:
            whole = b"".join(self._pieces)
            length = int.from_bytes(whole[:_LENGTH], "big")
            if length > self._most:
                raise ValueError(f"a message of {length} bytes")
            self._wanted = _LENGTH + length
            if len(whole) >= self._wanted:
                content, whole = whole[_LENGTH : self._wanted], whole[self._wanted :]
                self._wanted = _LENGTH
                self._received(_decoder.decode(content))
            self._pieces, self._size = [whole], len(whole)
