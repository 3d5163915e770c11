"""Health: what people, probes and load balancers are told, and when."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openhqm.fleet.protocol import Everybody, Process, Standing
from openhqm.ingress.health import Health
from openhqm.ingress.queue_metrics import Metrics
from tests.benches import MemoryBench


class HealthTests(SynchronousTestCase):
    """`Health`"""

    def setUp(self) -> None:
        self.unavailable_reason: str | None = None
        self.queue: Any = MemoryBench().queue
        self.health = Health(self.queue, "memory", None, lambda: self.unavailable_reason, lambda: ["look"])

    def statuses(self) -> tuple[int, int, int]:
        """Of the overview, of live and of ready."""
        overview, live, ready = (
            self.successResultOf(ask()).status for ask in (self.health.overview, self.health.live, self.health.ready)
        )
        return overview, live, ready

    def overview(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.successResultOf(self.health.overview()).body)
        return document

    def test_well(self) -> None:
        """A well process is well in three ways, and says what its queue promises."""
        self.assertEqual(self.statuses(), (200, 200, 200))
        self.assertEqual((self.overview()["status"], self.overview()["troubles"]), ("ok", []))
        self.assertEqual(self.overview()["queue"], {"type": "memory", "durable": False})

    def test_no_work_is_done(self) -> None:
        """A worker that does no work is a reason to restart; the process stays ready, for a 202 is still kept."""
        self.unavailable_reason = "every place for work is held"
        self.assertEqual(self.statuses(), (503, 503, 200))
        self.assertEqual(
            (self.overview()["status"], self.overview()["troubles"]), ("degraded", [self.unavailable_reason])
        )
        self.assertIn(b"every place for work is held", self.successResultOf(self.health.live()).body)

    def test_nothing_is_kept(self) -> None:
        """An unavailable queue makes the process not ready; restarting it would not help."""
        queue = self.queue

        class Full:
            traits = queue.traits
            unavailable_reason = "the disk is full"
            warnings = ("the disk is filling up",)

        self.health = Health(Full(), "memory", None, lambda: None, lambda: ["look"])  # type: ignore[arg-type]
        self.assertEqual(self.statuses(), (503, 200, 503))
        self.assertEqual(self.overview()["troubles"], ["the disk is full"])
        self.assertEqual(self.overview()["warnings"], ["the disk is filling up", "look"])

    def test_stopping(self) -> None:
        """A process that stops wants no more, and is not to be killed for it."""
        self.health.draining = True
        self.assertEqual(self.statuses(), (503, 200, 503))


class TogetherTests(SynchronousTestCase):
    """`Health` of several processes"""

    def setUp(self) -> None:
        self.processes: list[Process] = []
        self.missing = 0
        self.silence: Deferred[Everybody] | None = None
        queue: Any = MemoryBench().queue
        self.health = Health(queue, "redis", None, lambda: None, tuple, self.ask)

    def ask(self) -> Deferred[Everybody]:
        return self.silence if self.silence is not None else succeed(Everybody(1, self.processes, self.missing, None))

    def there_are(self, *processes: tuple[str, str | None, str | None]) -> None:
        """Processes 1, 2, ..., each with its state, its unavailable_reason and why it is stuck."""
        self.processes = [
            Process(number, state, Standing(unavailable_reason, stuck))
            for number, (state, unavailable_reason, stuck) in enumerate(processes, start=1)
        ]

    def asked(self) -> tuple[dict[str, Any], int, int, int]:
        """The overview as a document, and the statuses of overview, live and ready."""
        answers = [self.successResultOf(ask()) for ask in (self.health.overview, self.health.live, self.health.ready)]
        overview, live, ready = answers
        return json.loads(overview.body), overview.status, live.status, ready.status

    def test_well(self) -> None:
        """All are well; whoever comes or goes is no unavailable_reason."""
        self.there_are(("ready", None, None), ("leaving", "stopping", None), ("starting", "it is starting", None))
        document, *statuses = self.asked()
        self.assertEqual(statuses, [200, 200, 200])
        self.assertEqual(document["processes"], {"ready": 1, "leaving": 1, "starting": 1})

    def test_one_in_trouble(self) -> None:
        """As long as another could keep a 202 the port is worth calling; the overview says who cannot, and why."""
        self.there_are(("ready", None, None), ("ready", "no Redis", None))
        document, *statuses = self.asked()
        self.assertEqual(statuses, [503, 200, 200])
        self.assertEqual(document["troubles"], ["process 2: no Redis"])

    def test_all_in_trouble(self) -> None:
        """What all say is said once."""
        self.there_are(("ready", "no Redis", None), ("ready", "no Redis", None))
        document, *statuses = self.asked()
        self.assertEqual(statuses, [503, 200, 503])
        self.assertEqual(document["troubles"], ["no Redis"])

    def test_one_stuck(self) -> None:
        """One that only a new process would help is a reason to start anew; the others are still worth calling."""
        self.there_are(("silent", "it says nothing", "it says nothing"), ("ready", None, None))
        document, *statuses = self.asked()
        self.assertEqual(statuses, [503, 503, 200])
        self.assertEqual(document["troubles"], ["process 1: it says nothing"])

    def test_stopping(self) -> None:
        """Where all are leaving nobody is to be sent here, and nobody is to be killed for it."""
        self.there_are(("leaving", "stopping", None), ("leaving", "stopping", None))
        self.assertEqual(self.asked()[1:], (503, 200, 503))

    def test_missing(self) -> None:
        """Processes that are not there are told of."""
        self.there_are(("ready", None, None))
        self.missing = 2
        document, *statuses = self.asked()
        self.assertEqual(statuses, [200, 200, 200])
        self.assertEqual(document["warnings"], ["2 processes are missing: the log says how they ended"])

    def test_no_parent(self) -> None:
        """Where the parent does not answer, this process says how it is itself, and that."""
        self.silence = fail(TimeoutError())
        document, *statuses = self.asked()
        self.assertEqual(statuses, [200, 200, 200])
        self.assertEqual(document["warnings"], ["the parent process does not answer"])

    def test_metrics(self) -> None:
        """Figures of one process alone would look as if the others had never been: there are none."""
        queue: Any = MemoryBench().queue
        metrics = Metrics(lambda: fail(TimeoutError()), queue, [], Clock())
        health = Health(queue, "redis", metrics, lambda: None, tuple, self.ask)
        answer = self.successResultOf(health.metrics())
        self.assertEqual(answer.status, 503)
        self.assertIn(b"the parent process does not answer", answer.body)
