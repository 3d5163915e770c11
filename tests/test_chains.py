"""Chains in whole processes that are killed (kill -9) about when a step ends: no attempt at a step is made twice."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.brokers import Mosquitto, RedisServer
from tests.servers import Server

JOBS = """
import os, signal, threading

def step(work):
    with open("begun", "a") as file:
        file.write(f"{work.correlation_id} {work.attempt} {work.operation}\\n")
    try:
        delay = float(open("kill").read())
        os.remove("kill")
    except FileNotFoundError:
        pass
    else:  # this process dies about when the end of this step is stored, and the next one begins
        threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
    return [*work.payload, work.operation]
"""
NAMES = [f"step{number}" for number in range(1, 5)]
DELAYS = (0.0, 0.002, 0.008)


class KilledTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="openhqm-chains-"))
        self.addCleanup(shutil.rmtree, self.directory)
        (self.directory / "jobs.py").write_text(JOBS)

    def server(self, **environment: str) -> Server:
        handlers = json.dumps(dict.fromkeys([*NAMES, "side", "end"], "jobs:step"))
        environment = {"OPENHQM_QUEUE__LEASE_SECONDS": "3", **environment}
        server = Server(self.directory, **{"OPENHQM_WORKER__HANDLERS": handlers, **environment})
        self.addCleanup(lambda: server.process and server.process.poll() is None and server.kill())
        server.start()
        return server

    def submit(self, server: Server, **metadata: Any) -> str:
        body = {"payload": [], "metadata": metadata}
        status, _, answer = server.ask("POST", "/api/v1/submit", body, {"Content-Type": "application/json"})
        self.assertEqual(status, 202, answer)
        return str(json.loads(answer)["correlation_id"])

    def ended(self, server: Server, id: str) -> Any:
        """The response of a request, whose process is killed and started again in the meantime."""
        assert server.process is not None
        server.process.wait(60)
        server.start()
        found: list[Any] = []

        def has_ended() -> bool:
            status, _, answer = server.ask("GET", f"/api/v1/response/{id}?wait=5")
            found[:] = [json.loads(answer)]
            return status == 200

        server.until(has_ended, "the chain has not ended")
        return found[0]

    def rounds(self, delays: tuple[float, ...], **environment: str) -> None:
        server = self.server(**environment)
        for delay in delays:
            (self.directory / "begun").write_text("")
            (self.directory / "kill").write_text(str(delay))
            then = [*({"operation": name} for name in NAMES[1:]), {"all": [{"operation": "side"}] * 2}]
            id = self.submit(server, operation=NAMES[0], then=[*then, {"operation": "end"}])
            response = self.ended(server, id)
            self.assertEqual(response["status"], "COMPLETED", response)
            self.assertEqual(response["result"], [[*NAMES, "side"], [*NAMES, "side"], "end"])
            lines = [line.split() for line in (self.directory / "begun").read_text().splitlines()]
            again = [each for each, count in Counter(map(tuple, lines)).items() if count > 1]
            self.assertEqual(again, [], "an attempt at a step was made twice")
            steps = {name: {id for id, _, of in lines if of == name} for name in (*NAMES, "side", "end")}
            self.assertEqual(
                {name: len(ids) for name, ids in steps.items()}, {**dict.fromkeys(NAMES, 1), "side": 2, "end": 1}
            )
            shown = json.loads(server.ask("GET", f"/api/v1/status/{id}")[2])["steps"]
            self.assertEqual({each["correlation_id"] for each in shown}, set().union(*steps.values()))
            self.assertEqual({each["status"] for each in shown}, {"COMPLETED"})

    def test_in_the_file(self) -> None:
        """In the embedded file."""
        self.rounds(DELAYS)

    def test_in_redis(self) -> None:
        """In Redis, where what follows from a step is found out behind the step that ends it."""
        redis = RedisServer().start()
        self.addCleanup(redis.close)
        self.rounds(DELAYS[:2], OPENHQM_QUEUE__TYPE="redis", OPENHQM_QUEUE__REDIS_URL=redis.url)

    def test_over_a_broker(self) -> None:
        """Over a broker, with the ledger in the file, and in Redis."""
        for ledger in ("file", "redis"):
            mosquitto, redis = Mosquitto().start(), RedisServer().start()
            self.addCleanup(mosquitto.close)
            self.addCleanup(redis.close)
            beside = {"OPENHQM_CACHE__TYPE": "redis", "OPENHQM_CACHE__REDIS_URL": redis.url}
            self.rounds(
                DELAYS[1:2],
                OPENHQM_QUEUE__TYPE="mqtt",
                OPENHQM_QUEUE__MQTT_HOST="127.0.0.1",
                OPENHQM_QUEUE__CONNECTION__MQTT__PORT=str(mosquitto.port),
                **(beside if ledger == "redis" else {}),
            )
