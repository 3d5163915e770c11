"""The crash test on Pub/Sub: listener, worker, Redis and the service are killed in turn, and no request is lost.

    python -m tests.crash_pubsub --rounds 200 [--seed N] [--wipe]

The service is Google's in-memory server. Its front is killed, so that it comes back with all that it had; with
``--wipe`` it loses everything, and one process has its ledger in a file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.crash import Broken, Callers, nothing_unexpected
from tests.crash_redis import Installation, main
from tests.pubsub.server import PROJECT, PubSubServer


class PubSubInstallation(Installation):
    """A Pub/Sub in addition to the Redis."""

    def __init__(self, directory: Path, before: str = "", **settings: str) -> None:
        self.pubsub = PubSubServer()
        super().__init__(directory, before, **settings)
        self.parts["pubsub"] = (self.pubsub.kill, self.pubsub.start)

    def backend(self) -> dict[str, str]:
        return {
            **self.broker(),
            "OPENHQM_CACHE__TYPE": "redis",
            "OPENHQM_CACHE__REDIS_URL": self.redis.url,
        }

    def broker(self) -> dict[str, str]:
        """The settings that name the service, with the shortest lease: what a killed worker had comes after that."""
        ours = {"project_id": PROJECT, "emulator_host": self.pubsub.host, "lease_seconds": 10}
        return {
            "OPENHQM_QUEUE__TYPE": "gcp_pubsub",
            "OPENHQM_QUEUE__CONNECTION__GCP_PUBSUB": json.dumps(ours),
        }

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
        return self.broker()

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
