"""The worked example keeps the contract of a broker on a real beanstalkd: as a queue, and as a broker of bridges."""

from __future__ import annotations

import atexit
import re
from itertools import count
from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from openhqm.testing import broker_contract
from tests.custom.beanstalkd import BeanstalkdServer, example
from tests.networked import NetworkedBench

LEASE = 1
_servers: list[BeanstalkdServer] = []
_tests = count(1)


def shared_server() -> BeanstalkdServer:
    """One for all tests of this run: each has tubes of its own in it."""
    if not _servers:
        _servers.append(BeanstalkdServer().start())
        atexit.register(_servers[0].close)
    return _servers[0]


class BeanstalkdBench(NetworkedBench):
    """An operator deletes a tube job by job; a job that is reserved only goes with its connection."""

    def __init__(self, case: TestCase) -> None:
        super().__init__(shared_server())
        self._prefix = f"bench{next(_tests)}."

    def client(self, port: int) -> Any:
        return example().make({"host": "127.0.0.1", "port": port, "lease": LEASE}, reactor)

    def channel(self, name: str) -> str:
        return self._prefix + name

    async def delete(self, channel: str) -> None:
        tube = channel.encode()
        for kind in (b"ready", b"delayed"):
            while found := re.search(rb"FOUND (\d+) ", self.server.say(b"use " + tube, b"peek-" + kind)):
                assert b"DELETED" in self.server.say(b"delete " + found[1])

    async def close(self) -> None:
        for broker, network in self.networks.items():
            await broker.stop()
            await network.refuse()


class BeanstalkdContract(broker_contract(BeanstalkdBench)):  # type: ignore[misc]
    """beanstalkd."""


del broker_contract
