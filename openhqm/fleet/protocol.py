# -*- test-case-name: tests.fleet.test_parts -*-
"""What a parent and its processes say to each other, and how it goes through a pipe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from twisted.internet.interfaces import ITransport
from twisted.protocols.basic import Int32StringReceiver

MOST_BYTES = 8 * 1024 * 1024


class Family(msgspec.Struct, frozen=True):
    """A metric with its samples: for each its name, its labels and its value."""

    name: str
    kind: str
    help: str
    samples: list[tuple[str, dict[str, str], float]]


class Standing(msgspec.Struct, frozen=True):
    """How a process is.

    ``unavailable_reason``: why it could keep no 202; ``stuck``: why only a new process would help.
    """

    unavailable_reason: str | None = None
    stuck: str | None = None
    warnings: list[str] = []


class Process(msgspec.Struct, frozen=True):
    """A process as its parent sees it. ``state`` is one of `STATES`."""

    pid: int
    state: str
    standing: Standing


STATES = ("starting", "ready", "leaving", "silent")


class Report(msgspec.Struct, frozen=True, tag="report"):
    """A process, every second: how it is, what it has counted, and whether it serves."""

    standing: Standing
    figures: list[Family]
    serving: bool


class Question(msgspec.Struct, frozen=True, tag="question"):
    """A process to its parent: how is everybody? With ``figures``: and what have all counted together?"""

    number: int
    figures: bool


class Everybody(msgspec.Struct, frozen=True, tag="everybody"):
    """The answer. ``missing``: how many processes there should be besides."""

    number: int
    processes: list[Process]
    missing: int
    figures: list[Family] | None


class Serve(msgspec.Struct, frozen=True, tag="serve"):
    """The parent: take connections, and work."""


class Leave(msgspec.Struct, frozen=True, tag="leave"):
    """The parent: another has taken your place. Serve whoever is connected, and end."""


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """The parent: everything stops."""


Word = Report | Question | Everybody | Serve | Leave | Stop

_encoder = msgspec.msgpack.Encoder()  # and not JSON, which has no word for infinity
_decoder: msgspec.msgpack.Decoder[Word] = msgspec.msgpack.Decoder(Word)


class Pipe(Int32StringReceiver):
    """Words through a pipe, each with its length before it."""

    MAX_LENGTH = MOST_BYTES

    def __init__(self, heard: Callable[[Any], object], lost: Callable[[], object] = lambda: None) -> None:
        self._heard = heard
        self._lost = lost

    def say(self, word: Word) -> None:
        """Send it."""
        self.sendString(_encoder.encode(word))

    def stringReceived(self, string: bytes) -> None:
        self._heard(_decoder.decode(string))

    def connectionLost(self, reason: object = None) -> None:
        self._lost()


class Writing:
    """As much of a transport as `Pipe` needs to speak to a child process."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self.write = write

    def writeSequence(self, pieces: list[bytes]) -> None:
        self.write(b"".join(pieces))

    def loseConnection(self) -> None:
        """What comes can no longer be understood; the process will be missed."""


def speaking_by(pipe: Pipe, write: Callable[[bytes], object]) -> Pipe:
    """``pipe``, with ``write`` to speak by."""
    transport: ITransport | Any = Writing(write)
    pipe.makeConnection(transport)
    return pipe
