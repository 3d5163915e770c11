"""Health: what operators, probes and load balancers are told, and when."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openhqm.codec import request_size
from openhqm.errors import NotDurable, QueueFull
from openhqm.fleet.protocol import FleetStatus, ProcessHealth, ProcessStatus
from openhqm.ingress.health import Health
from openhqm.ingress.queue_metrics import Metrics
from openhqm.messages import Submission
from openhqm.policy.limits import Limits
from tests.benches import MemoryBench


class HealthTests(SynchronousTestCase):
    """`Health`"""

    def setUp(self) -> None:
        self.unavailable_reason: str | None = None
        self.queue: Any = MemoryBench().queue
        self.health = Health(self.queue, "memory", None, lambda: self.unavailable_reason, lambda: ["look"])

    def statuses(self) -> tuple[int, int, int]:
        """The statuses of overview, live and ready."""
        overview, live, ready = (
            self.successResultOf(ask()).status for ask in (self.health.overview, self.health.live, self.health.ready)
        )
        return overview, live, ready

    def overview(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.successResultOf(self.health.overview()).body)
        return document

    def test_well(self) -> None:
        """A healthy process answers 200 on all three routes, and says what its queue promises."""
        self.assertEqual(self.statuses(), (200, 200, 200))
        self.assertEqual((self.overview()["status"], self.overview()["troubles"]), ("ok", []))
        self.assertEqual(self.overview()["queue"], {"type": "memory", "durable": False})

    def test_workers_stuck(self) -> None:
        """Workers that are stuck are a reason to restart the process. It stays ready: it can accept requests."""
        self.unavailable_reason = "every worker slot is taken"
        self.assertEqual(self.statuses(), (503, 503, 200))
        self.assertEqual(
            (self.overview()["status"], self.overview()["troubles"]), ("degraded", [self.unavailable_reason])
        )
        self.assertIn(b"every worker slot is taken", self.successResultOf(self.health.live()).body)

    def test_queue_unavailable(self) -> None:
        """An unavailable queue makes the process not ready. It stays live, because a restart would not help."""
        queue = self.queue

        class Full:
            traits = queue.traits
            unavailable_reason = "the disk is full"
            warnings = ("the disk is filling up",)

            def load(self) -> Deferred[None]:
                return fail(NotDurable("the disk is full"))

        self.health = Health(Full(), "memory", None, lambda: None, lambda: ["look"])  # type: ignore[arg-type]
        self.assertEqual(self.statuses(), (503, 200, 503))
        self.assertEqual(self.overview()["troubles"], ["the disk is full"])
        self.assertEqual(self.overview()["warnings"], ["the disk is filling up", "look"])
        # Before an application it stays ready: what goes straight to it still does.
        nothing: Any = lambda: None  # noqa: E731
        self.health = Health(Full(), "memory", None, nothing, tuple, passes_through=True)  # type: ignore[arg-type]
        self.assertEqual(self.statuses(), (503, 200, 200))
        self.health.draining = True
        self.assertEqual(self.statuses(), (503, 200, 503))

    def test_how_full(self) -> None:
        """Where the queue is limited, the overview says how full it is, and the metrics do. Full, it is still ready."""
        limits = Limits(requests=2, bytes=10_000)
        bench = MemoryBench()
        bench.limits = limits
        bench.crash()
        metrics = Metrics(lambda: succeed(()), bench.queue, (), bench.clock)
        self.health = Health(bench.queue, "memory", metrics, lambda: None, tuple, limits=limits)
        sizes = [request_size(Submission(b"1")), request_size(Submission(b"22"))]
        for payload in (b"1", b"22"):
            self.successResultOf(bench.queue.accept(Submission(payload), None))
        self.failureResultOf(bench.queue.accept(Submission(b"3"), None), QueueFull)
        found = self.overview()["queue"]
        self.assertEqual(found["requests"], {"open": 2, "limit": 2})
        self.assertEqual(found["bytes"], {"open": sum(sizes), "limit": 10_000})
        self.assertEqual(self.statuses(), (200, 200, 200))
        text = self.successResultOf(self.health.metrics()).body
        self.assertIn(b"\nopenhqm_requests_open 2.0\n", text)
        self.assertIn(b"\nopenhqm_request_bytes_open %.1f\n" % sum(sizes), text)

    def test_stopping(self) -> None:
        """A process that stops is not ready, and it is live: it must not be killed for that."""
        self.health.draining = True
        self.assertEqual(self.statuses(), (503, 200, 503))


class FleetTests(SynchronousTestCase):
    """`Health` with several processes"""

    def setUp(self) -> None:
        self.processes: list[ProcessStatus] = []
        self.missing = 0
        self.no_answer: Deferred[FleetStatus] | None = None
        queue: Any = MemoryBench().queue
        self.health = Health(queue, "redis", None, lambda: None, tuple, self.ask)

    def ask(self) -> Deferred[FleetStatus]:
        return (
            self.no_answer
            if self.no_answer is not None
            else succeed(FleetStatus(1, self.processes, self.missing, None))
        )

    def there_are(self, *processes: tuple[str, str | None, str | None]) -> None:
        """Processes 1, 2, ..., each with its state, its unavailable_reason and why it is stuck."""
        self.processes = [
            ProcessStatus(number, state, ProcessHealth(unavailable_reason, stuck))
            for number, (state, unavailable_reason, stuck) in enumerate(processes, start=1)
        ]

    def asked(self) -> tuple[dict[str, Any], int, int, int]:
        """The overview as a document, and the statuses of overview, live and ready."""
        answers = [self.successResultOf(ask()) for ask in (self.health.overview, self.health.live, self.health.ready)]
        overview, live, ready = answers
        return json.loads(overview.body), overview.status, live.status, ready.status

    def test_well(self) -> None:
        """Processes that start or leave are no reason against a healthy fleet."""
        self.there_are(("ready", None, None), ("leaving", "stopping", None), ("starting", "it is starting", None))
        document, *statuses = self.asked()
        self.assertEqual(statuses, [200, 200, 200])
        self.assertEqual(document["processes"], {"ready": 1, "leaving": 1, "starting": 1})

    def test_one_unavailable(self) -> None:
        """While one process can accept requests the fleet is ready.

        The overview names the process that cannot, and why.
        """
        self.there_are(("ready", None, None), ("ready", "no Redis", None))
        document, *statuses = self.asked()
        self.assertEqual(statuses, [503, 200, 200])
        self.assertEqual(document["troubles"], ["process 2: no Redis"])

    def test_all_unavailable(self) -> None:
        """A reason that all processes have is given once."""
        self.there_are(("ready", "no Redis", None), ("ready", "no Redis", None))
        document, *statuses = self.asked()
        self.assertEqual(statuses, [503, 200, 503])
        self.assertEqual(document["troubles"], ["no Redis"])

    def test_one_stuck(self) -> None:
        """One process that is stuck makes live 503. The fleet is ready, because the others accept requests."""
        self.there_are(("silent", "it says nothing", "it says nothing"), ("ready", None, None))
        document, *statuses = self.asked()
        self.assertEqual(statuses, [503, 503, 200])
        self.assertEqual(document["troubles"], ["process 1: it says nothing"])

    def test_stopping(self) -> None:
        """Where all processes leave, the fleet is not ready, and it is live."""
        self.there_are(("leaving", "stopping", None), ("leaving", "stopping", None))
        self.assertEqual(self.asked()[1:], (503, 200, 503))

    def test_missing(self) -> None:
        """Missing processes are a warning."""
        self.there_are(("ready", None, None))
        self.missing = 2
        document, *statuses = self.asked()
        self.assertEqual(statuses, [200, 200, 200])
        self.assertEqual(document["warnings"], ["2 processes are missing: the log says how they ended"])

    def test_no_parent(self) -> None:
        """Where the parent does not answer, this process gives its own health and a warning."""
        self.no_answer = fail(TimeoutError())
        document, *statuses = self.asked()
        self.assertEqual(statuses, [200, 200, 200])
        self.assertEqual(document["warnings"], ["the parent process does not answer"])

    def test_metrics(self) -> None:
        """Where the parent does not answer, there are no metrics: those of one process would read as if counters had
        gone back."""
        queue: Any = MemoryBench().queue
        metrics = Metrics(lambda: fail(TimeoutError()), queue, [], Clock())
        health = Health(queue, "redis", metrics, lambda: None, tuple, self.ask)
        answer = self.successResultOf(health.metrics())
        self.assertEqual(answer.status, 503)
        self.assertIn(b"the parent process does not answer", answer.body)
