"""Google's in-memory Pub/Sub in a process of its own, and a front that answers REST in another one.

It runs the program in ``TEST_PUBSUB``, which ``.ci/run`` builds with Go. The service itself is not reached.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import time
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest

from tests.brokers import ServerProcess
from tests.servers import free_port

PROJECT = "openhqm-tests"
_epochs = count(1)


def find_pubsubd() -> Path:
    """Where the program is; `SkipTest` where there is none."""
    program = Path(os.environ.get("TEST_PUBSUB", "/var/tmp/openhqm-pubsub/pubsubd"))
    if program.exists():
        return program
    reason = f"there is no {program}: see .ci/run"
    if os.environ.get("CI") == "true":
        raise AssertionError(reason)
    raise SkipTest(reason)


class PubSubServer(ServerProcess):
    """``kill`` ends the front, and what was published stays; ``lose`` ends the store with it."""

    def __init__(self) -> None:
        self.program = find_pubsubd()
        self.port, self.store_port = free_port(), free_port()
        self.store: subprocess.Popen[bytes] | None = None
        self.epoch = ""

    @property
    def host(self) -> str:
        """For ``emulator_host``."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> PubSubServer:
        """Start what does not run, and come back once it answers."""
        if self.store is None or self.store.poll() is not None:
            self.store = self._run("store", f"127.0.0.1:{self.store_port}")
            self.epoch = f"{next(_epochs)}x"
        self.process = self._run("front", self.host, f"127.0.0.1:{self.store_port}", self.epoch)
        return self

    def _run(self, *arguments: str) -> subprocess.Popen[bytes]:
        deadline = time.monotonic() + 20
        while True:
            process = subprocess.Popen(
                [self.program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            assert process.stdout is not None
            if process.stdout.readline() == b"ready\n":
                return process
            assert time.monotonic() < deadline, process.communicate()
            time.sleep(0.05)  # the port is not free yet

    def lose(self) -> None:
        """End both: nothing is kept."""
        self.kill()
        assert self.store is not None
        self.store.kill()
        self.store.wait()

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
        for process in (self.process, self.store):
            if process is not None:
                process.kill()
                process.communicate()

    def ask(self, method: str, name: str, **document: Any) -> tuple[int, Any]:
        """Call it as an operator or another program does. The status and the document."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, f"/{name}", json.dumps(document) if document else None)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        return answer.status, json.loads(content or b"null")

    def topic(self, name: str) -> str:
        """The path of a topic."""
        return f"projects/{PROJECT}/topics/{name}"

    def subscription(self, name: str) -> str:
        """The path of a subscription."""
        return f"projects/{PROJECT}/subscriptions/{name}"

    def make(self, topic: str, *subscriptions: str, **settings: Any) -> None:
        """Make a topic, and subscriptions of it."""
        self.ask("PUT", f"v1/{self.topic(topic)}")
        for each in subscriptions:
            status, said = self.ask("PUT", f"v1/{self.subscription(each)}", topic=self.topic(topic), **settings)
            assert status == 200, said

    def delete(self, *names: str) -> None:
        """Delete topics and subscriptions of these names."""
        for name in names:
            for path in (self.subscription(name), self.topic(name)):
                with suppress(OSError):
                    self.ask("DELETE", f"v1/{path}")

    def faults(self, **faults: Any) -> None:
        """See pubsubd/main.go; nothing: there are none any more."""
        self.ask("POST", "faults", **(faults or {"tokens": []}))
