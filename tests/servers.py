"""A real server in a process of its own, and a plain client for it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RUN_TWISTD = "import sys; from twisted.scripts.twistd import run; sys.argv[0] = 'twistd'; run()"


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """``twistd -n openhqm`` in ``directory``. ``before`` is Python that runs in the process first."""

    def __init__(self, directory: str | Path, before: str = "", **environment: str) -> None:
        self.directory = Path(directory)
        self.port = free_port()
        self.before = before
        self.environment = environment
        self.process: subprocess.Popen[bytes] | None = None

    def command(self, *arguments: str) -> list[str]:
        """How the process is started."""
        return [sys.executable, "-c", f"{self.before}\n{RUN_TWISTD}", "-n", "openhqm", *arguments]

    def variables(self) -> dict[str, str]:
        """Its environment."""
        return {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OPENHQM_SERVER__PORT": str(self.port),
            "OPENHQM_QUEUE__CONNECTION__SQLITE__PATH": str(self.directory / "data"),
            **self.environment,
        }

    def start(self, *arguments: str) -> None:
        """Start it, and come back once it is ready."""
        self.launch(*arguments)
        self.until(lambda: self.ask("GET", "/health/ready")[0] == 200, "not ready within 30 s")

    def launch(self, *arguments: str) -> None:
        """Start it, and do not wait for anything."""
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(*arguments), cwd=self.directory, env=self.variables(), stdout=log, stderr=log
            )

    def until(self, holds: Callable[[], object], words: str, seconds: float = 30) -> None:
        """Ask it again until ``holds`` is true; nobody listening is as good as false. `AssertionError` if it ends."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process is not None and self.process.poll() is not None:
                raise AssertionError(f"it ended with {self.process.returncode}:\n{self.log()}")
            with suppress(OSError):
                if holds():
                    return
            time.sleep(0.02)  # asking again, not waiting for luck: the deadline stands above
        raise AssertionError(f"{words}:\n{self.log()}")

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Run it to its end: exit code, standard output, standard error."""
        done = subprocess.run(
            self.command(*arguments),
            cwd=self.directory,
            env=self.variables(),
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.returncode, done.stdout, done.stderr

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to end, and the exit code it ends with."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout=60)

    def log(self) -> str:
        """All it has written."""
        return (self.directory / "log").read_text(errors="replace")

    def connection(self, timeout: float = 20) -> http.client.HTTPConnection:
        """A connection to it, for one request or more."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, timeout: float = 20
    ) -> tuple[int, dict[str, str], bytes]:
        """One request on a connection of its own: status, header fields in lower case, body."""
        connection = self.connection(timeout)
        try:
            data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            sent = {"Content-Type": "application/json", **(headers or {})} if body is not None else headers or {}
            connection.request(method, path, data, sent)
            response = connection.getresponse()
            return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
        finally:
            connection.close()

    def submit(self, payload: Any, headers: dict[str, str] | None = None, **metadata: Any) -> str:
        """Submit, expect the 202, and the id."""
        status, _, body = self.ask("POST", "/api/v1/submit", {"payload": payload, "metadata": metadata}, headers)
        assert status == 202, (status, body)
        correlation_id: str = json.loads(body)["correlation_id"]
        return correlation_id

    def response(self, correlation_id: str, wait: int = 10) -> dict[str, Any]:
        """The response document, waiting for it."""
        status, _, body = self.ask("GET", f"/api/v1/response/{correlation_id}?wait={wait}", timeout=wait + 10)
        assert status == 200, (status, body)
        document: dict[str, Any] = json.loads(body)
        return document
