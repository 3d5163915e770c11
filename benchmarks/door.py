"""What proving who calls, tenants and limits add in the door, in this process: the lowest of many short turns.

    python -m benchmarks.door [--turns 600]

Each kind of `benchmarks.credentials` but TLS is a site of its own, over a connection and a queue in memory. A turn is
20 requests. What else the machine does makes most turns longer, and not the lowest one, so that this can be measured
beside other work. It is without system calls and commits: those are in `benchmarks.credentials`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.testing import StringTransport

from benchmarks.accepting import Kind
from benchmarks.credentials import kinds_of
from openhqm.backends import PRODUCTS
from openhqm.config.loading import load
from openhqm.runtime.steady_time import keep_steady
from openhqm.service import OpenHQM

REQUESTS = 20


class _Transport(StringTransport):
    """It takes everything at once, and keeps the last of it."""

    def writeSomeData(self, data: bytes) -> int:
        self.last = data
        return len(data)


class _Door:
    def __init__(self, kind: Kind) -> None:
        environment = {"OPENHQM_QUEUE__TYPE": "memory", "OPENHQM_WORKER__HANDLER": "echo", **kind.environment}
        self._service = OpenHQM(load(None, environment, PRODUCTS), reactor)
        self._channel: Any = self._service._site.buildProtocol(None)
        self._transport = _Transport(peerAddress=IPv4Address("TCP", "127.0.0.1", 1))
        self._channel.makeConnection(self._transport)
        head = b"POST /api/v1/submit HTTP/1.1\r\nHost: localhost\r\n%bContent-Type: application/json\r\n" % kind.field
        self._request = b"%bContent-Length: %d\r\n\r\n%b" % (head, len(kind.body), kind.body)
        for _ in range(50):
            self.turn()
        assert self._transport.last.startswith(b"HTTP/1.1 202"), self._transport.last

    def turn(self) -> float:
        """Microseconds for each request."""
        began = time.perf_counter()
        for _ in range(REQUESTS):
            self._channel.dataReceived(self._request)
        return (time.perf_counter() - began) / REQUESTS * 1e6


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--turns", type=int, default=600)
    turns = options.parse_args().turns
    keep_steady(reactor)
    with tempfile.TemporaryDirectory() as directory:
        kinds = {name: kind for name, kind in kinds_of(Path(directory)).items() if not kind.secure}
        doors = {name: _Door(kind) for name, kind in kinds.items()}
        lowest = dict.fromkeys(kinds, float("inf"))
        for name, kind in kinds.items():
            than = kind.than or next(iter(kinds))
            for _ in range(turns):  # in pairs: more of them would push each other out of the caches of the processor
                for each in (than, name):
                    lowest[each] = min(lowest[each], doors[each].turn())
    for name, kind in kinds.items():
        than = kind.than or next(iter(kinds))
        print(f"{name:16} {lowest[name]:6.2f} us, {lowest[name] - lowest[than]:5.2f} more than {than}")


if __name__ == "__main__":
    main()
