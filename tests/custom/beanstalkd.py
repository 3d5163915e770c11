"""A real beanstalkd on a port and in a directory of its own, and the adapter of the example."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest

from tests.brokers import ServerProcess
from tests.servers import ROOT, free_port

EXAMPLE = ROOT / "examples" / "beanstalkd"


def find_beanstalkd() -> str:
    """The path of ``beanstalkd``; `SkipTest` where it is not installed."""
    found = shutil.which("beanstalkd", path=f"{os.environ.get('PATH', '')}:/usr/bin")
    if found is None:
        reason = "beanstalkd is not installed: apt-get install beanstalkd"
        if os.environ.get("CI") == "true":
            raise AssertionError(reason)
        raise SkipTest(reason)
    return found


def example() -> Any:
    """The module of the example."""
    if str(EXAMPLE) not in sys.path:
        sys.path.insert(0, str(EXAMPLE))
    import beanstalkd  # type: ignore[import-not-found]

    return beanstalkd


class BeanstalkdServer(ServerProcess):
    """A beanstalkd that syncs each job before it answers."""

    def __init__(self) -> None:
        self.binary = find_beanstalkd()
        shared = "/dev/shm"
        self.directory = Path(
            tempfile.mkdtemp(prefix="openhqm-beanstalkd-", dir=shared if os.path.isdir(shared) else None)
        )
        self.port = free_port()

    def start(self) -> BeanstalkdServer:
        """Start it, and come back once it listens."""
        command = [self.binary, "-l", "127.0.0.1", "-p", str(self.port), "-b", str(self.directory), "-f", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
                return self
            except OSError:
                pass  # not yet: asked again below
            assert self.process.poll() is None and time.monotonic() < deadline, "beanstalkd did not start"
            time.sleep(0.01)

    def say(self, *commands: bytes) -> bytes:
        """The answers to commands, as another program gives them: each on a line of its own, data included."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(b"".join(command + b"\r\n" for command in (*commands, b"quit")))
            answers = b""
            while more := connection.recv(65536):
                answers += more
        return answers
