"""Real servers, on private ports and in private directories: started, killed, stopped in their tracks.

A binary that is missing is a skip with the reason; where ``CI`` is ``true`` it is a failure.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest

from tests.servers import free_port

PIPELINE = 100


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
        return say(self.port, *words)

    def command(self, *words: str | bytes) -> Any:
        """One command, and its whole answer."""
        (answer,) = self.commands([words])
        return answer

    def commands(self, many: Sequence[tuple[str | bytes, ...]]) -> Iterator[Any]:
        """Any number of commands over one connection, and the answer to each."""
        import hiredis

        reader = hiredis.Reader()
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            for first in range(0, len(many), PIPELINE):
                part = many[first : first + PIPELINE]
                connection.sendall(b"".join(hiredis.pack_command(words) for words in part))
                for _ in part:
                    while (answer := reader.gets()) is False:
                        reader.feed(connection.recv(1 << 20))
                    yield answer

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def restart(self, **settings: str) -> None:
        """Kill it, and start it with ``settings`` besides."""
        self.kill()
        self.settings |= settings
        self.start()

    def forget(self) -> None:
        """Throw its data away, while it is not running."""
        shutil.rmtree(self.directory / "appendonlydir")

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


def find_rabbitmq() -> str:
    """Where ``rabbitmq-server`` is; `SkipTest` where there is none."""
    for path in ("/usr/lib/rabbitmq/bin/rabbitmq-server", shutil.which("rabbitmq-server")):
        if path is not None and os.path.exists(path):
            return path
    reason = "rabbitmq-server is not installed: apt-get install rabbitmq-server"
    if os.environ.get("CI") == "true":
        raise AssertionError(reason)
    raise SkipTest(reason)


class RabbitMQServer:
    """A RabbitMQ of one node, with a name, a cookie, a port mapper and directories of its own.

    The data lie on the disk, or in memory where the machine has some for files: what is tested is not the disk.
    ``certificate`` and its key: it speaks TLS, too.
    """

    def __init__(self, certificate: Path | None = None, key: Path | None = None) -> None:
        self.binary = find_rabbitmq()
        shared = "/dev/shm"
        self.directory = Path(tempfile.mkdtemp(prefix="openhqm-rabbit-", dir=shared if os.path.isdir(shared) else None))
        self.port, self.epmd_port, distribution = free_port(), free_port(), free_port()
        (self.directory / "rabbitmq.conf").write_text(
            f"listeners.tcp.default = 127.0.0.1:{self.port}\nlog.file.level = warning\n"
            "loopback_users.guest = true\nvm_memory_high_watermark.relative = 0.4\ndisk_free_limit.absolute = 1MB\n"
        )
        self.tls_port = free_port()
        if certificate is not None:
            with (self.directory / "rabbitmq.conf").open("a") as file:
                file.write(
                    f"listeners.ssl.default = 127.0.0.1:{self.tls_port}\nssl_options.cacertfile = {certificate}\n"
                    f"ssl_options.certfile = {certificate}\nssl_options.keyfile = {key}\n"
                )
        # What it could not pass on while it started, it tries again after three minutes, unless told otherwise.
        (self.directory / "advanced.config").write_text(
            "[{rabbit, [{dead_letter_worker_publisher_confirm_timeout, 2000}]}].\n"
        )
        (self.directory / "enabled_plugins").write_text("[].\n")
        cookie = self.directory / ".erlang.cookie"
        cookie.write_text("OPENHQMTESTS")
        cookie.chmod(0o400)
        self.environment = {
            **os.environ,
            "HOME": str(self.directory),
            "ERL_EPMD_PORT": str(self.epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"openhqm{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_MNESIA_BASE": str(self.directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.directory / "log"),
            "RABBITMQ_CONFIG_FILE": str(self.directory / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.directory / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.directory / "enabled_plugins"),
            "RABBITMQ_CONF_ENV_FILE": str(self.directory / "none"),
            "RABBITMQ_PID_FILE": str(self.directory / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none",
        }
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """For ``queue.rabbitmq_url``."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/%2F"

    def start(self) -> RabbitMQServer:
        """Start it, and come back once it answers."""
        with (self.directory / "out").open("ab") as out:
            self.process = subprocess.Popen(
                [self.binary], env=self.environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )
        deadline = time.monotonic() + 60
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError((self.directory / "out").read_text())
            time.sleep(0.05)
        return self

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                connection.sendall(b"AMQP\0\0\x09\x01")
                return bool(connection.recv(1))
        except OSError:
            return False

    def control(self, *words: str) -> str:
        """What ``rabbitmqctl`` says to these words."""
        tool = shutil.which("rabbitmqctl", path=f"{os.path.dirname(self.binary)}:{os.environ.get('PATH', '')}")
        assert tool is not None
        done = subprocess.run(
            [tool, "-n", self.environment["RABBITMQ_NODENAME"], *words],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def run_out_of_memory(self) -> None:
        """Set the alarm: nobody who publishes is read from."""
        self.control("set_vm_memory_high_watermark", "absolute", "1MB")

    def have_memory_again(self) -> None:
        """Clear it."""
        self.control("set_vm_memory_high_watermark", "0.4")

    def run_out_of_disk(self) -> None:
        """The other alarm, which does the same."""
        self.control("set_disk_free_limit", "1000000GB")

    def have_disk_again(self) -> None:
        """Clear it."""
        self.control("set_disk_free_limit", "1MB")

    def know_its_queues(self) -> None:
        """Have it write down now which queues it has.

        3.10 leaves that for some seconds. Killed before, it is back with a queue that is empty and has no leader.
        """
        self.control("eval", "[dets:sync(Table) || Table <- dets:all()].")

    def kill(self) -> None:
        """kill -9, for all that belongs to it."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self._wait_until_gone()

    def lose_everything(self) -> None:
        """Kill it, and start it anew on an empty disk."""
        self.kill()
        shutil.rmtree(self.directory / "mnesia")
        self.start()

    def _wait_until_gone(self) -> None:
        """Until its port is free, and the port mapper knows nobody of its name."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                return
            time.sleep(0.01)

    def freeze(self) -> None:
        """SIGSTOP: connections stay, and nobody answers."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGCONT)

    def close(self) -> None:
        """Away with it, with its port mapper, and with its files."""
        self.kill()
        mark = f"ERL_EPMD_PORT={self.epmd_port}\0".encode()
        for entry in Path("/proc").iterdir():
            try:
                ours = entry.name.isdigit() and b"epmd" in (entry / "comm").read_bytes()
                if ours and mark in (entry / "environ").read_bytes() + b"\0":
                    os.kill(int(entry.name), signal.SIGKILL)
            except OSError:
                continue
        shutil.rmtree(self.directory, ignore_errors=True)


class Sentinel:
    """A real Sentinel that looks after ``master`` under the name ``one``, and fails over within a second or two."""

    def __init__(self, master: RedisServer) -> None:
        self.port = free_port()
        self._master = master
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """For ``queue.redis_url``."""
        return f"redis://127.0.0.1:{self.port}/0?sentinel=one"

    def start(self) -> Sentinel:
        """Start it; it answers soon."""
        config = self._master.directory / "sentinel.conf"
        config.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self._master.directory}\n"
            f"sentinel monitor one 127.0.0.1 {self._master.port} 1\n"
            "sentinel down-after-milliseconds one 500\nsentinel failover-timeout one 3000\n"
        )
        command = [self._master.binary, str(config), "--sentinel"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        return self

    def knows_a_replica(self) -> bool:
        """Whether there is anybody to fail over to."""
        try:
            return b"slaves=1" in say(self.port, "INFO", "sentinel")
        except OSError:
            return False

    def close(self) -> None:
        """Away with it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def say(port: int, *words: str) -> bytes:
    """One command as a person would type it, and the first bytes of the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        parts = [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
        connection.sendall(f"*{len(words)}\r\n{''.join(parts)}".encode())
        return connection.recv(65536)


_shared: list[RabbitMQServer] = []


def shared_rabbitmq() -> RabbitMQServer:
    """One for all tests of this run, which takes seconds to start: each has queues of its own in it."""
    if not _shared:
        _shared.append(RabbitMQServer().start())
        atexit.register(_shared[0].close)
    return _shared[0]
