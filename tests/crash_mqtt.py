"""The crash test on MQTT: a gateway and its Mosquitto are killed in turn, and no request is lost.

    python -m tests.crash_mqtt --rounds 200 [--seed N] [--wipe | --shared]

The gateway is one process with its ledger in a file. Mosquitto writes down each change, or with ``--wipe`` comes back
empty each time. With ``--shared`` the ledger is in Redis, and listener, worker and Redis are killed, too.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.brokers import Mosquitto
from tests.crash import Broken, Callers, nothing_unexpected
from tests.crash_redis import Installation, main


class SharedInstallation(Installation):
    """A Mosquitto in addition to the Redis."""

    def __init__(self, directory: Path, before: str = "", **settings: str) -> None:
        self.mosquitto = Mosquitto()
        super().__init__(directory, before, **settings)
        self.parts["mosquitto"] = (self.mosquitto.kill, self.mosquitto.start)

    def backend(self) -> dict[str, str]:
        return {
            **self.mqtt(),
            "OPENHQM_CACHE__TYPE": "redis",
            "OPENHQM_CACHE__REDIS_URL": self.redis.url,
        }

    def mqtt(self) -> dict[str, str]:
        """The settings that name the broker."""
        return {
            "OPENHQM_QUEUE__TYPE": "mqtt",
            "OPENHQM_QUEUE__MQTT_HOST": "127.0.0.1",
            "OPENHQM_QUEUE__CONNECTION__MQTT__PORT": str(self.mosquitto.port),
        }

    def start(self) -> None:
        self.mosquitto.start()
        super().start()

    def close(self) -> None:
        super().close()
        self.mosquitto.close()


class MQTTInstallation(SharedInstallation):
    """One process that listens and works, with its own file."""

    def __init__(self, directory: Path, before: str = "", **settings: str) -> None:
        super().__init__(directory, before, **settings)
        del self.parts["redis"], self.parts["worker"]

    def backend(self) -> dict[str, str]:
        return self.mqtt()

    def start(self) -> None:
        self.mosquitto.start()
        self.start_listener()

    def start_listener(self) -> None:
        self.listener.start()

    def stop(self) -> None:
        if (code := self.listener.stop()) != 0:
            raise Broken(f"SIGTERM ended the gateway with {code}")

    def check(self, callers: Callers) -> None:
        nothing_unexpected(self.listener.directory, callers)


class Wiped(MQTTInstallation):
    """A Mosquitto that restarts on an empty disk."""

    def __init__(self, directory: Path, before: str = "", **settings: str) -> None:
        super().__init__(directory, before, **settings)
        self.parts["mosquitto"] = (lambda: None, self.mosquitto.lose_everything)


if __name__ == "__main__":
    sys.exit(main("tests.crash_mqtt", MQTTInstallation, wipe=Wiped, shared=SharedInstallation))
