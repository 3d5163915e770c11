# -*- test-case-name: tests.testing.test_fake_broker -*-
"""What a broker is tested on: a bench that its author describes, and the receiver of the tests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from zope.interface import implementer

from openhqm.interfaces import IBroker, IBrokerDelivery, IReceiver, ISubscription


class BrokerBench(Protocol):
    """A server of the product under test, and the clients of one test. Derive from it: most attributes have a default.

    ``patience``: for how many seconds of `pass_time` a test waits for what the broker does at once. ``quiet``: for how
    many it watches that nothing happens. ``publish_seconds``: within how many a publish has an outcome.
    ``longest_wait``: how many a test may take for what a trait counts in seconds. ``ordered``: the product delivers in
    the order of publishing (with native partitions: the messages of one key). ``cannot``: by the name of a method below
    the reason why the bench cannot do it; the tests that need it are skipped with that reason.

    A channel has to take 25 messages, and one with native partitions needs two of them or more. Where leases are long
    by default, configure short ones (a second or two), and say so in the traits.
    """

    patience: float = 20.0
    quiet: float = 0.2
    publish_seconds: float = 30.0
    longest_wait: float = 60.0
    ordered: bool = True
    cannot: Mapping[str, str] = {}

    def new(self) -> IBroker:
        """A client of the server, as a process of its own has it, not started. The bench stops it in the end."""

    def make(self) -> Awaitable[IBroker]:
        """The same, started and connected."""

    def channel(self, name: str) -> str:
        """The product's name for a channel of this test. It does not exist yet."""

    def provide(self, channel: str) -> Awaitable[None]:
        """Make the channel as an operator does. Only called where the product makes no channels."""

    def delete(self, channel: str) -> Awaitable[None]:
        """Delete the channel as an operator does."""

    def pass_time(self, seconds: float) -> Awaitable[None]:
        """Let time pass, for the broker and its clients. A bench may scale it, if all of them are scaled."""

    def disconnect(self, broker: IBroker) -> Awaitable[None]:
        """End the connection of one client as a network does. The server is there: the client connects again."""

    def away(self) -> Awaitable[None]:
        """Let the server be unreachable: every connection ends, and no new one can be made."""

    def back(self) -> Awaitable[None]:
        """The server can be reached again, with all that it had."""

    def restart(self) -> Awaitable[None]:
        """Stop the server and start it again; it keeps what the traits say is durable."""

    def close(self) -> Awaitable[None]:
        """Stop the clients, also those that a test has stopped before, and tidy up."""


@implementer(IReceiver)
class Inbox:
    """Keeps what a subscription delivers, and calls ``on_received`` with it.

    ``subscription`` is set once `IBroker.consume` has returned it.
    """

    subscription: ISubscription

    def __init__(self) -> None:
        self.deliveries: list[IBrokerDelivery] = []
        self.revoked: list[IBrokerDelivery] = []
        self.settled: list[IBrokerDelivery] = []
        self.most_out = 0
        self.lost_for: list[str] = []
        self.dropped_in_all = 0
        self.revoked_when_lost = 0
        self.on_received: Callable[[IBrokerDelivery], object] = lambda delivery: None

    def received(self, delivery: IBrokerDelivery) -> None:
        self.deliveries.append(delivery)
        delivery.revoked.addCallback(self._revoked, delivery)
        self.most_out = max(self.most_out, self.out)
        self.on_received(delivery)

    def lost(self, reason: str) -> None:
        self.lost_for.append(reason)
        self.revoked_when_lost = len(self.revoked)

    def dropped(self, count: int) -> None:
        self.dropped_in_all += count

    @property
    def out(self) -> int:
        """How many deliveries are neither settled nor revoked."""
        over = {id(each) for each in (*self.revoked, *self.settled)}
        return sum(id(each) not in over for each in self.deliveries)

    @property
    def bodies(self) -> list[bytes]:
        """What was delivered, in its order."""
        return [each.message.body for each in self.deliveries]

    def _revoked(self, reason: str, delivery: IBrokerDelivery) -> str:
        self.revoked.append(delivery)
        return reason
