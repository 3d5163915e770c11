"""A real openhqm server in a process of its own, and a plain HTTP client for it."""

from __future__ import annotations

import http.client
import json
import os
import random
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


# Below the ports that Linux gives to outgoing connections (net.ipv4.ip_local_port_range): a connection of another
# process cannot take the port of a server that a test has stopped and will start again.
PORTS = range(20_000, 32_000)
_reservations: list[socket.socket] = []


def free_port() -> int:
    """A TCP port on which nothing listens, and which no other process of tests is given while this process lives.

    The reservation is a Unix socket in Linux's abstract namespace (unix(7)), bound under the number of the port: the
    kernel refuses that name to other processes, and frees it when this process ends, however it ends.
    """
    choose = random.SystemRandom()
    while True:
        port = choose.choice(PORTS)
        reservation = socket.socket(socket.AF_UNIX)
        with socket.socket() as probe:
            try:
                if sys.platform == "linux":
                    reservation.bind(f"\0openhqm-tests-{port}")
                probe.bind(("127.0.0.1", port))
            except OSError:
                reservation.close()
                continue
        _reservations.append(reservation)
        return port


class Server:
    """``twistd -n openhqm`` in ``directory``, on a port of its own. ``before`` is Python that runs first.

    Without a configuration file, handlers and endpoints it answers requests with their own payloads.
    """

    def __init__(self, directory: str | Path, before: str = "", **environment: str) -> None:
        self.directory = Path(directory)
        self.port = free_port()
        self.before = before
        self.environment = environment
        sidecar = environment.get("OPENHQM_PROXY__SIDECAR__ENABLED") == "true"
        self.prefix = environment.get("OPENHQM_SERVER__PREFIX", "/_openhqm" if sidecar else "").rstrip("/")
        self.process: subprocess.Popen[bytes] | None = None

    def command(self, *arguments: str) -> list[str]:
        """The command line that starts the process."""
        return [sys.executable, "-c", f"{self.before}\n{RUN_TWISTD}", "-n", "openhqm", *arguments]

    def variables(self, *arguments: str) -> dict[str, str]:
        """The environment of the process with those arguments."""
        answers = {"OPENHQM_WORKER__HANDLERS", "OPENHQM_PROXY__ENABLED"} & self.environment.keys()
        configured = "--config" in arguments or answers
        return {
            **({} if configured else {"OPENHQM_WORKER__HANDLER": "echo"}),
            **os.environ,
            "PYTHONPATH": str(ROOT),
            **({} if "OPENHQM_SERVER__ENDPOINTS" in self.environment else {"OPENHQM_SERVER__PORT": str(self.port)}),
            # The whole section: it may stand there unused where the queue is elsewhere.
            "OPENHQM_QUEUE__CONNECTION__SQLITE": json.dumps({"path": str(self.directory / "data")}),
            **self.environment,
        }

    def start(self, *arguments: str) -> None:
        """Start it, and return once it is ready."""
        self.launch(*arguments)
        self.until(lambda: self.ask("GET", f"{self.prefix}/health/ready")[0] == 200, "not ready within 90 s", 90)

    def launch(self, *arguments: str) -> None:
        """Start it, and return at once."""
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(*arguments), cwd=self.directory, env=self.variables(*arguments), stdout=log, stderr=log
            )

    def most_memory(self) -> float:
        """How much memory the process has had at most, in MiB."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) / 1024

    def until(self, reached: Callable[[], object], failure: str, seconds: float = 30) -> None:
        """Call ``reached`` until it returns true. An OSError (nothing listens) counts as false.

        `AssertionError` with ``failure`` and the log where it is not true within ``seconds``, or the process has ended.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process is not None and self.process.poll() is not None:
                raise AssertionError(f"it ended with {self.process.returncode}:\n{self.log()}")
            with suppress(OSError):
                if reached():
                    return
            time.sleep(0.02)  # asking again, not waiting for luck: the deadline stands above
        raise AssertionError(f"{failure}:\n{self.log()}")

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Run it until it ends, and return exit code, standard output and standard error."""
        done = subprocess.run(
            self.command(*arguments),
            cwd=self.directory,
            env=self.variables(*arguments),
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.returncode, done.stdout, done.stderr

    def kill(self) -> None:
        """Send SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send it a signal, wait until it has ended, and return its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout=60)

    def log(self) -> str:
        """Its log."""
        return (self.directory / "log").read_text(errors="replace")

    def connection(self, timeout: float = 20) -> http.client.HTTPConnection:
        """A connection to it, for any number of requests."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, timeout: float = 20
    ) -> tuple[int, dict[str, str], bytes]:
        """Send a request on a connection of its own, and return status, header fields in lower case, and body."""
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
        """Submit a payload, expect the 202, and return the id."""
        status, _, body = self.ask("POST", "/api/v1/submit", {"payload": payload, "metadata": metadata}, headers)
        assert status == 202, (status, body)
        correlation_id: str = json.loads(body)["correlation_id"]
        return correlation_id

    def response(self, correlation_id: str, wait: int = 10) -> dict[str, Any]:
        """The response document, for which it waits up to ``wait`` seconds."""
        status, _, body = self.ask("GET", f"/api/v1/response/{correlation_id}?wait={wait}", timeout=wait + 10)
        assert status == 200, (status, body)
        document: dict[str, Any] = json.loads(body)
        return document
