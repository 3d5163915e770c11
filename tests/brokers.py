"""Real Redis, RabbitMQ and Mosquitto servers on ports and in directories of their own.

Where a server is not installed its tests are skipped with the reason. Where ``CI`` is ``true`` they fail.
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
    """The path of ``redis-server``; `SkipTest` where it is not installed."""
    found = shutil.which("redis-server")
    if found is None:
        reason = "redis-server is not installed: apt-get install redis-server"
        if os.environ.get("CI") == "true":
            raise AssertionError(reason)
        raise SkipTest(reason)
    return found


class ServerProcess:
    """A server of one process, with a directory of its own for its data."""

    directory: Path
    process: subprocess.Popen[bytes] | None = None

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send it a signal that ends it, and come back once it has ended."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait()

    def freeze(self) -> None:
        """Send SIGSTOP: connections stay open, and none is answered."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Send SIGCONT."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Kill it, and delete its files."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


class RedisServer(ServerProcess):
    """A Redis that syncs its append-only file before each answer, unless ``settings`` say otherwise."""

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

    @property
    def socket(self) -> Path:
        """The path of its Unix socket."""
        return self.directory / "redis.sock"

    @property
    def url(self) -> str:
        """For ``queue.redis_url``."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> RedisServer:
        """Start it, and come back once it answers."""
        arguments = [part for name, value in self.settings.items() for part in (f"--{name}", value)]
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

    def say(self, *arguments: str) -> bytes:
        """Send one command, and return the first bytes of the answer."""
        return say(self.port, *arguments)

    def command(self, *arguments: str | bytes) -> Any:
        """Send one command, and return its whole answer."""
        (answer,) = self.commands([arguments])
        return answer

    def commands(self, many: Sequence[tuple[str | bytes, ...]]) -> Iterator[Any]:
        """Send commands over one connection, and return the answer to each."""
        import hiredis

        reader = hiredis.Reader()
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            for first in range(0, len(many), PIPELINE):
                part = many[first : first + PIPELINE]
                connection.sendall(b"".join(hiredis.pack_command(command) for command in part))
                for _ in part:
                    while (answer := reader.gets()) is False:
                        reader.feed(connection.recv(1 << 20))
                    yield answer

    def restart(self, **settings: str) -> None:
        """Kill it, and start it with ``settings`` in addition."""
        self.kill()
        self.settings |= settings
        self.start()

    def forget(self) -> None:
        """Delete its data while it is not running."""
        shutil.rmtree(self.directory / "appendonlydir")


def find_rabbitmq(root: Path | None = None) -> str:
    """Where ``rabbitmq-server`` is, under ``root`` if there is one; `SkipTest` where there is none."""
    if root is not None:
        return "/usr/lib/rabbitmq/bin/rabbitmq-server"
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
    ``certificate`` and its key: it speaks TLS, too. ``root`` is a directory that ``mmdebstrap`` has made: the server in
    there is started, which takes root's rights::

        mmdebstrap --variant=minbase --include=rabbitmq-server trixie DIRECTORY
    """

    def __init__(self, certificate: Path | None = None, key: Path | None = None, root: Path | None = None) -> None:
        self.binary = find_rabbitmq(root)
        self.root = root
        shared = "/dev/shm" if root is None else str(root / "tmp")
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
        if root is not None:
            inside = f"/{self.directory.relative_to(root)}"
            found = {name: text.replace(str(self.directory), inside) for name, text in self.environment.items()}
            self.environment = {**found, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """For ``queue.rabbitmq_url``."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/%2F"

    def start(self) -> RabbitMQServer:
        """Start it, and come back once it answers."""
        with (self.directory / "out").open("ab") as out:
            self.process = subprocess.Popen(
                self._inside(self.binary),
                env=self.environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + 60
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError((self.directory / "out").read_text())
            time.sleep(0.05)
        return self

    def _inside(self, *command: str) -> list[str]:
        """The command as it is run under the root: with its /proc, and with a host name that is known there."""
        if self.root is None:
            return list(command)
        enter = 'mount --bind /proc "$0/proc" && hostname localhost && exec chroot "$0" "$@"'
        return ["unshare", "--mount", "--uts", "sh", "-c", enter, str(self.root), *command]

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                connection.sendall(b"AMQP\0\0\x09\x01")
                return bool(connection.recv(1))
        except OSError:
            return False

    def control(self, *words: str) -> str:
        """What ``rabbitmqctl`` says to these words."""
        tool: str | None = f"{os.path.dirname(self.binary)}/rabbitmqctl"
        if self.root is None:
            tool = shutil.which("rabbitmqctl", path=f"{os.path.dirname(self.binary)}:{os.environ.get('PATH', '')}")
        assert tool is not None
        done = subprocess.run(
            self._inside(tool, "-n", self.environment["RABBITMQ_NODENAME"], *words),
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def run_out_of_memory(self) -> None:
        """Raise the memory alarm: RabbitMQ stops reading from publishers."""
        self.control("set_vm_memory_high_watermark", "absolute", "1MB")

    def have_memory_again(self) -> None:
        """Clear the alarm."""
        self.control("set_vm_memory_high_watermark", "0.4")

    def run_out_of_disk(self) -> None:
        """Raise the disk alarm, which does the same."""
        self.control("set_disk_free_limit", "1000000GB")

    def have_disk_again(self) -> None:
        """Clear the alarm."""
        self.control("set_disk_free_limit", "1MB")

    def know_its_queues(self) -> None:
        """Make it write down now which queues it has.

        3.10 does that some seconds later. Killed before, it comes back with an empty queue that has no leader.
        """
        self.control("eval", "[dets:sync(Table) || Table <- dets:all()].")

    def kill(self) -> None:
        """Send SIGKILL to all its processes."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self._wait_until_gone()

    def lose_everything(self) -> None:
        """Kill it, and start it again on an empty disk."""
        self.kill()
        shutil.rmtree(self.directory / "mnesia")
        self.start()

    def _wait_until_gone(self) -> None:
        """Wait until its port is free."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                return
            time.sleep(0.01)

    def freeze(self) -> None:
        """Send SIGSTOP: connections stay open, and none is answered."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Send SIGCONT."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGCONT)

    def close(self) -> None:
        """Kill it and its port mapper, and delete its files."""
        self.kill()
        variable = f"ERL_EPMD_PORT={self.epmd_port}\0".encode()
        for entry in Path("/proc").iterdir():
            try:
                ours = entry.name.isdigit() and b"epmd" in (entry / "comm").read_bytes()
                if ours and variable in (entry / "environ").read_bytes() + b"\0":
                    os.kill(int(entry.name), signal.SIGKILL)
            except OSError:
                continue
        shutil.rmtree(self.directory, ignore_errors=True)


