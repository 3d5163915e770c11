"""What accepting a request costs: the CPU of the process for each one, read from /proc.

    python -m benchmarks.accepting [--rounds 60] [--requests 640] [--beside DIRECTORY]

All kinds run side by side and are measured in turns, a short round each, and compared within each turn, so that what
else the machine does meets all of them. The queue is SQLite, and no worker runs. ``--beside`` names another checkout,
whose plain requests are then what the others are compared with.
"""

from __future__ import annotations

import argparse
import json
import socket
import ssl
import statistics
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from benchmarks import running

CONNECTIONS = 32
CALLBACK = "http://127.0.0.1:9000/"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # the one in the docs


class Kind(NamedTuple):
    """``field`` are header fields of each request, as they are sent. ``root`` is the checkout that serves it. ``than``
    is what its cost is compared with; empty: the first kind.
    """

    environment: Mapping[str, str] = {}
    field: bytes = b""
    body: bytes = running.BODY
    secure: bool = False
    root: Path = running.ROOT
    than: str = ""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=60)
    options.add_argument("--requests", type=int, default=640)
    options.add_argument("--beside", type=Path)
    chosen = options.parse_args()
    callbacks = {"secrets": [SECRET], "allow": [CALLBACK.rstrip("/")]}
    away = {
        "OPENHQM_QUEUE__TYPE": "rabbitmq",
        "OPENHQM_QUEUE__RABBITMQ_URL": f"amqp://guest:guest@127.0.0.1:{running.free_port()}/",
        "OPENHQM_QUEUE__ACCEPT": "journaled",
    }
    followed = json.dumps({**json.loads(running.BODY), "metadata": {"callback_url": CALLBACK}}).encode()
    beside = {} if chosen.beside is None else {"beside": Kind(root=chosen.beside.resolve())}
    kinds = {
        **beside,
        "plain": Kind(),
        "follow-up": Kind({"OPENHQM_CALLBACKS": json.dumps(callbacks)}, body=followed),
        "journaled, broker away": Kind(away),
    }
    compare(kinds, chosen.rounds, chosen.requests)


def compare(kinds: Mapping[str, Kind], rounds: int, requests: int) -> None:
    """Print what each of ``kinds`` costs, beside another one, in ``rounds`` of so many ``requests``."""
    with ExitStack() as stack:
        servers = {name: stack.enter_context(_Server(kind)) for name, kind in kinds.items()}
        costs: dict[str, list[float]] = {name: [] for name in kinds}
        for turn in range(rounds):
            for name in (list(kinds), list(reversed(kinds)))[turn % 2]:
                costs[name].append(servers[name].cost(requests))
    for name, found in costs.items():
        than = kinds[name].than or next(iter(kinds))
        ratio = statistics.median(each / base for each, base in zip(found, costs[than], strict=True))
        lowest, median = min(found), statistics.median(found)
        what = f"lowest {lowest:6.1f} us, median {median:6.1f} us of CPU for each request"
        print(f"{name:24} {what}  {ratio:5.2f} x {than}")


class _Server:
    """A listener that accepts requests of one kind, and the connections to it."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._request = b"POST /api/v1/submit HTTP/1.1\r\nHost: localhost\r\n%bContent-Type: application/json\r\n"
        self._request = self._request % kind.field
        self._request += b"Content-Length: %d\r\n\r\n%b" % (len(kind.body), kind.body)
        self._stack = ExitStack()

    def __enter__(self) -> _Server:
        port = running.free_port()
        directory = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="openhqm-bench-", dir="/var/tmp"))
        environment = {
            "OPENHQM_SERVER__PORT": str(port),
            "OPENHQM_QUEUE__CONNECTION__SQLITE__PATH": directory,
            "OPENHQM_MONITORING__LOG_LEVEL": "ERROR",
            **self._kind.environment,
        }
        command = [sys.executable, "-c", running.TWISTD, "-n", "openhqm", "--role", "listener"]
        process = running.process(command, port, self._kind.root, **environment)
        self._pid = self._stack.enter_context(process).pid
        context = ssl._create_unverified_context()
        self._connections = []
        for _ in range(CONNECTIONS):
            connection = socket.create_connection(("127.0.0.1", port))
            if self._kind.secure:
                connection = context.wrap_socket(connection)
            self._connections.append(self._stack.enter_context(connection))
        self._send(20)  # the first ones are slower
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def cost(self, requests: int) -> float:
        """Microseconds of CPU for each of ``requests``."""
        times = max(1, requests // CONNECTIONS)
        began = cpu(self._pid)
        self._send(times)
        return (cpu(self._pid) - began) / (times * CONNECTIONS) * 1e6

    def _send(self, times: int) -> None:
        for _ in range(times):
            for each in self._connections:
                each.sendall(self._request)
            for each in self._connections:
                answer = each.recv(65536)
                assert answer.startswith(b"HTTP/1.1 202"), answer


def cpu(pid: int) -> float:
    """The seconds of CPU that a process has used, with all its threads, to the microsecond."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(each.read_text().split()[0]) for each in tasks) / 1e9


if __name__ == "__main__":
    main()
