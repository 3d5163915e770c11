"""The crash test on Kafka with its ledger in Redis: listener, worker, Redis and Kafka are killed in turn.

    python -m tests.crash_kafka --rounds 60 [--seed N]

Kafka does not sync its log before it confirms a message. What is killed here is its process, not the machine: the
system has what was written.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.beside import queue_in_kafka, records_in
from tests.crash_redis import Installation, main
from tests.kafka.server import KafkaServer


class KafkaInstallation(Installation):
    """A Kafka in addition to the Redis."""

    def __init__(self, directory: Path, before: str = "", **settings: str) -> None:
        self.kafka = KafkaServer()
        super().__init__(directory, before, **settings)
        self.parts["kafka"] = (self.kafka.kill, self.kafka.start)

    def backend(self) -> dict[str, str]:
        return {**queue_in_kafka(self.kafka), **records_in(self.redis)}

    def start(self) -> None:
        self.kafka.start()
        super().start()

    def close(self) -> None:
        super().close()
        self.kafka.close()


if __name__ == "__main__":
    sys.exit(main("tests.crash_kafka", KafkaInstallation))