class Sentinel:
    """A real Sentinel that monitors ``master`` under the name ``one``, and fails over within one or two seconds."""

    def __init__(self, master: RedisServer) -> None:
        self.port = free_port()
        self._master = master
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """For ``queue.redis_url``."""
        return f"redis://127.0.0.1:{self.port}/0?sentinel=one"

    def start(self) -> Sentinel:
        """Start it. It answers soon after."""
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
        """Whether there is a replica to fail over to."""
        try:
            return b"slaves=1" in say(self.port, "INFO", "sentinel")
        except OSError:
            return False

    def close(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def say(port: int, *arguments: str) -> bytes:
    """Send one command, and return the first bytes of the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        parts = [f"${len(part.encode())}\r\n{part}\r\n" for part in arguments]
        connection.sendall(f"*{len(arguments)}\r\n{''.join(parts)}".encode())
        return connection.recv(65536)


_shared: dict[Path | None, RabbitMQServer] = {}


def shared_rabbitmq(root: Path | None = None) -> RabbitMQServer:
    """One for all tests of this run, which takes seconds to start: each has queues of its own in it."""
    if root not in _shared:
        _shared[root] = RabbitMQServer(root=root).start()
        atexit.register(_shared[root].close)
    return _shared[root]


def find_mosquitto() -> str:
    """Where ``mosquitto`` is; `SkipTest` where there is none."""
    for path in (shutil.which("mosquitto"), "/usr/sbin/mosquitto"):
        if path is not None and os.path.exists(path):
            return path
    reason = "mosquitto is not installed: apt-get install mosquitto"
    if os.environ.get("CI") == "true":
        raise AssertionError(reason)
    raise SkipTest(reason)


class Mosquitto(ServerProcess):
    """A Mosquitto that writes down what it keeps after every change, unless ``settings`` say otherwise.

    ``extra`` are lines for its configuration in addition: another listener, say.
    """

    def __init__(self, *extra: str, **settings: str) -> None:
        self.binary = find_mosquitto()
        shared = "/dev/shm"
        self.directory = Path(
            tempfile.mkdtemp(prefix="openhqm-mosquitto-", dir=shared if os.path.isdir(shared) else None)
        )
        self.port = free_port()
        self.settings = {
            "allow_anonymous": "true",
            "persistence": "true",
            "persistence_location": f"{self.directory}/",
            "autosave_on_changes": "true",
            "autosave_interval": "1",
            "max_inflight_messages": "0",
            "set_tcp_nodelay": "true",
            "max_queued_messages": "2000",
            "log_dest": f"file {self.directory}/log",
            **settings,
        }
        self.extra = extra

    def start(self) -> Mosquitto:
        """Start it, and come back once it answers."""
        lines = [f"listener {self.port} 127.0.0.1", *(f"{name} {value}" for name, value in self.settings.items())]
        config = self.directory / "conf"
        # Started by root it would become another user, who may not write here.
        config.write_text("\n".join(["user root", *lines, *self.extra, ""]))
        with (self.directory / "out").open("ab") as out:
            self.process = subprocess.Popen([self.binary, "-c", str(config)], stdout=out, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 30
        more = [int(line.split()[1]) for line in self.extra if line.startswith("listener ")]
        while True:
            try:
                for port in (self.port, *more):
                    socket.create_connection(("127.0.0.1", port), timeout=5).close()
                return self
            except OSError:
                pass  # not yet: asked again below
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError((self.directory / "out").read_text())
            time.sleep(0.01)

    def save(self) -> None:
        """Let it write down what it has, and come back once it has done that (mosquitto(8), SIGUSR1)."""
        assert self.process is not None
        database = self.directory / "mosquitto.db"
        database.unlink(missing_ok=True)
        self.process.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + 10
        while not database.exists():
            assert time.monotonic() < deadline, "it did not save"
            time.sleep(0.01)

    def lose_everything(self) -> None:
        """Kill it, and start it again on an empty disk."""
        self.kill()
        (self.directory / "mosquitto.db").unlink(missing_ok=True)
        self.start()


_mosquittos: list[Mosquitto] = []


def shared_mosquitto() -> Mosquitto:
    """One for all tests of this run: each has topics of its own in it."""
    if not _mosquittos:
        _mosquittos.append(Mosquitto().start())
        atexit.register(_mosquittos[0].close)
    return _mosquittos[0]
