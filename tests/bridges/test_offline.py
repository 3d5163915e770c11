"""A gateway whose target is away for long: what is kept, within which bounds, and in which order it goes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from tests.bridges.test_end_to_end import EdgeTestCase
from tests.servers import ROOT, Server, free_port

COUNT, DEVICES, MOST = 1000, 4, 300


class OfflineTests(EdgeTestCase):
    """1,000 messages come while the target is away, and the queue may keep 300"""

    def gateway(self, overflow: str, **bridge: Any) -> Server:
        """A gateway whose target is not there; ``bridge`` has more of its settings."""
        self.port, self.file = free_port(), self.directory / "seen"
        settings = {
            "name": "b",
            "from": {"broker": "plant", "topics": ["in/#"]},
            "endpoint": "away",
            "partition_key": "{{ topic[1] }}",
            **bridge,
        }
        server = self.start(
            [settings],
            {"away": {"url": f"http://127.0.0.1:{self.port}/"}},
            OPENHQM_PARTITIONING=json.dumps({"enabled": True, "partition_count": 8}),
            OPENHQM_QUEUE__LIMITS=json.dumps({"requests": MOST, "overflow": overflow}),
        )
        device = self.device()

        def subscribed() -> bool:
            device.publish("in/first", "-1")
            return self.metric(server, 'openhqm_bridged_messages_total{outcome="accepted"}') > 0

        server.until(subscribed, "nothing was accepted")
        for number in range(COUNT):
            device.publish(f"in/{number % DEVICES}", str(number), wait=number % 100 == 99)
        return server

    def metric(self, server: Server, name: str) -> float:
        """What the gateway says of ``name`` now."""
        _, _, text = server.ask("GET", "/metrics")
        found = re.search(rf"^{re.escape(name)} (\S+)$", text.decode(), re.MULTILINE)
        return 0.0 if found is None else float(found[1])

    def open(self, server: Server) -> float:
        """How many requests wait."""
        return self.metric(server, "openhqm_requests_open")

    def come_back(self) -> None:
        """The target is there again."""
        command = [sys.executable, "-m", "tests.bridges.target", str(self.port), str(self.file)]
        target = subprocess.Popen(command, cwd=ROOT)
        self.addCleanup(target.wait)
        self.addCleanup(target.kill)

    def seen(self) -> list[int]:
        """What has come to the target."""
        lines = Path(self.file).read_text().split() if self.file.exists() else []
        return [int(line) for line in lines if line != "-1"]

    def in_order(self, seen: list[int]) -> None:
        """Nothing came twice, and the messages of each device came in their order."""
        self.assertEqual([number for number, times in Counter(seen).items() if times > 1], [])
        for device in range(DEVICES):
            own = [number for number in seen if number % DEVICES == device]
            self.assertEqual(own, sorted(own))

    def test_refuse(self) -> None:
        """A full queue acknowledges no more: the broker keeps what is beyond, and everything comes in the end."""
        server = self.gateway("refuse", replay={"rate": 10_000})
        server.until(lambda: self.open(server) == MOST, "the queue was not filled")
        self.assertEqual(self.seen(), [])
        self.come_back()
        server.until(lambda: len(self.seen()) >= COUNT, "not all came", seconds=60)
        self.in_order(self.seen())

    def test_drop_oldest(self) -> None:
        """The newest are kept, and what was dropped for them is counted and logged."""
        server = self.gateway("drop_oldest")
        accepted = 'openhqm_bridged_messages_total{outcome="accepted"}'
        server.until(lambda: self.metric(server, accepted) > COUNT, "not all were accepted")
        self.assertLessEqual(self.open(server), MOST)
        self.come_back()
        server.until(lambda: self.open(server) == 0, "not all have ended", seconds=60)
        seen = self.seen()
        self.in_order(seen)
        self.assertLessEqual(len(seen), MOST + 2 * DEVICES)  # and those that a worker had when they were dropped
        self.assertEqual({number for number in seen if number >= COUNT - DEVICES}, set(range(COUNT - DEVICES, COUNT)))
        self.assertIn("dropped", server.log())
