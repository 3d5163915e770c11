"""A real ``redis-server``, on private ports and in a private directory: started, killed, stopped in its tracks.

A binary that is missing is a skip with the reason; where ``CI`` is ``true`` it is a failure.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest

from tests.servers import free_port


def find_redis() -> str:
    """Where ``redis-server`` is; `SkipTest` where there is none."""
    found = shutil.which("redis-server")
    if found is None:
        reason = "redis-server is not installed: apt-get install redis-server"
        if os.environ.get("CI") == "true":
            raise AssertionError(reason)
        raise SkipTest(reason)
    return found


class RedisServer:
    """A Redis whose append-only file is synced before each answer, unless ``settings`` say otherwise."""

    def __init__(self, **settings: str) -> None:
        self.binary = find_redis()
        shared = "/dev/shm"
        self.directory = Path(tempfile.mkdtemp(prefix="openhqm-redis-", dir=shared if os.path.isdir(shared) else None))
        self.port = free_port()
        self.settings = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "unixsocket": str(self.socket),
            "dir": str(self.directory),
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
            "logfile": str(self.directory / "log"),
            "shutdown-timeout": "0",
            **settings,
        }
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        """The socket in the file system."""
        return self.directory / "redis.sock"

    @property
    def url(self) -> str:
        """For ``queue.redis_url``."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> RedisServer:
        """Start it, and come back once it answers."""
        arguments = [word for name, value in self.settings.items() for word in (f"--{name}", value)]
        self.process = subprocess.Popen([self.binary, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 30
        while True:
            try:
                # NOAUTH is an answer, too; LOADING is none.
                if self.say("PING").startswith((b"+PONG", b"-NOAUTH")):
                    return self
            except OSError:
                pass  # not yet: asked again below
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError((self.directory / "log").read_text())
            time.sleep(0.01)

    def say(self, *words: str) -> bytes:
        """One command as a person would type it, and the first bytes of the answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            parts = [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
            connection.sendall(f"*{len(words)}\r\n{''.join(parts)}".encode())
            return connection.recv(65536)

    def command(self, *words: str | bytes) -> Any:
        """One command, and its whole answer."""
        import hiredis

        reader = hiredis.Reader()
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(hiredis.pack_command(words))
            while (answer := reader.gets()) is False:
                reader.feed(connection.recv(1 << 20))
        return answer

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def freeze(self) -> None:
        """SIGSTOP: connections stay, and nobody answers."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Away with it, and with its files."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)
