"""How much of each tenant may wait."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import IdempotencyConflict, TooMuchQueued
from openhqm.messages import IdempotencyClaim, Submission
from openhqm.queue.backlogs import LOOK_SECONDS
from openhqm.queue.tenant_backlogs import TenantBacklogs
from openhqm.testing import REQUESTS
from tests.benches import MemoryBench, SqliteBench

QUEUES = (REQUESTS, f"{REQUESTS}.billing")


class TenantBacklogsTests(SynchronousTestCase):
    """On the queue in memory, and in the embedded file"""

    def setUp(self) -> None:
        self.made(MemoryBench())

    def made(self, bench: Any) -> None:
        self.bench = bench
        self.addCleanup(bench.close)
        limits = {"acme": 3, "free": None, None: 2}
        self.backlogs = TenantBacklogs(bench.queue, bench.queue, bench.clock, lambda: QUEUES, limits)

    def accept(self, tenant: str | None, claim: IdempotencyClaim | None = None, **fields: Any) -> Any:
        share = tenant if tenant in ("acme", "free") else None
        submission = Submission(b"1", tenant=tenant, share=share, **fields)
        accepting = self.backlogs.accept(submission, claim)
        self.bench.turn()
        return accepting

    def accepted(self, *tenants: str | None) -> list[bool]:
        """Which of the requests are accepted."""
        found = []
        for tenant in tenants:
            accepting = self.accept(tenant)
            found.append(not accepting.called or not hasattr(accepting.result, "check"))
            if not found[-1]:
                self.failureResultOf(accepting, TooMuchQueued)
        return found

    def test_limits(self) -> None:
        """So many of a tenant wait, and no more, however many of others do; those of all without a row count together,
        and what has no tenant is none of them.
        """
        for bench in (MemoryBench(), SqliteBench()):
            self.made(bench)
            self.assertEqual(self.accepted(*["acme"] * 5), [True, True, True, False, False])
            self.assertEqual(self.accepted(*["free"] * 5), [True] * 5)
            self.assertEqual(self.accepted("x", "y", "z"), [True, True, False])
            self.assertEqual(self.accepted(None, None, None), [True] * 3)

    def test_begun(self) -> None:
        """A request that is worked on waits no more, which is known a second later."""
        self.assertEqual(self.accepted(*["acme"] * 4), [True, True, True, False])
        receiving = self.bench.queue.receive(f"{REQUESTS}.@acme", 2)
        self.bench.turn()
        self.assertEqual(len(self.successResultOf(receiving)), 2)
        self.bench.pass_time(LOOK_SECONDS)
        self.accepted("acme")  # the queues are asked
        self.assertEqual(self.accepted("acme", "acme"), [True, False])

    def test_all_queues(self) -> None:
        """What waits for any endpoint counts."""
        self.accept("acme", endpoint="billing")
        self.accept("acme", endpoint="billing")
        self.bench.pass_time(LOOK_SECONDS)
        self.assertEqual(self.accepted("acme", "acme"), [True, False])

    def test_repeated(self) -> None:
        """A repeat is answered where nothing more may wait, and a new key is refused."""
        first = IdempotencyClaim("a", b"print")
        accepted = self.successResultOf(self.accept("acme", first))
        self.accepted("acme", "acme")
        again = self.successResultOf(self.accept("acme", first))
        self.assertEqual((again.correlation_id, again.replayed), (accepted.correlation_id, True))
        self.failureResultOf(self.accept("acme", IdempotencyClaim("b", b"print")), TooMuchQueued)
        self.failureResultOf(self.accept("acme", IdempotencyClaim("a", b"other")), IdempotencyConflict)

    def test_read(self) -> None:
        """How much of each waits can be read, with its limit."""
        self.accepted("acme", "acme", "free", "x", None)
        found = self.successResultOf(self.backlogs.read())
        self.assertEqual(
            found,
            {
                "acme": {"queued": 2, "limit": 3},
                "free": {"queued": 1, "limit": None},
                "*": {"queued": 2, "limit": 2},
            },
        )

    def test_without_limits(self) -> None:
        """Where no row has a limit, nothing stands in the way of accepting."""
        backlogs = TenantBacklogs(self.bench.queue, self.bench.queue, self.bench.clock, lambda: QUEUES, {"acme": None})
        self.assertEqual(backlogs.accept, self.bench.queue.accept)
