# -*- test-case-name: tests.queue.test_contracts -*-
"""The contract of a backend, for everybody who writes one.

A backend is a queue and the store beside it. Describe how to make one on a `Bench`, and run the suite::

    class MyContract(backend_contract(make_my_bench)):
        pass

Every test states a promise. What a backend cannot do by itself is declared in its `QueueTraits`, never skipped.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from openhqm.testing.bench import DEAD_LETTERS, LEASE, REQUESTS, TTL, Bench
from openhqm.testing.lending import Lending
from openhqm.testing.recording import Recording
from openhqm.testing.settling import Settling
from openhqm.testing.surviving import Claiming, Crashing

__all__ = ["DEAD_LETTERS", "LEASE", "REQUESTS", "TTL", "Bench", "backend_contract"]


def backend_contract(make: Callable[[TestCase], Bench | Deferred[Bench]]) -> type[TestCase]:
    """The suite for what ``make`` makes, at once or in a while."""

    class BackendContract(Lending, Settling, Recording, Claiming, Crashing):
        def make_bench(self) -> Bench | Deferred[Bench]:
            return make(self)

    return BackendContract
