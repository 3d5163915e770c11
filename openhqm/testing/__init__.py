# -*- test-case-name: tests.queue.test_contracts,tests.testing -*-
"""The contracts of the two seams, for the authors of backends and adapters, and the fakes that keep them.

A backend is a queue and the result store beside it. Describe how to make one on a `Bench`, and run the suite::

    class MyContract(backend_contract(make_my_bench)):
        pass

A broker publishes, delivers and acknowledges; describe it on a `BrokerBench`, for `broker_contract`. `FakeBroker` is
one in memory that behaves as any `BrokerTraits` say; `FORMS` has those of the products that OpenHQM knows.

Every test states a promise. What a backend cannot do by itself is declared in its traits, never skipped.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from openhqm.testing.aging import Aging
from openhqm.testing.bench import DEAD_LETTERS, LEASE, REQUESTS, TTL, Bench
from openhqm.testing.broker_bench import BrokerBench
from openhqm.testing.broker_contract import broker_contract
from openhqm.testing.coalescing import CoalescingRequests
from openhqm.testing.crashing import Crashing
from openhqm.testing.dead_letters import KeepingDeadLetters
from openhqm.testing.fake_broker import FakeBroker
from openhqm.testing.fake_publishing import PublishResult
from openhqm.testing.fake_server import FakeServer
from openhqm.testing.finishing import FinishingLater
from openhqm.testing.following_up import FollowingUp
from openhqm.testing.forms import FORMS
from openhqm.testing.idempotency import IdempotencyKeys
from openhqm.testing.killed_chains import KilledChains
from openhqm.testing.limits import Limiting
from openhqm.testing.receiving import Receiving
from openhqm.testing.recording import Recording
from openhqm.testing.settling import Settling
from openhqm.testing.sharing import Sharing
from openhqm.testing.together import AcceptingTogether

__all__ = [
    "DEAD_LETTERS",
    "FORMS",
    "LEASE",
    "REQUESTS",
    "TTL",
    "Bench",
    "BrokerBench",
    "FakeBroker",
    "FakeServer",
    "PublishResult",
    "backend_contract",
    "broker_contract",
]


def backend_contract(make: Callable[[TestCase], Bench | Deferred[Bench]]) -> type[TestCase]:
    """The suite for the backend that ``make`` returns, or that its Deferred fires with."""

    class BackendContract(
        Receiving,
        Sharing,
        Settling,
        Recording,
        IdempotencyKeys,
        CoalescingRequests,
        AcceptingTogether,
        FinishingLater,
        FollowingUp,
        KilledChains,
        Limiting,
        Aging,
        KeepingDeadLetters,
        Crashing,
    ):
        def make_bench(self) -> Bench | Deferred[Bench]:
            return make(self)

    return BackendContract
