"""Metrics of listeners and workers that share a store."""

from __future__ import annotations

import json
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.brokers import RedisServer
from tests.fleet.fleets import backend_of, until
from tests.pods import Loopback, Pod
from tests.servers import free_port

JOBS = """
import time
from openhqm.errors import Reject

def handle(work):
    if work.payload == "fail":
        raise Reject("no")
    if work.payload == "sleep":
        time.sleep(3)
    return work.payload
"""
EACH = {"completed": 12, "failed": 7, "timeout": 3, "cancelled": 5}


class CountsTests(SynchronousTestCase):
    def test_endings(self) -> None:
        """openhqm_requests_total, summed over two listeners and two workers, is how many requests have ended, by
        ending; the accepted ones are as many."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        redis = RedisServer().start()
        self.addCleanup(redis.close)
        network, port, pods = Loopback(), free_port(), []
        for role in ("listener", "listener", "worker", "worker"):
            pod = Pod(directory, network, role, port, **backend_of(redis), OPENHQM_WORKER__HANDLER="jobs:handle")
            (pod.directory / "jobs.py").write_text(JOBS)
            self.addCleanup(lambda pod=pod: pod.process and pod.process.poll() is None and pod.kill())
            pod.start()
            pods.append(pod)
        self.calls = 0

        def ask(method: str, path: str, body: object = None) -> tuple[int, bytes]:
            self.calls += 1  # each listener in turn
            pod = pods[self.calls % 2]
            connection = pod.door()
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": "application/json"})
            response = connection.getresponse()
            found = response.status, response.read()
            connection.close()
            return found

        said = {
            "completed": {"payload": "do"},
            "failed": {"payload": "fail"},
            "timeout": {"payload": "sleep", "metadata": {"timeout": 1}},
            "cancelled": {"payload": "do", "metadata": {"delay": 600}},
        }
        ids = []
        for outcome, times in EACH.items():
            for _ in range(times):
                status, text = ask("POST", "/api/v1/submit", said[outcome])
                self.assertEqual(status, 202, text)
                ids.append(json.loads(text)["correlation_id"])
                if outcome == "cancelled":
                    self.assertEqual(ask("POST", f"/api/v1/cancel/{ids[-1]}")[0] // 100, 2)
        for each in ids:
            status, text = ask("GET", f"/api/v1/response/{each}?wait=20")
            self.assertEqual(status, 200, text)

        def total(name: str) -> float:
            return sum(pod.metric(name) for pod in pods)

        def totals() -> dict[str, float]:
            return {outcome: total(f'openhqm_requests_total{{outcome="{outcome}"}}') for outcome in EACH}

        until(lambda: totals() == EACH, f"{EACH}, not {totals()}")
        self.assertEqual(total('openhqm_submissions_total{outcome="accepted"}'), sum(EACH.values()))
        for pod in pods:
            pod.end()
