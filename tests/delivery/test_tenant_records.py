"""A request of another tenant and one that there never was: no difference, neither in what is said nor in when."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from openhqm.delivery.tenant_records import UNKNOWN_SECONDS, TenantRecords
from openhqm.errors import UnknownRequest
from openhqm.messages import Submission
from openhqm.runtime.deferreds import deferred
from tests.benches import memory_bench

NEVER = "00000000-0000-4000-8000-000000000000"


class Store:
    """A store that counts what it is asked for, and answers after a while."""

    def __init__(self, inner: Any, clock: Any) -> None:
        self.inner = inner
        self.clock = clock
        self.asked: list[str] = []
        self.seconds = 0.0

    def find(self, correlation_id: str) -> Deferred[Any]:
        """See `IResultStore`. An id that was never given out is known at once."""
        found: Deferred[Any] = self.inner.find(correlation_id)
        if correlation_id == NEVER:
            return found
        self.asked.append(correlation_id)
        later: Deferred[None] = Deferred()
        self.clock.callLater(self.seconds, later.callback, None)
        return later.addCallback(lambda _: found)


class TenantRecordsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.bench = memory_bench(self)
        self.store = Store(self.bench.store, self.bench.clock)
        self.records = TenantRecords(self.store, self.bench.clock)  # type: ignore[arg-type]

    def submit(self, tenant: str) -> str:
        accepting = self.bench.queue.accept(Submission(b"1", tenant=tenant), None)
        self.bench.turn()
        id: str = self.successResultOf(accepting).correlation_id
        return id

    def find(self, correlation_id: str, tenant: str) -> Deferred[Any]:
        @deferred
        async def found() -> Any:
            return await self.records.find(correlation_id, tenant)

        return found()

    def seconds(self, correlation_id: str) -> float:
        """How long it takes until it is said that there is no such request."""
        began = self.bench.clock.seconds()
        asked = self.find(correlation_id, "globex")
        while not asked.called:
            self.bench.clock.advance(0.001)
        error = self.failureResultOf(asked, UnknownRequest).value
        self.assertEqual(error.correlation_id, correlation_id)
        return round(float(self.bench.clock.seconds() - began), 4)

    def test_own(self) -> None:
        """The tenant's own is found without delay."""
        id = self.submit("acme")
        found = self.find(id, "acme")
        self.bench.clock.advance(0)
        self.assertEqual(self.successResultOf(found).correlation_id, id)

    def test_same_time(self) -> None:
        """It takes as long to say that a request is unknown, whether it is another tenant's or was never there, also
        where the store takes longer than that: it is looked into for both.
        """
        foreign, own = self.submit("acme"), self.submit("globex")
        self.bench.clock.advance(0)
        finding = self.find(own, "globex")
        self.bench.clock.advance(0)
        self.successResultOf(finding)
        for seconds in (0.0, UNKNOWN_SECONDS / 2, 3 * UNKNOWN_SECONDS):
            self.store.seconds = seconds
            times = set()
            for id in (foreign, NEVER):
                del self.store.asked[:]
                times.add(self.seconds(id))
                self.assertEqual(len(self.store.asked), 1, id)
            self.assertEqual(len(times), 1, times)
            self.assertGreaterEqual(times.pop(), max(seconds, UNKNOWN_SECONDS) - 1e-6)
