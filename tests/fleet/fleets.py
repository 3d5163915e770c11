"""A parent and its processes, as an operator sees them."""

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


def until(reached: Callable[[], bool], words: str, seconds: float = PATIENCE) -> None:
    """Come back once it is so; `AssertionError` where it is not within ``seconds``."""
    deadline = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {words}")
        time.sleep(0.02)  # asking again, not waiting for luck: the deadline stands above


def alive(pid: int) -> bool:
    """Whether there is such a process, and it is more than what is left of one."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def backend_of(redis: RedisServer) -> dict[str, str]:
    """The settings that name it."""
    return {"OPENHQM_QUEUE__TYPE": "redis", "OPENHQM_QUEUE__REDIS_URL": redis.url}


class FleetServer(Server):
    """Processes under a parent, on a backend that the settings ``backend`` name."""

    def __init__(self, directory: str | Path, backend: Mapping[str, str], before: str = "", **environment: str) -> None:
        super().__init__(directory, before, **{"OPENHQM_SERVER__WORKERS": "2", **backend, **environment})

    @property
    def pid(self) -> int:
        """That of the parent."""
        assert self.process is not None
        return self.process.pid

    def children(self) -> list[int]:
        """The processes that there are now, the eldest first."""
        found = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return sorted((int(pid) for pid in found if alive(int(pid))), key=lambda pid: self._born(pid))

    def _born(self, pid: int) -> tuple[int, int]:
        try:
            return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]), pid
        except OSError:
            return 0, pid

    def start(self, *arguments: str) -> None:
        super().start(*arguments)
        until(lambda: "processes are ready" in self.log(), "the parent says that all are ready")

    def hang_up(self) -> None:
        """SIGHUP to the parent."""
        os.kill(self.pid, signal.SIGHUP)

    def said(self, words: str) -> int:
        """How often that stands in the log."""
        return self.log().count(words)

    def roll(self) -> None:
        """SIGHUP, and come back once all processes are new."""
        before = self.said("rolled over")
        self.hang_up()
        until(lambda: self.said("rolled over") > before, f"rolled over:\n{self.log()[-3000:]}", 90)

    def health(self) -> dict[str, Any]:
        """The overview."""
        document: dict[str, Any] = json.loads(self.ask("GET", "/health")[2])
        return document

    def ready(self, count: int) -> None:
        """Come back once so many processes serve, and nobody else is there."""
        until(lambda: self.health()["processes"] == {"ready": count}, f"{count} processes are ready")

    def metric(self, name: str) -> float:
        """One sample, by its name with its labels as Prometheus writes them."""
        for line in self.ask("GET", "/metrics")[2].decode().splitlines():
            if line.startswith(f"{name} "):
                return float(line.rpartition(" ")[2])
        raise AssertionError(f"no {name}")
