"""A listener with the embedded file, and workers without a store, in processes of their own on one SQS."""

from __future__ import annotations

import json

from tests.sqs.server import ENVIRONMENT, REGION, ElasticMQ
from tests.storeless import killing


class SqsTests(killing.Killing):
    """SQS counts the deliveries of a message. What a killed worker had comes after its lease of 31 s."""

    seconds = 60

    def setUp(self) -> None:
        super().setUp()
        self.sqs = ElasticMQ().start()
        self.addCleanup(self.sqs.close)
        self.listener = self.process("listener", "a")
        self.until_ready(self.listener)

    def backend(self) -> dict[str, str]:
        return {
            "OPENHQM_QUEUE__TYPE": "sqs",
            "OPENHQM_QUEUE__CONNECTION__SQS": json.dumps({"region": REGION, "endpoint_url": self.sqs.url}),
            "OPENHQM_WORKER__RETRY__BASE_SECONDS": "0.1",
            **ENVIRONMENT,
        }
