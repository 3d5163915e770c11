"""The admin listener: who may ask it, and what an autoscaler learns there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from openhqm.config.model import Admin
from openhqm.http1.messages import Answer, FullRequest
from openhqm.http1.rules import check_head
from openhqm.ingress.admin import AdminListener
from openhqm.ingress.health import Health
from openhqm.messages import Submission
from openhqm.policy.queue_names import queue_name
from openhqm.testing import REQUESTS
from tests.benches import MemoryBench
from tests.brokers import RedisServer
from tests.servers import Server, free_port

KEY = "correct-horse-battery"
QUEUES = {REQUESTS: [REQUESTS], f"{REQUESTS}.billing": [queue_name(REQUESTS, "billing", part) for part in (None, 0)]}


class Rig:
    """A listener over a queue in memory."""

    def __init__(self, key: str | None = None) -> None:
        self.bench = MemoryBench()
        health = Health(self.bench.queue, "memory", None, lambda: None, tuple)
        queue: Any = self.bench.queue
        self.listener = AdminListener(Admin(port=0, key=key), self.bench.clock, health, queue, lambda: QUEUES)

    def ask(self, method: bytes, target: bytes, authorization: bytes | None = None) -> tuple[int, Any]:
        fields = [(b"host", b"x"), *([] if authorization is None else [(b"authorization", authorization)])]
        head = check_head(method, target, "1.1", fields)
        found: list[Answer] = []
        serving = self.listener._serve(FullRequest(head, b"", True, dict(fields).get, "127.0.0.1", "http"))
        Deferred.fromCoroutine(serving).addCallback(found.append)
        self.bench.turn()
        return found[0].status, found[0].body

    def scaler(self, queue: str = REQUESTS) -> Any:
        status, body = self.ask(b"GET", f"/admin/api/v1/scaler/{queue}".encode())
        return json.loads(body) if status == 200 else status

    def accept(self, **fields: Any) -> None:
        self.bench.queue.accept(Submission(b"1", **fields), None)
        self.bench.turn()


class ScalerTests(SynchronousTestCase):
    def test_what_is_to_do(self) -> None:
        """What waits now is the backlog, what is worked on is in flight, and what is scheduled is neither."""
        rig = Rig()
        self.assertEqual(rig.scaler(), {"backlog": 0, "in_flight": 0, "oldest_age_seconds": 0.0})
        rig.accept()
        rig.accept(not_before=rig.bench.now() + 60)
        rig.bench.pass_time(5)
        rig.accept()
        self.assertEqual(rig.scaler(), {"backlog": 2, "in_flight": 0, "oldest_age_seconds": 5.0})
        rig.bench.queue.receive(REQUESTS, 1)
        rig.bench.turn()
        self.assertEqual(rig.scaler(), {"backlog": 1, "in_flight": 1, "oldest_age_seconds": 0.0})

    def test_partitions(self) -> None:
        """The partitions of an endpoint are counted with it, and those of no other."""
        rig = Rig()
        rig.accept(endpoint="billing")
        rig.accept(endpoint="billing", partition=0)
        self.assertEqual(rig.scaler(f"{REQUESTS}.billing")["backlog"], 2)
        self.assertEqual(rig.scaler()["backlog"], 0)

    def test_unknown(self) -> None:
        """A queue without workers is 404."""
        for name in ("other", "", "a/b", "%C3%BC", REQUESTS + ".other"):
            self.assertEqual(Rig().scaler(name), 404, name)


class AccessTests(SynchronousTestCase):
    def test_key(self) -> None:
        """With a key everything needs it but the probes; a wrong one reads as a missing one."""
        rig = Rig(KEY)
        paths = (b"/health", b"/metrics", b"/admin/api/v1/scaler/" + REQUESTS.encode(), b"/other", b"/health/live/")
        for path in paths:
            wrong = (None, b"", b"Bearer", b"Bearer wrong", f"Basic {KEY}".encode(), KEY.encode(), b"Bearer \xff")
            answers = {rig.ask(b"GET", path, said) for said in wrong}
            self.assertEqual({status for status, _ in answers}, {401}, path)
            self.assertEqual(len(answers), 1, path)
            self.assertNotEqual(rig.ask(b"GET", path, f"Bearer {KEY}".encode())[0], 401, path)
        for path in (b"/health/live", b"/health/ready", b"/health/ready?x=1"):
            self.assertEqual(rig.ask(b"GET", path)[0], 200, path)

    def test_methods(self) -> None:
        """Nothing can be changed here."""
        for method in (b"POST", b"PUT", b"DELETE", b"OPTIONS"):
            self.assertEqual(Rig().ask(method, b"/health")[0], 405)
        self.assertEqual(Rig().ask(b"HEAD", b"/health")[0], 200)
        self.assertEqual(Rig().ask(b"GET", b"/api/v1/submit")[0], 404)


class ProcessTests(SynchronousTestCase):
    def test_every_role(self) -> None:
        """A listener and a worker on one Redis can be probed, and tell the same of the queue."""
        directory = Path(self.mktemp())
        directory.mkdir()
        redis = RedisServer().start()
        self.addCleanup(redis.close)
        found = {}
        for role in ("listener", "worker"):
            port = free_port()
            server = Server(
                directory,
                OPENHQM_QUEUE__TYPE="redis",
                OPENHQM_QUEUE__REDIS_URL=f"redis://localhost:{redis.port}",
                OPENHQM_ADMIN__PORT=str(port),
                OPENHQM_ADMIN__KEY=KEY,
            )
            server.launch("--role", role)
            self.addCleanup(lambda server=server: server.process.poll() is None and server.kill())
            admin = Server(directory)
            admin.port = port
            server.until(lambda admin=admin: admin.ask("GET", "/health/ready")[0] == 200, f"the {role} is not ready")
            found[role] = server, admin
        listener, workers = found["listener"][0], found["worker"][0]
        body = {"payload": 1, "metadata": {"delay": 3600}}
        listener.ask("POST", "/api/v1/submit", body, {"Content-Type": "application/json"})
        key = {"Authorization": f"Bearer {KEY}"}
        asked = [admin.ask("GET", "/admin/api/v1/scaler/openhqm-requests", headers=key) for _, admin in found.values()]
        self.assertEqual(asked[0][2], asked[1][2])
        self.assertEqual(json.loads(asked[0][2]), {"backlog": 0, "in_flight": 0, "oldest_age_seconds": 0.0})
        self.assertIn(b"openhqm_queue_depth", found["worker"][1].ask("GET", "/metrics", headers=key)[2])
        self.assertNotIn(KEY, listener.log() + workers.log())
        self.assertEqual(workers.stop(), 0)
