"""Health: what people, probes and load balancers are told, and when."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from openhqm.ingress.health import Health
from tests.benches import MemoryBench


class HealthTests(SynchronousTestCase):
    """`Health`"""

    def setUp(self) -> None:
        self.trouble: str | None = None
        self.queue: Any = MemoryBench().queue
        self.health = Health(self.queue, "memory", None, lambda: self.trouble, lambda: ["look"])

    def statuses(self) -> tuple[int, int, int]:
        """Of the overview, of live and of ready."""
        return self.health.overview().status, self.health.live().status, self.health.ready().status

    def overview(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.health.overview().body)
        return document

    def test_well(self) -> None:
        """A well process is well in three ways, and says what its queue promises."""
        self.assertEqual(self.statuses(), (200, 200, 200))
        self.assertEqual((self.overview()["status"], self.overview()["troubles"]), ("ok", []))
        self.assertEqual(self.overview()["queue"], {"type": "memory", "durable": False})

    def test_no_work_is_done(self) -> None:
        """A worker in trouble is a reason to start anew, and none to send nobody here: a 202 is still kept."""
        self.trouble = "every place for work is held"
        self.assertEqual(self.statuses(), (503, 503, 200))
        self.assertEqual((self.overview()["status"], self.overview()["troubles"]), ("degraded", [self.trouble]))
        self.assertIn(b"every place for work is held", self.health.live().body)

    def test_nothing_is_kept(self) -> None:
        """A queue in trouble is a reason to send nobody here, and none to start anew: that would not help."""
        queue = self.queue

        class Full:
            capabilities = queue.capabilities
            trouble = "the disk is full"
            warnings = ("the disk is filling up",)

        self.health = Health(Full(), "memory", None, lambda: None, lambda: ["look"])  # type: ignore[arg-type]
        self.assertEqual(self.statuses(), (503, 200, 503))
        self.assertEqual(self.overview()["troubles"], ["the disk is full"])
        self.assertEqual(self.overview()["warnings"], ["the disk is filling up", "look"])

    def test_stopping(self) -> None:
        """A process that stops wants no more, and is not to be killed for it."""
        self.health.draining = True
        self.assertEqual(self.statuses(), (503, 200, 503))
