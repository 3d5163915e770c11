# -*- test-case-name: tests.testing.test_fake_broker -*-
"""The server of the fake broker: it holds the channels, survives its clients, and can be told to lose things."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from openhqm.errors import NotDurable
from openhqm.interfaces import Acks, BrokerTraits, DepthKind, Message
from openhqm.testing.fake_channel import FakeChannel
from openhqm.testing.fake_log import FakeLog
from openhqm.testing.fake_queue import FakeQueue


class Client(Protocol):
    """What the server knows of a client."""

    def lose_connection(self, reason: str = "the connection was lost") -> None:
        """It is not connected any more."""

    def come_back(self) -> None:
        """It is connected again."""

    def watch(self) -> None:
        """The next lease to end may be another one."""


class FakeServer:
    """Channels, and the clients that are connected to them or try to be.

    ``traits`` may be left to the first client; all clients of a server have the same. ``published`` lists what the
    server has taken, with its channel, confirmed or not. ``drops_when_full``: a message for a channel that is full is
    confirmed and dropped, as MQTT brokers do, instead of refused.
    """

    def __init__(self, traits: BrokerTraits | None = None) -> None:
        self.channels: dict[str, FakeChannel] = {}
        self.clients: list[Client] = []
        self.published: list[tuple[str, Message]] = []
        self.reachable = True
        self.drops_when_full = False
        self._traits = traits

    @property
    def traits(self) -> BrokerTraits:
        """What the product does."""
        assert self._traits is not None, "the server has no traits before its first client"
        return self._traits

    def agree(self, traits: BrokerTraits) -> None:
        """A client says what it takes the product to do. `ValueError` where no product can do that."""
        if traits.acks is Acks.PREFIX and (traits.requeues or traits.lease_seconds is not None):
            raise ValueError("a product that acknowledges by prefix neither requeues nor leases single messages")
        if self._traits is None:
            self._traits = traits
        assert self._traits == traits, "the clients of one server take it for different products"

    # What clients ask for

    def make(self, name: str) -> None:
        """Make the channel if it is missing. `NotDurable` where the product makes none, or no more."""
        if name in self.channels:
            return
        if not self.traits.makes_channels:
            raise NotDurable(f"the broker has no channel {name}, and makes none")
        most = self.traits.most_channels
        if most is not None and len(self.channels) >= most:
            raise NotDurable(f"the broker has no more than {most} channels")
        self.provide(name)

    def put(self, name: str, message: Message) -> None:
        """Take a message. `NotDurable` where the channel is full."""
        channel = self.channels[name]
        if channel.full and not self.drops_when_full:
            raise NotDurable(f"the channel {name} is full")
        self.published.append((name, message))
        if not channel.full:
            channel.put(message)

    def depth(self, name: str) -> int | None:
        """How deep a channel is, by what the product tells of that."""
        told = name in self.channels and self.traits.depth is not DepthKind.NONE
        return self.channels[name].depth() if told else None

    def expire(self, now: float) -> None:
        """Take back what has a lease that is over."""
        for channel in list(self.channels.values()):
            channel.expire(now)

    def next_lease_end(self) -> float | None:
        """When the next lease ends, or None."""
        ends = [claim.lease_end for each in self.channels.values() for claim in each.claims()]
        return min((end for end in ends if end is not None), default=None)

    def watch(self) -> None:
        """Have the clients look when the next lease ends."""
        if self.traits.lease_seconds is not None:
            for client in list(self.clients):
                client.watch()

    # What an operator, or bad luck, does

    def provide(self, name: str) -> None:
        """Make a channel as an operator does."""
        kind = FakeLog if self.traits.acks is Acks.PREFIX else FakeQueue
        self.channels.setdefault(name, kind(name, self.traits))

    def delete(self, name: str) -> None:
        """Delete a channel with its messages. Its subscriptions are told."""
        self.channels.pop(name).delete(f"the channel {name} was deleted")
        self.watch()

    def purge(self, name: str) -> None:
        """Drop what waits in a channel. No client is told."""
        self.channels[name].purge()

    def duplicate(self, name: str) -> None:
        """Store everything in a channel a second time, as a broker does that is not sure."""
        channel = self.channels[name]
        for message in channel.messages():
            channel.put(message)
        channel.dispatch()
        self.watch()

    def messages(self, name: str) -> Sequence[Message]:
        """What lies in a channel, and what is out of it; nothing where there is no such channel."""
        return self.channels[name].messages() if name in self.channels else ()

    def go_away(self) -> None:
        """Lose the connection to every client, and take no new one."""
        self.reachable = False
        for client in list(self.clients):
            client.lose_connection("the broker is away")

    def come_back(self) -> None:
        """Take connections again; every client connects."""
        self.reachable = True
        for client in list(self.clients):
            client.come_back()

    def restart(self) -> None:
        """Start again with what is durable."""
        self.go_away()
        if not self.traits.durable:
            for channel in self.channels.values():
                channel.purge()
        self.come_back()

    def lose_everything(self) -> None:
        """Start again with an empty disk: no channel is left."""
        self.go_away()
        channels, self.channels = self.channels, {}
        for channel in channels.values():
            channel.delete("the broker has lost its data")
        self.come_back()
