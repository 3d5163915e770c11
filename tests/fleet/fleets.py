"""A real parent with its processes, and what an operator sees of them."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.brokers import RedisServer
from tests.servers import Server

PATIENCE = 30.0


def until(reached: Callable[[], bool], expected: str, seconds: float = PATIENCE) -> None:
    """Return when ``reached()`` is true. `AssertionError` with ``expected`` where it is not within ``seconds``."""
    deadline = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {expected}")
        time.sleep(0.02)  # asking again, not waiting for luck: the deadline stands above


def alive(pid: int) -> bool:
    """Whether the process ``pid`` runs. A zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def backend_of(redis: RedisServer) -> dict[str, str]:
    """The settings for a fleet on ``redis``."""
    return {"OPENHQM_QUEUE__TYPE": "redis", "OPENHQM_QUEUE__REDIS_URL": redis.url}


class FleetServer(Server):
    """A server of several processes, on the backend that the settings ``backend`` name."""

    def __init__(self, directory: str | Path, backend: Mapping[str, str], before: str = "", **environment: str) -> None:
        super().__init__(directory, before, **{"OPENHQM_SERVER__WORKERS": "2", **backend, **environment})

    @property
    def pid(self) -> int:
        """The parent's pid."""
        assert self.process is not None
        return self.process.pid

    def children(self) -> list[int]:
        """The pids of the running processes, the oldest first."""
        found = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return sorted((int(pid) for pid in found if alive(int(pid))), key=lambda pid: self._born(pid))

    def _born(self, pid: int) -> tuple[int, int]:
        try:
            return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]), pid
        except OSError:
            return 0, pid

    def start(self, *arguments: str) -> None:
        super().start(*arguments)
        until(lambda: "processes are ready" in self.log(), "all processes are ready")

    def hang_up(self) -> None:
        """Send SIGHUP to the parent."""
        os.kill(self.pid, signal.SIGHUP)

    def said(self, text: str) -> int:
        """How often ``text`` is in the log."""
        return self.log().count(text)

    def roll(self) -> None:
        """Send SIGHUP, and return when all processes are new."""
        before = self.said("rolled over")
        self.hang_up()
        until(lambda: self.said("rolled over") > before, f"rolled over:\n{self.log()[-3000:]}", 90)

    def health(self) -> dict[str, Any]:
        """The document of ``/health``."""
        document: dict[str, Any] = json.loads(self.ask("GET", "/health")[2])
        return document

    def ready(self, count: int) -> None:
        """Return when ``count`` processes are ready and there are no others."""
        until(lambda: self.health()["processes"] == {"ready": count}, f"{count} processes are ready")

    def metric(self, name: str) -> float:
        """The value of a sample, by its name with its labels as Prometheus writes them."""
        for line in self.ask("GET", "/metrics")[2].decode().splitlines():
            if line.startswith(f"{name} "):
                return float(line.rpartition(" ")[2])
        raise AssertionError(f"no {name}")
