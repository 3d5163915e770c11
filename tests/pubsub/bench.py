"""Pub/Sub on the bench of the contract: a real server, and a network of its own for each client."""

from __future__ import annotations

import random
from itertools import count
from typing import Any

from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from openhqm.pubsub.broker import Address, PubSubBroker
from openhqm.pubsub.subscriptions import Wanted
from tests.networked import NetworkedBench
from tests.pubsub.server import PROJECT, PubSubServer

LEASE = 2.0
_tests = count(1)


class PubSubBench(NetworkedBench):
    """With a dead-letter policy, because then deliveries are counted."""

    dead_letters: str | None = "dead"

    def __init__(self, server: PubSubServer) -> None:
        super().__init__(server)
        self.prefix = f"bench{next(_tests)}."

    def client(self, port: int) -> PubSubBroker:
        dead = None if self.dead_letters is None else self.prefix + self.dead_letters
        return PubSubBroker(
            Address(PROJECT, f"http://127.0.0.1:{port}", emulator=True),
            reactor,
            random.random,
            Wanted(LEASE, dead_letters=dead),
            seconds=5.0,
            probe_seconds=0.25,
        )

    def channel(self, name: str) -> str:
        return self.prefix + name

    async def delete(self, channel: str) -> None:
        await deferToThread(self.server.delete, channel)

    async def disconnect(self, broker: Any) -> None:
        """A client that has no call under way notices by its next one."""
        await self.networks[broker].refuse()
        while broker.unavailable_reason is None:
            await self.pass_time(0.02)
        self.networks[broker].accept()

    async def close(self) -> None:
        for broker in self.networks:
            await broker.stop()
        await self.away()
        self.server.close()


class UncountedBench(PubSubBench):
    """Without one."""

    dead_letters = None


def pubsub_bench(case: TestCase) -> Any:
    """For `openhqm.testing.broker_contract`."""
    return PubSubBench(PubSubServer().start())


def uncounted_bench(case: TestCase) -> Any:
    """The same, where nothing counts deliveries."""
    return UncountedBench(PubSubServer().start())
