"""The crash test on Pub/Sub: listener, worker, Redis and the service are killed in turn, and no request is lost.

    python -m tests.crash_pubsub --rounds 200 [--seed N] [--wipe]

The service is Google's in-memory server. Its front is killed, so that it comes back with all that it had; with
``--wipe`` it loses everything, and one process has its ledger in a file.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.beside import queue_in_pubsub, records_in
from tests.crash import Broken, Callers, nothing_unexpected
from tests.crash_redis import Installation, main
from tests.pubsub.server import PubSubServer


class PubSubInstallation(Installation):
    """A Pub/Sub in addition to the Redis."""

    def __init__(self, directory: Path, before: str = "", **settings: str) -> None:
        self.pubsub = PubSubServer()
        super().__init__(directory, before, **settings)
        self.parts["pubsub"] = (self.pubsub.kill, self.pubsub.start)

    def backend(self) -> dict[str, str]:
        return {**queue_in_pubsub(self.pubsub), **records_in(self.redis)}

    def start(self) -> None:
        self.pubsub.start()
        super().start()

    def close(self) -> None:
        super().close()
        self.pubsub.close()


class Wiped(PubSubInstallation):
    """One process with its own file, and a service that comes back with nothing."""

    def __init__(self, directory: Path, before: str = "", **settings: str) -> None:
        super().__init__(directory, before, **settings)
        del self.parts["redis"], self.parts["worker"]
        self.parts["pubsub"] = (self.pubsub.lose, self.pubsub.start)

    def backend(self) -> dict[str, str]:
        return queue_in_pubsub(self.pubsub)

    def start(self) -> None:
        self.pubsub.start()
        self.start_listener()

    def start_listener(self) -> None:
        self.listener.start()

    def stop(self) -> None:
        if (code := self.listener.stop()) != 0:
            raise Broken(f"SIGTERM ended the gateway with {code}")

    def check(self, callers: Callers) -> None:
        nothing_unexpected(self.listener.directory, callers)


if __name__ == "__main__":
    sys.exit(main("tests.crash_pubsub", PubSubInstallation, wipe=Wiped))
