"""What callers ask for over HTTP, where a listener and a worker are two processes that share a broker."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests import beside
from tests.brokers import RedisServer, shared_rabbitmq
from tests.config.test_callbacks import SECRET
from tests.kafka.server import shared_kafka
from tests.pubsub.server import PubSubServer
from tests.servers import Server
from tests.sqs.server import ElasticMQ
from tests.test_callbacks import Receiver

JOBS = """
from openhqm.errors import Reject

def work(job):
    if job.payload == "refuse":
        raise Reject("not today")
    return [*job.payload, job.operation]
"""
STEPS = ("step1", "step2", "step3", "side")


class OverBrokerTests(SynchronousTestCase):
    def installation(self, receiver: Receiver, queue: beside.Variables) -> Server:
        """The listener, once it is ready, with a worker beside it."""
        directory = Path(tempfile.mkdtemp(prefix="openhqm-over-brokers-"))
        self.addCleanup(shutil.rmtree, directory)
        (directory / "jobs.py").write_text(JOBS)
        callbacks = {"secrets": [SECRET], "allow": [receiver.origin], "schedule": [1, 1, 1]}
        handlers = json.dumps(dict.fromkeys(STEPS, "jobs:work"))
        settings = {"OPENHQM_WORKER__HANDLERS": handlers, "OPENHQM_CALLBACKS": json.dumps(callbacks), **queue}
        listener, worker = (Server(directory, **settings) for _ in range(2))
        for server, role in ((worker, "worker"), (listener, "listener")):
            server.launch("--role", role)
            self.addCleanup(server.kill)
        listener.until(lambda: listener.ask("GET", "/health/ready")[0] == 200, "not ready", 60)
        return listener

    def with_records(self, queue: beside.Variables) -> beside.Variables:
        redis = RedisServer().start()
        self.addCleanup(redis.close)
        return {**queue, **beside.records_in(redis)}

    def brokers(self) -> dict[str, Callable[[], beside.Variables]]:
        """By name, the settings of a queue in that broker; the worker has a store where Redis keeps the records."""
        pubsub, sqs = PubSubServer(), ElasticMQ()
        self.addCleanup(pubsub.close)
        self.addCleanup(sqs.close)
        return {
            "rabbitmq": lambda: beside.queue_in_rabbitmq(shared_rabbitmq(), "over-brokers."),
            "kafka": lambda: self.with_records(beside.queue_in_kafka(shared_kafka(), "over-brokers.")),
            "sqs": lambda: beside.queue_in_sqs(sqs.start()),
            "pubsub": lambda: self.with_records(beside.queue_in_pubsub(pubsub.start())),
        }

    def test_callbacks(self) -> None:
        """A callback comes once for each ending, signed, with the document that is shown; for a chain there is one."""
        receiver = Receiver(204)
        self.addCleanup(receiver.close)
        expected: dict[str, str] = {}
        for broker, queue in self.brokers().items():
            listener = self.installation(receiver, queue())
            submit = partial(listener.submit, callback_url=f"{receiver.origin}/{broker}")
            then = [{"operation": "step2"}, {"all": [{"operation": "side"}, {"operation": "side"}]}]
            ids = {
                submit([], operation="step1"): "COMPLETED",
                submit("refuse", operation="step1"): "FAILED",
                submit([], operation="step1", delay=3600): "CANCELLED",
                submit([], operation="step1", then=[*then, {"operation": "step3"}]): "COMPLETED",
            }
            expected |= ids
            *_, cancelled, chain = ids
            listener.ask("POST", f"/api/v1/cancel/{cancelled}")
            received = {fields["webhook-id"]: document for fields, document in receiver.wait(len(expected))}
            self.assertEqual({id: document["status"] for id, document in received.items()}, expected, broker)
            for id in ids:
                shown = json.loads(listener.ask("GET", f"/api/v1/response/{id}")[2])
                shown.pop("expires_at")
                self.assertEqual(received[id], shown, broker)
            both = [["step1", "step2", "side"]] * 2
            self.assertEqual(received[chain]["result"], [*both, "step3"], broker)
            steps = json.loads(listener.ask("GET", f"/api/v1/status/{chain}")[2])["steps"]
            self.assertEqual([each["status"] for each in steps], ["COMPLETED"] * 5, broker)
        self.assertEqual(len(receiver.received), len(expected))
