"""Fleets of real processes: killed, replaced, misconfigured, stopped."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.brokers import RedisServer, find_redis
from tests.fleet.fleets import FleetServer, alive, backend_of, until
from tests.rolling import Broken, run
from tests.servers import free_port

ALONE = True
"""See `tests.splitting`: processes have seconds to become ready, each with two cores for itself."""
JOBS = """
def old(work):
    return "old"

def new(work):
    return "new"

def slow(work):
    import time
    time.sleep(1)
    return "done"

def fork(work):
    import os
    return outlive(os.fork())

def fork_unseen(work):
    import ctypes
    return outlive(ctypes.PyDLL(None).fork())

def outlive(pid):
    import signal
    while not pid:  # the new process stays until it is killed
        signal.pause()
    return pid
"""
# What systemd does for a process: the socket is its file descriptor 3, and the environment says so.
AS_SYSTEMD = """
import os
if "HELD" in os.environ:
    os.dup2(int(os.environ.pop("HELD")), 3)
    os.environ.update(LISTEN_FDS="1", LISTEN_FDNAMES="unknown", LISTEN_PID=str(os.getpid()))
"""
ACCEPTED = 'openhqm_submissions_total{outcome="accepted"}'


class FleetCase(SynchronousTestCase):
    def setUp(self) -> None:
        redis = RedisServer(appendonly="no")
        self.addCleanup(redis.close)
        self.backend = backend_of(redis.start())
        self.directory = Path(tempfile.mkdtemp(prefix="openhqm-fleet-"))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        (self.directory / "jobs.py").write_text(JOBS)

    def fleet(self, text: str | None = None, before: str = "", **environment: str) -> FleetServer:
        """A fleet that is ready. ``text`` is its configuration file; ``before`` is Python that each process runs first.

        It is killed after the test.
        """
        server = FleetServer(self.directory, self.backend, before, **environment)
        self.addCleanup(self.end, server)
        if text is None:
            server.start()
        else:
            self.write(text)
            server.start("--config", str(self.directory / "cfg.yaml"))
        return server

    def write(self, text: str) -> None:
        (self.directory / "cfg.yaml").write_text(text)

    def end(self, server: FleetServer) -> None:
        """Kill all its processes."""
        if server.process is not None and server.process.poll() is None:
            children = server.children()
            server.kill()
            for child in children:
                if alive(child):
                    os.kill(child, signal.SIGKILL)


class RunningTests(FleetCase):
    def test_killed(self) -> None:
        """A killed process is replaced, no request is lost, and its counters stay in the sum."""
        server = self.fleet()
        self.assertEqual(len(server.children()), 2)
        ids = [server.submit(number) for number in range(40)]
        until(lambda: server.metric(ACCEPTED) == 40, "all 40 are counted")
        victim, other = server.children()
        os.kill(victim, signal.SIGKILL)
        until(lambda: server.metric('openhqm_process_ends_total{reason="died"}') == 1, "its end is counted")
        self.assertEqual(server.metric(ACCEPTED), 40)
        server.ready(2)
        self.assertEqual(server.metric(ACCEPTED), 40)
        self.assertIn(other, server.children())
        self.assertNotIn(victim, server.children())
        ids += [server.submit(number) for number in range(40, 60)]
        until(lambda: server.metric(ACCEPTED) == 60, "all 60 are counted")
        for number, correlation_id in enumerate(ids):
            self.assertEqual(server.response(correlation_id)["result"], number)
        self.assertIn(f"process {victim} ended unexpectedly, by signal 9", server.log())
        self.assertEqual(server.metric('openhqm_queue_depth{queue="openhqm-requests",state="ready"}'), 0)

    def parent_of(self, pid: int) -> int:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])

    def forked(self, server: FleetServer) -> int:
        """A process that a handler has forked, which only the test ends."""
        pid: int = server.response(server.submit(1))["result"]
        self.addCleanup(os.kill, pid, signal.SIGKILL)
        return pid

    def test_forked(self) -> None:
        """A process that a handler has forked lives on.

        It holds up neither the replacement nor the port of the next parent.
        """
        server = self.fleet(OPENHQM_WORKER__HANDLER="jobs:fork")
        pid = self.forked(server)
        victim = self.parent_of(pid)
        os.kill(victim, signal.SIGKILL)
        until(lambda: server.metric('openhqm_process_ends_total{reason="died"}') == 1, "its end is counted", 5)
        server.ready(2)
        self.assertIn(f"process {victim} ended unexpectedly, by signal 9", server.log())
        children = server.children()
        server.kill()
        until(lambda: not any(alive(child) for child in children), "all processes have ended")
        self.assertTrue(alive(pid))
        server.start()

    def test_forked_by_a_library(self) -> None:
        """The same where a C library forks, unknown to Python."""
        server = self.fleet(OPENHQM_WORKER__HANDLER="jobs:fork_unseen")
        pid = self.forked(server)
        victim = self.parent_of(pid)
        os.kill(victim, signal.SIGKILL)
        until(lambda: f"process {victim} ended unexpectedly, by signal 9" in server.log(), "its end is counted", 5)
        server.ready(2)
        self.assertTrue(alive(pid))

    def test_stopped_in_its_tracks(self) -> None:
        """A process that does not report: live is 503 and names it, ready is 200, and metrics are served."""
        server = self.fleet()
        victim = server.children()[0]
        os.kill(victim, signal.SIGSTOP)
        self.addCleanup(os.kill, victim, signal.SIGCONT)

        def seen() -> bool:
            status, _, body = server.ask("GET", "/health/live")
            return status == 503 and f"process {victim}: the process has not reported".encode() in body

        until(seen, "the silent process is reported")
        self.assertEqual(server.ask("GET", "/health/ready")[0], 200)
        self.assertEqual(server.metric('openhqm_processes{state="silent"}'), 1)
        os.kill(victim, signal.SIGCONT)
        server.ready(2)

    def test_workers(self) -> None:
        """Workers need no socket: they do what a listener has accepted, and the port is free."""
        workers = FleetServer(self.directory, self.backend, OPENHQM_WORKER__HANDLER="jobs:old")
        self.addCleanup(self.end, workers)
        with (self.directory / "log").open("wb") as log:
            workers.process = subprocess.Popen(
                workers.command("--role", "worker"), cwd=self.directory, env=workers.variables(), stdout=log, stderr=log
            )
        until(lambda: "2 processes are ready" in workers.log(), "the workers are ready")
        self.assertRaises(OSError, workers.ask, "GET", "/health")
        other = Path(tempfile.mkdtemp(prefix="openhqm-fleet-"))
        self.addCleanup(shutil.rmtree, other)
        listeners = FleetServer(other, self.backend)
        self.addCleanup(self.end, listeners)
        listeners.start("--role", "listener")
        self.assertEqual(listeners.response(listeners.submit(1))["result"], "old")

    def test_unix(self) -> None:
        """A Unix socket stays as it was made while processes are replaced, and goes with the parent."""
        path = self.directory / "door"
        server = FleetServer(
            self.directory,
            self.backend,
            OPENHQM_SERVER__ENDPOINTS=f'["unix:{path}:mode=600","tcp:0:interface=127.0.0.1"]',
        )
        self.addCleanup(self.end, server)
        with (self.directory / "log").open("wb") as log:
            server.process = subprocess.Popen(
                server.command(), cwd=self.directory, env=server.variables(), stdout=log, stderr=log
            )
        until(lambda: "2 processes are ready" in server.log(), "the fleet is ready")
        for _ in range(2):
            self.assertEqual(path.stat().st_mode & 0o777, 0o600)
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(20)
                connection.connect(str(path))
                connection.sendall(b"GET /health/ready HTTP/1.1\r\nHost: x\r\n\r\n")
                self.assertTrue(connection.recv(4096).startswith(b"HTTP/1.1 200 "))
            server.roll()
        self.assertEqual(server.stop(), 0)
        self.assertFalse(path.exists())

    def test_systemd(self) -> None:
        """A socket of the service manager is passed on: no connection is refused across a restart."""
        where = {"OPENHQM_SERVER__ENDPOINTS": '["systemd:domain=INET:index=0"]', "OPENHQM_AUTH__TYPE": "none"}
        server = FleetServer(self.directory, self.backend, AS_SYSTEMD, **where)
        self.addCleanup(self.end, server)
        with socket.create_server(("127.0.0.1", server.port)) as manager:
            server.environment["HELD"] = str(manager.fileno())
            for number in range(2):
                with socket.create_connection(("127.0.0.1", server.port)) as early:
                    early.settimeout(60)
                    early.sendall(b"GET /health/ready HTTP/1.1\r\nHost: x\r\n\r\n")
                    with (self.directory / "log").open("ab") as log:
                        server.process = subprocess.Popen(
                            server.command(),
                            cwd=self.directory,
                            env=server.variables(),
                            stdout=log,
                            stderr=log,
                            pass_fds=[manager.fileno()],
                        )
                    self.assertTrue(early.recv(4096).startswith(b"HTTP/1.1 200 "))
                until(lambda expected=number + 1: server.said("processes are ready") == expected, server.log())
                self.assertEqual(server.stop(), 0)


class RollingTests(FleetCase):
    def test_new_configuration(self) -> None:
        """SIGHUP replaces all processes by ones with the new configuration; their counters stay in the sum."""
        server = self.fleet(text="worker: {handler: 'jobs:old'}")
        before = set(server.children())
        self.assertEqual(server.response(server.submit(1))["result"], "old")
        self.write("worker: {handler: 'jobs:new'}")
        server.roll()
        self.assertEqual(before & set(server.children()), set())
        self.assertEqual(server.response(server.submit(1))["result"], "new")
        until(lambda: server.metric(ACCEPTED) == 2, "the counter of the old processes is kept")
        self.assertEqual(server.metric('openhqm_process_ends_total{reason="told"}'), 2)

    def test_broken(self) -> None:
        """A configuration with errors is logged key by key, and the old one stays, also for replacements of dead
        processes."""
        server = self.fleet(text="worker: {handler: 'jobs:old'}")
        before = server.children()
        self.write("worker: {handler: 'jobs:new', count: many}\nsever: {}\nserver: {workers: 1}\n")
        server.hang_up()
        until(lambda: server.said("; the processes keep their configuration") == 2, server.log())
        self.assertIn("worker.count: must be a whole number", server.log())
        self.assertIn("sever: unknown key", server.log())
        self.assertEqual(server.children(), before)
        os.kill(before[0], signal.SIGKILL)
        until(lambda: before[0] not in server.children(), "the killed process is gone")
        server.ready(2)
        self.assertEqual({server.response(server.submit(1))["result"] for _ in range(10)}, {"old"})

    def test_cannot_start(self) -> None:
        """Where the first new process does not start, the old ones stay. After the fix the next SIGHUP works."""
        server = self.fleet(text="worker: {handler: 'jobs:old'}")
        before = server.children()
        self.write("worker: {handler: 'jobs:missing'}")
        server.hang_up()
        until(lambda: "replaces no other: it ended with 1" in server.log(), server.log())
        self.assertIn("openhqm: worker.handler: jobs has no callable named missing", server.log())
        self.assertEqual(server.children(), before)
        self.write("worker: {handler: 'jobs:new'}")
        server.roll()
        self.assertEqual(server.response(server.submit(1))["result"], "new")

    def test_never_ready(self) -> None:
        """A new process that is not ready gets no connection and no request, and replaces no other."""
        file = "queue: {connection: {redis: {url: '%s'}}}\nworker: {handler: echo}"
        url = self.backend.pop("OPENHQM_QUEUE__REDIS_URL")
        server = self.fleet(file % url, before="import openhqm.fleet.fleet; openhqm.fleet.fleet.START_SECONDS = 4")
        before = server.children()
        self.write(file % f"redis://127.0.0.1:{free_port()}")
        server.hang_up()
        statuses: set[int] = set()

        def given_up() -> bool:
            statuses.add(server.ask("POST", "/api/v1/submit", {"payload": 1})[0])
            return "did not become ready, and replaces no other" in server.log()

        until(given_up, "the new process is given up")
        self.assertEqual(statuses, {202})
        until(lambda: server.children() == before, "the new process is gone")

    def test_rolled_while_rolling(self) -> None:
        """A SIGHUP while processes are replaced has them replaced once more, with the configuration of that time."""
        server = self.fleet("worker: {handler: 'jobs:old'}")
        self.write("worker: {handler: 'jobs:new'}")
        server.hang_up()
        until(lambda: len(server.children()) == 3, "a new process has started")
        self.write("worker: {handler: 'jobs:old'}")
        server.hang_up()
        until(lambda: server.said("rolled over") == 2, server.log(), 90)
        self.assertEqual(server.response(server.submit(1))["result"], "old")

    def test_keys_that_need_a_restart(self) -> None:
        """Other sockets and one process without a parent are refused by key; more or fewer processes are not."""
        file = "server: {{workers: {}, max_connections: {}}}\nworker: {{handler: echo}}"
        server = self.fleet(
            text=file.format(2, 1000), before="import os; os.environ.pop('OPENHQM_SERVER__WORKERS', None)"
        )
        self.write("server: {workers: 1, host: 127.0.0.2}\nworker: {handler: echo}")
        server.hang_up()
        until(lambda: server.said("; the processes keep their configuration") == 2, server.log())
        self.assertIn("server.host: cannot change at SIGHUP", server.log())
        self.assertIn("server.workers: cannot change to 1 at SIGHUP", server.log())
        for count in (3, 2):
            self.write(file.format(count, 1001))
            server.roll()
            server.ready(count)


class LoadTests(SynchronousTestCase):
    def test_rounds(self) -> None:
        """While all processes are replaced three times, no connection is refused, no request lost and none
        dead-lettered."""
        find_redis()
        said: list[str] = []
        try:
            done = run(3, say=said.append)
        except Broken as broken:
            self.fail(f"{broken} {said}")
        self.assertEqual(done["accepted"], done["answered"])
        self.assertGreater(done["accepted"], 60)


class StoppingTests(FleetCase):
    def test_work_in_progress(self) -> None:
        """At SIGTERM all processes finish their attempts and end with 0."""
        server = self.fleet(OPENHQM_WORKER__HANDLER="jobs:slow", OPENHQM_WORKER__EXECUTOR="thread")
        children = server.children()
        ids = [server.submit(number) for number in range(4)]
        depth = 'openhqm_queue_depth{queue="openhqm-requests",state="in_flight"}'
        until(lambda: server.metric(depth) == 4, "all requests are in flight")
        self.assertEqual(server.stop(), 0)
        self.assertEqual([child for child in children if alive(child)], [])
        listener = FleetServer(self.directory, self.backend)
        self.addCleanup(self.end, listener)
        listener.start("--role", "listener")
        self.assertEqual([listener.response(one, wait=0)["result"] for one in ids], ["done"] * 4)

    def test_process_group(self) -> None:
        """Ctrl-C, which all processes get at once, ends with 0."""
        server = FleetServer(self.directory, self.backend)
        self.addCleanup(self.end, server)
        with (self.directory / "log").open("wb") as log:
            server.process = subprocess.Popen(
                server.command(),
                cwd=self.directory,
                env=server.variables(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until(lambda: "2 processes are ready" in server.log(), "the fleet is ready")
        os.killpg(server.pid, signal.SIGINT)
        self.assertEqual(server.process.wait(60), 0)
        self.assertNotIn("ended unexpectedly", server.log())

    def test_twice(self) -> None:
        """A second SIGTERM ends everything at once with 1."""
        slow = {"OPENHQM_WORKER__HANDLER": "jobs:slow", "OPENHQM_WORKER__EXECUTOR": "thread"}
        server = self.fleet(**slow, OPENHQM_QUEUE__LEASE_SECONDS="1")
        children = server.children()
        correlation_id = server.submit(1)
        os.kill(server.pid, signal.SIGTERM)
        until(lambda: " Closed)" in server.log(), "the port is closed")
        self.assertEqual(server.stop(), 1)
        until(lambda: not any(alive(child) for child in children), "all processes have ended")
        server.start()
        self.assertEqual(server.response(correlation_id)["result"], "done")

    def test_parent_killed(self) -> None:
        """When the parent is killed, its processes stop in order, and the port is free."""
        server = self.fleet()
        children = server.children()
        correlation_id = server.submit(1)
        server.kill()
        until(lambda: not any(alive(child) for child in children), "all processes have ended")
        self.assertEqual(server.said("openhqm has stopped"), 2)
        server.start()
        self.assertEqual(server.response(correlation_id)["result"], 1)


class RefusalTests(FleetCase):
    def refused(self, **environment: str) -> list[str]:
        """The lines of a fleet that ends with 1."""
        code, out, err = FleetServer(self.directory, self.backend, **environment).run()
        self.assertEqual(code, 1, out + err)
        self.assertNotIn("Traceback", out + err)
        return [line for line in err.splitlines() if line.startswith("openhqm: ")]

    def test_sqlite(self) -> None:
        """Several processes on SQLite are refused by key, with the reason."""
        (line,) = self.refused(OPENHQM_QUEUE__TYPE="sqlite", OPENHQM_QUEUE__REDIS_URL="")
        shared = "redis or rabbitmq or mqtt or kafka or azure_eventhubs or gcp_pubsub or sqs or custom"
        self.assertIn(f"server.workers: 2 processes need queue.type {shared}: sqlite", line)

    def test_port(self) -> None:
        """A port that is taken is one line, and no process is started."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            (line,) = self.refused(OPENHQM_SERVER__PORT=str(taken.getsockname()[1]))
        self.assertIn("Address already in use", line)

    def test_handler(self) -> None:
        """An error that keeps every process from starting is logged once, and the service ends."""
        (line,) = self.refused(OPENHQM_WORKER__HANDLER="nowhere:handle")
        self.assertIn("worker.handler: cannot import nowhere", line)
