"""A directory as a broker: a channel is a directory in it, a message is a file, and a rename claims the message.

The file ``1700000000-7-1`` waits; ``1700000000-7-1.1700000030000`` is out until that millisecond. Of all processes that
rename a file one succeeds; there is no other lock.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IReactorTime

from openhqm.errors import NotDurable
from openhqm.interfaces import BrokerTraits, ChannelMissing, Message
from openhqm.pulled.broker import PulledBroker
from openhqm.pulled.product import Taken


def directory_broker(root: Path, clock: IReactorTime, lease: float = 30.0) -> PulledBroker:
    """A broker in ``root``. It blocks: one for real use would run its functions in a thread."""
    traits = BrokerTraits(lease_seconds=lease, counts_redeliveries=False)
    return PulledBroker(Directory(root, clock, lease), traits, clock, maybeDeferred, probe_seconds=0.02)


class Directory:
    """The functions of the product."""

    def __init__(self, root: Path, clock: IReactorTime, lease: float) -> None:
        self.root, self.clock, self.lease, self.last = root, clock, lease, 0

    def probe(self) -> None:
        os.listdir(self.root)

    def publish(self, channel: str, messages: Sequence[Message]) -> Sequence[NotDurable | None]:
        return [self.write(channel, message) for message in messages]

    def write(self, channel: str, message: Message) -> ChannelMissing | None:
        if not (self.root / channel).is_dir():
            return ChannelMissing(channel)
        self.last = max(self.last + 1, int(1e6 * self.clock.seconds()))
        path = self.root / channel / f".{self.last}-{os.getpid()}-{id(self)}"
        head = json.dumps({"headers": dict(message.headers), "key": message.key})
        path.write_bytes(head.encode() + b"\n" + message.body)
        sync(path)
        sync(path.rename(path.with_name(path.name[1:])).parent)
        return None

    def take(self, channel: str, most: int) -> Sequence[Taken]:
        return list(islice(self.claims(channel), most))

    def claims(self, channel: str) -> Iterator[Taken]:
        for path in self.files(channel):
            with suppress(FileNotFoundError):  # another process was faster
                if not path.suffix or int(path.suffix[1:]) <= 1000 * self.clock.seconds():
                    receipt = self.extend(path, self.lease)
                    head, _, body = receipt.read_bytes().partition(b"\n")
                    yield Taken(receipt, Message(body, **json.loads(head)))

    def files(self, channel: str) -> Sequence[Path]:
        if not (self.root / channel).is_dir():
            self.probe()
            raise ChannelMissing(channel)
        return sorted((self.root / channel).glob("[!.]*"))

    def ack(self, receipt: Path) -> None:
        receipt.unlink()

    def requeue(self, receipt: Path) -> None:
        receipt.rename(receipt.with_suffix(""))

    def extend(self, receipt: Path, seconds: float) -> Path:
        return receipt.rename(receipt.with_suffix(f".{round(1000 * (self.clock.seconds() + seconds))}"))

    def make(self, channel: str) -> None:
        (self.root / channel).mkdir(exist_ok=True)

    def depth(self, channel: str) -> int:
        now = 1000 * self.clock.seconds()
        return sum(not path.suffix or int(path.suffix[1:]) <= now for path in self.files(channel))


def sync(path: Path) -> None:
    """Wait until a file, or the names in a directory, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
