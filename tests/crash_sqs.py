"""The crash test on SQS: listener, worker, Redis and ElasticMQ are killed in turn, and no request is lost.

    python -m tests.crash_sqs --rounds 200 [--seed N] [--wipe]

ElasticMQ writes down what it has, as SQS does, and takes two seconds to start. With ``--wipe`` it comes back with
nothing, and one process has its ledger in a file.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.beside import queue_in_sqs, records_in
from tests.crash import Broken, Callers, nothing_unexpected
from tests.crash_redis import Installation, main
from tests.sqs.server import ElasticMQ


class SqsInstallation(Installation):
    """An ElasticMQ in addition to the Redis."""

    keeps = True

    def __init__(self, directory: Path, before: str = "", **settings: str) -> None:
        self.sqs = ElasticMQ(self.keeps)
        super().__init__(directory, before, **settings)
        self.parts["sqs"] = (self.sqs.kill, self.sqs.start)

    def backend(self) -> dict[str, str]:
        return {**queue_in_sqs(self.sqs), **records_in(self.redis)}

    def start(self) -> None:
        self.sqs.start()
        super().start()

    def close(self) -> None:
        super().close()
        self.sqs.close()


class Wiped(SqsInstallation):
    """One process with its own file, and a server that comes back with nothing."""

    keeps = False

    def __init__(self, directory: Path, before: str = "", **settings: str) -> None:
        super().__init__(directory, before, **settings)
        del self.parts["redis"], self.parts["worker"]

    def backend(self) -> dict[str, str]:
        return queue_in_sqs(self.sqs)

    def start(self) -> None:
        self.sqs.start()
        self.start_listener()

    def start_listener(self) -> None:
        self.listener.start()

    def stop(self) -> None:
        if (code := self.listener.stop()) != 0:
            raise Broken(f"SIGTERM ended the gateway with {code}")

    def check(self, callers: Callers) -> None:
        nothing_unexpected(self.listener.directory, callers)


if __name__ == "__main__":
    sys.exit(main("tests.crash_sqs", SqsInstallation, wipe=Wiped))
