"""For how long a bridge recognises a message, over a product whose acknowledgements cover what came before."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openhqm.bridges.held_claims import LATER_SECONDS, TOGETHER, HeldClaims
from openhqm.errors import NotDurable
from openhqm.interfaces import Acks
from openhqm.interfaces.broker import Position
from openhqm.messages import IdempotencyClaim


class Delivery:
    def __init__(self, partition: str, offset: int) -> None:
        self.position = Position(partition, offset)


class Store:
    """It notes which claims are made short, and refuses where it is to."""

    refuses = False

    def __init__(self) -> None:
        self.short: list[tuple[str, float]] = []

    def let_expire(self, claims: Any) -> Deferred[None]:
        if self.refuses:
            return fail(NotDurable("the disk is full"))
        self.short += [(each.key, each.lifetime) for each in claims]
        return succeed(None)


class HeldClaimsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.store = Clock(), Store()
        self.claims: Any = HeldClaims(self.store, self.clock, Acks.PREFIX, 60.0)  # type: ignore[arg-type]

    def held(self, partition: str, *offsets: int) -> list[Delivery]:
        deliveries = [Delivery(partition, offset) for offset in offsets]
        for each in deliveries:
            self.claims.hold(each, IdempotencyClaim(f"{partition}/{each.position.offset}", b"", 1e6))
        return deliveries

    def test_prefix(self) -> None:
        """An acknowledgement makes short what it covers: what is before it in its partition, no more, in any order."""
        _, _, third, _ = self.held("0", 2, 1, 3, 4)
        self.held("1", 1)
        self.claims.acknowledged(third)
        self.assertEqual(self.store.short, [])
        self.clock.advance(LATER_SECONDS)
        self.assertEqual(sorted(self.store.short), [("0/1", 60.0), ("0/2", 60.0), ("0/3", 60.0)])

    def test_revoked(self) -> None:
        """What the broker delivers again stays recognised, also where a later one is acknowledged after that."""
        first, second = self.held("0", 1, 2)
        self.claims.revoked(first)
        self.claims.acknowledged(second)
        self.clock.advance(LATER_SECONDS)
        self.assertEqual(self.store.short, [("0/2", 60.0)])

    def test_bounded(self) -> None:
        """Many are made short at once, in steps that hold up nothing; what is left, when the bridge stops."""
        deliveries = self.held("0", *range(TOGETHER + 1))
        self.claims.acknowledged(deliveries[TOGETHER - 1])
        self.assertEqual(len(self.store.short), TOGETHER)
        self.claims.acknowledged(deliveries[TOGETHER])
        self.successResultOf(self.claims.stop())
        self.assertEqual(len(self.store.short), TOGETHER + 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_acknowledged_after_the_stop(self) -> None:
        """A bridge that has stopped leaves nothing to be done: what is confirmed then stays as long as it is."""
        (delivery,) = self.held("0", 1)
        self.successResultOf(self.claims.stop())
        self.claims.acknowledged(delivery)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_store_away(self) -> None:
        """Where the store refuses, they stay as long as they are, and nothing fails."""
        (delivery,) = self.held("0", 1)
        self.store.refuses = True
        self.claims.acknowledged(delivery)
        self.clock.advance(LATER_SECONDS)
        self.assertEqual(self.store.short, [])
