"""beanstalkd (https://beanstalkd.github.io) as a broker: its protocol is lines of text over one TCP connection.

A channel is a tube. A tube exists for as long as something is in it, so one that was made holds a job that is delayed
for 136 years. A delivery is a reserved job: it is leased for the time to run (TTR) of the job, and comes back at once
where the connection ends.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from client import Client, run
from twisted.internet.defer import Deferred

from openhqm.errors import NotDurable
from openhqm.interfaces import BrokerTraits, ChannelMissing, Message, Properties
from openhqm.pulled.broker import PulledBroker
from openhqm.pulled.product import Taken

FOR_EVER = 2**32 - 1  # the longest delay, in seconds
HEAD = 4096  # bytes of a job that are kept for headers and key


def make(options: dict[str, Any], clock: Any) -> Beanstalkd:
    """The factory. Options: ``host``, ``port``, ``lease`` (the TTR, in seconds), ``max_job_size`` (as ``-z`` says), and
    ``raw``, for bridges and endpoints: a job is a body and no more, as other programs put it.
    """
    client = Client(clock, options.get("host", "127.0.0.1"), int(options.get("port", 11300)))
    largest = int(options.get("max_job_size", 65535)) - HEAD
    return Beanstalkd(Tubes(client, int(options.get("lease", 60)), largest, options.get("raw", False)), clock)


class Beanstalkd(PulledBroker):
    """A client, whose leases end with its connection."""

    def __init__(self, tubes: Tubes, clock: Any) -> None:
        traits = BrokerTraits(lease_seconds=tubes.lease, largest_message=tubes.largest)
        super().__init__(tubes, traits, clock, run, name="beanstalkd", idle_seconds=0.1)  # type: ignore[arg-type]
        self.client = tubes.client
        self.client.on_lost = self.connection_lost

    def stop(self) -> Deferred[None]:
        self.client.disconnect()
        return super().stop()


class Tubes:
    """The functions of the product (`openhqm.pulled.product.Product`)."""

    def __init__(self, client: Client, lease: int, largest: int, raw: bool) -> None:
        self.client, self.lease, self.largest, self.raw = client, lease, largest, raw
        self.probe, self.ask, self.ask_all = client.probe, client.ask, client.ask_all

    async def publish(self, channel: str, messages: Sequence[Message]) -> Sequence[NotDurable | None]:
        await self.depth(channel)  # ChannelMissing
        answers = [run(self.ask, f"use {channel}", "USING"), *(run(self.put, each) for each in messages)]
        return [await each.addCallbacks(lambda _: None, lambda failure: failure.value) for each in answers][1:]

    async def put(self, message: Message) -> None:
        head = b"" if self.raw else json.dumps([dict(message.headers), message.key]).encode() + b"\n"
        if len(message.body) > self.largest:
            raise NotDurable(f"the body is longer than {self.largest} bytes")
        await self.ask(f"put 1024 0 {self.lease} {len(head + message.body)}", "INSERTED", head + message.body)

    async def take(self, channel: str, most: int) -> Sequence[Taken]:
        await self.depth(channel)  # ChannelMissing
        commands = [("reserve-with-timeout 0", "RESERVED TIMED_OUT DEADLINE_SOON")] * most
        connection = self.client.connection
        if connection is not None and connection.watching != channel:
            commands[:0] = [(f"watch {channel}", "WATCHING"), (f"ignore {connection.watching}", "WATCHING")]
            connection.watching = channel
        jobs = [(words[1], job) for words, job in await self.ask_all(*commands) if words[0] == "RESERVED"]
        stats = [stats for _, stats in await self.ask_all(*((f"stats-job {id}", "OK") for id, _ in jobs))]
        return [
            Taken((connection, id), self.read(channel, id, job), count(found, "reserves") - 1, id)
            for (id, job), found in zip(jobs, stats, strict=True)
        ]

    def read(self, channel: str, id: str, job: bytes) -> Message:
        if self.raw:
            return Message(job, properties=Properties(topic=channel, identity=id))
        head, _, body = job.partition(b"\n")
        try:
            headers, key = json.loads(head)
            return Message(body, headers, key)
        except ValueError:  # of another program: the queue makes it a dead letter
            return Message(job)

    async def settle(self, receipt: Any, command: str, expected: str) -> Any:
        connection, id = receipt
        if connection is not self.client.connection:
            raise NotDurable("the job went back with the connection that had reserved it")
        await self.ask(command.format(id), expected)
        return receipt

    def ack(self, receipt: Any) -> Any:
        return self.settle(receipt, "delete {}", "DELETED")

    def requeue(self, receipt: Any) -> Any:
        return self.settle(receipt, "release {} 1024 0", "RELEASED")

    def extend(self, receipt: Any, seconds: float) -> Any:
        return self.settle(receipt, "touch {}", "TOUCHED")  # for the TTR; a shorter lease is ours alone

    async def make(self, channel: str) -> None:
        try:
            await self.depth(channel)
        except ChannelMissing:
            await self.ask_all((f"use {channel}", "USING"), (f"put 0 {FOR_EVER} 1 0", "INSERTED", b""))

    async def depth(self, channel: str) -> int:
        _, stats = await self.ask(f"stats-tube {channel}", "OK NOT_FOUND")
        if not self.raw and not count(stats, "current-jobs-delayed"):
            raise ChannelMissing(channel)
        return count(stats, "current-jobs-ready")


def count(stats: bytes, name: str) -> int:
    """A number out of statistics, which are YAML; 0 where it is not there."""
    found = re.search(rf"^{name}: (\d+)$".encode(), stats, re.MULTILINE)
    return int(found[1]) if found else 0
