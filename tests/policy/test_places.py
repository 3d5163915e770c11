"""How many callers of each tenant may hold on to something."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import TooManyOpen
from openhqm.policy.places import Places


class PlacesTests(SynchronousTestCase):
    def test_each(self) -> None:
        """Each tenant has its own places, and each without a row those of the row for others."""
        places = Places("waits", {"acme": 2, "free": None, "none": 0, "*": 1})
        for tenant, most in (("acme", 2), ("x", 1), ("y", 1), ("none", 0)):
            for _ in range(most):
                places.check(tenant)
                places.enter(tenant)
            error = self.assertRaises(TooManyOpen, places.check, tenant)
            self.assertIn(f"{most} waits", str(error))
            self.assertFalse(places.has_room(tenant))
        places.leave("acme")
        self.assertTrue(places.has_room("acme"))
        self.assertRaises(TooManyOpen, places.check, "acme", 2)
        for tenant in ("free", None):
            for _ in range(100):
                places.check(tenant)
                places.enter(tenant)

    def test_without_rows(self) -> None:
        """Without a limit nothing is counted."""
        places = Places("waits", {"acme": None})
        for _ in range(3):
            places.check("acme")
            places.enter("acme")
        self.assertTrue(places.has_room("acme"))

    def test_held(self) -> None:
        """A place is taken while something is waited for, and free again however that ends."""
        places = Places("waits", {"acme": 1})
        ends: list[Deferred[int]] = []

        def begin() -> Deferred[int]:
            ends.append(Deferred())
            return ends[-1]

        for end in (lambda d: d.callback(5), lambda d: d.errback(ValueError())):
            held = Deferred.fromCoroutine(places.held("acme", begin))
            self.failureResultOf(Deferred.fromCoroutine(places.held("acme", begin)), TooManyOpen)
            end(ends[-1])
            held.addErrback(lambda failure: None)
            self.successResultOf(held)
        held = Deferred.fromCoroutine(places.held("acme", begin))
        held.cancel()
        self.failureResultOf(held, CancelledError)
        self.assertTrue(places.has_room("acme"))
