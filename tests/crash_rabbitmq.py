"""The crash test on RabbitMQ with its ledger in Redis: listener, worker, Redis and RabbitMQ are killed in turn.

    python -m tests.crash_rabbitmq --rounds 200 [--seed N] [--wipe | --journaled | --journaled-in-file]

Redis syncs its append-only file before each answer. RabbitMQ's queues are quorum queues of one node. With ``--wipe``
the ledger is in the listener's file, the worker has no store, and RabbitMQ loses its data each time it is killed. With
``--journaled`` a 202 waits for Redis alone, with ``--journaled-in-file`` for the listener's file: there the queue is
not limited, for what is limited is not just appended.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from tests.beside import queue_in_rabbitmq, records_in
from tests.brokers import RabbitMQServer
from tests.crash import Callers, nothing_unexpected
from tests.crash_redis import Installation, main


class RabbitMQInstallation(Installation):
    """A RabbitMQ in addition to the Redis."""

    def __init__(self, directory: Path, before: str = "", **settings: str) -> None:
        self.rabbitmq = RabbitMQServer()
        super().__init__(directory, before, **settings)
        self.parts["rabbitmq"] = (self.kill_rabbitmq, self.rabbitmq.start)

    def backend(self) -> dict[str, str]:
        return {**queue_in_rabbitmq(self.rabbitmq), **records_in(self.redis)}

    def start(self) -> None:
        self.rabbitmq.start()
        super().start()

    def kill_rabbitmq(self) -> None:
        """Kill it after it has written down its queues: 3.10 forgets a queue of the last seconds, with its messages."""
        self.rabbitmq.know_its_queues()
        self.rabbitmq.kill()

    def close(self) -> None:
        super().close()
        self.rabbitmq.close()


class Wiped(RabbitMQInstallation):
    """A RabbitMQ without Redis, which restarts on an empty disk."""

    def __init__(self, directory: Path, before: str = "", **settings: str) -> None:
        super().__init__(directory, before, **settings)
        del self.parts["redis"]
        self.parts["rabbitmq"] = (lambda: None, self.rabbitmq.lose_everything)

    def backend(self) -> dict[str, str]:
        return queue_in_rabbitmq(self.rabbitmq)

    def start(self) -> None:
        self.rabbitmq.start()
        self.start_worker()
        self.start_listener()

    def check(self, callers: Callers) -> None:
        nothing_unexpected(self.listener.directory, callers)


class Journaled(RabbitMQInstallation):
    """Requests are accepted while RabbitMQ is away, too."""

    def backend(self) -> dict[str, str]:
        return {**super().backend(), "OPENHQM_QUEUE__ACCEPT": "journaled"}


class JournaledInFile(Wiped):
    """The same beside a file, which has one process. RabbitMQ keeps what it has."""

    limits: Mapping[str, str] = {}

    def __init__(self, directory: Path, before: str = "", **settings: str) -> None:
        super().__init__(directory, before, **settings)
        self.parts["rabbitmq"] = (self.kill_rabbitmq, self.rabbitmq.start)

    def backend(self) -> dict[str, str]:
        return {**super().backend(), "OPENHQM_QUEUE__ACCEPT": "journaled"}


if __name__ == "__main__":
    others = {"wipe": Wiped, "journaled": Journaled, "journaled-in-file": JournaledInFile}
    sys.exit(main("tests.crash_rabbitmq", RabbitMQInstallation, **others))
