"""Several processes on one port, as an operator meets them: killed, rolled over, misconfigured, stopped."""

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
        """One that is up; ``text`` is its file, and ``before`` runs in each process first."""
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
        """Nothing is left of it, whatever became of the test."""
        if server.process is not None and server.process.poll() is None:
            children = server.children()
            server.kill()
            for child in children:
                if alive(child):
                    os.kill(child, signal.SIGKILL)


class Living(FleetCase):
    def test_killed(self) -> None:
        """A process that is killed is replaced, nothing is lost, and what it had counted stays counted."""
        server = self.fleet()
        self.assertEqual(len(server.children()), 2)
        ids = [server.submit(number) for number in range(40)]
        until(lambda: server.metric(ACCEPTED) == 40, "all of it is counted")
        victim, other = server.children()
        os.kill(victim, signal.SIGKILL)
        until(lambda: server.metric('openhqm_process_ends_total{reason="died"}') == 1, "its end is seen")
        self.assertEqual(server.metric(ACCEPTED), 40)
        server.ready(2)
        self.assertEqual(server.metric(ACCEPTED), 40)
        self.assertIn(other, server.children())
        self.assertNotIn(victim, server.children())
        ids += [server.submit(number) for number in range(40, 60)]
        until(lambda: server.metric(ACCEPTED) == 60, "and goes on being counted")
        for number, correlation_id in enumerate(ids):
            self.assertEqual(server.response(correlation_id)["result"], number)
        self.assertIn(f"process {victim} ended by signal 9", server.log())
        self.assertEqual(server.metric('openhqm_queue_depth{queue="openhqm-requests",state="ready"}'), 0)

    def parent_of(self, pid: int) -> int:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])

    def forked(self, server: FleetServer) -> int:
        """A process that a handler has forked, and that nobody but the test ends."""
        pid: int = server.response(server.submit(1))["result"]
        self.addCleanup(os.kill, pid, signal.SIGKILL)
        return pid

    def test_forked(self) -> None:
        """What a handler has forked lives on, and keeps neither a successor from coming nor the port from the next."""
        server = self.fleet(OPENHQM_WORKER__HANDLER="jobs:fork")
        pid = self.forked(server)
        victim = self.parent_of(pid)
        os.kill(victim, signal.SIGKILL)
        until(lambda: server.metric('openhqm_process_ends_total{reason="died"}') == 1, "its end is seen", 5)
        server.ready(2)
        self.assertIn(f"process {victim} ended by signal 9", server.log())
        children = server.children()
        server.kill()
        until(lambda: not any(alive(child) for child in children), "they are gone")
        self.assertTrue(alive(pid))
        server.start()

    def test_forked_behind_our_back(self) -> None:
        """Nor where it was a library in C that forked, of which Python knows nothing."""
        server = self.fleet(OPENHQM_WORKER__HANDLER="jobs:fork_unseen")
        pid = self.forked(server)
        victim = self.parent_of(pid)
        os.kill(victim, signal.SIGKILL)
        until(lambda: f"process {victim} ended by signal 9" in server.log(), "its end is seen", 5)
        server.ready(2)
        self.assertTrue(alive(pid))

    def test_stopped_in_its_tracks(self) -> None:
        """A process that says nothing is told of: live is 503 and says which, ready is not, and metrics come."""
        server = self.fleet()
        victim = server.children()[0]
        os.kill(victim, signal.SIGSTOP)
        self.addCleanup(os.kill, victim, signal.SIGCONT)

        def seen() -> bool:
            status, _, body = server.ask("GET", "/health/live")
            return status == 503 and f"process {victim}: it has said nothing".encode() in body

        until(seen, "its silence is noticed")
        self.assertEqual(server.ask("GET", "/health/ready")[0], 200)
        self.assertEqual(server.metric('openhqm_processes{state="silent"}'), 1)
        os.kill(victim, signal.SIGCONT)
        server.ready(2)

    def test_workers(self) -> None:
        """Processes that only work need no socket: what a listener took is done, and the port is nobody's."""
        workers = FleetServer(self.directory, self.backend, OPENHQM_WORKER__HANDLER="jobs:old")
        self.addCleanup(self.end, workers)
        with (self.directory / "log").open("wb") as log:
            workers.process = subprocess.Popen(
                workers.command("--role", "worker"), cwd=self.directory, env=workers.variables(), stdout=log, stderr=log
            )
        until(lambda: "2 processes are ready" in workers.log(), "they work")
        self.assertRaises(OSError, workers.ask, "GET", "/health")
        other = Path(tempfile.mkdtemp(prefix="openhqm-fleet-"))
        self.addCleanup(shutil.rmtree, other)
        listeners = FleetServer(other, self.backend)
        self.addCleanup(self.end, listeners)
        listeners.start("--role", "listener")
        self.assertEqual(listeners.response(listeners.submit(1))["result"], "old")

    def test_unix(self) -> None:
        """A socket in the file system stays as it was made while processes come and go, and goes with the parent."""
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
        until(lambda: "2 processes are ready" in server.log(), "it is up")
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
        """A socket that a service manager holds is handed on, too: started anew, it refuses nobody."""
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


class Rolling(FleetCase):
    def test_new_configuration(self) -> None:
        """SIGHUP brings all processes under the file as it is now; what was counted stays counted."""
        server = self.fleet(text="worker: {handler: 'jobs:old'}")
        before = set(server.children())
        self.assertEqual(server.response(server.submit(1))["result"], "old")
        self.write("worker: {handler: 'jobs:new'}")
        server.roll()
        self.assertEqual(before & set(server.children()), set())
        self.assertEqual(server.response(server.submit(1))["result"], "new")
        until(lambda: server.metric(ACCEPTED) == 2, "what was counted before is counted")
        self.assertEqual(server.metric('openhqm_process_ends_total{reason="told"}'), 2)

    def test_broken(self) -> None:
        """A file that cannot work is said to be so, key by key, and changes nothing, not even for who dies then."""
        server = self.fleet(text="worker: {handler: 'jobs:old'}")
        before = server.children()
        self.write("worker: {handler: 'jobs:new', count: many}\nsever: {}\nserver: {workers: 1}\n")
        server.hang_up()
        until(lambda: server.said("; nothing changes") == 2, server.log())
        self.assertIn("worker.count: must be a whole number", server.log())
        self.assertIn("sever: unknown key", server.log())
        self.assertEqual(server.children(), before)
        os.kill(before[0], signal.SIGKILL)
        until(lambda: before[0] not in server.children(), "it is dead")
        server.ready(2)
        self.assertEqual({server.response(server.submit(1))["result"] for _ in range(10)}, {"old"})

    def test_cannot_start(self) -> None:
        """Where the first new process does not come up, the old ones go on; mended, the next SIGHUP works."""
        server = self.fleet(text="worker: {handler: 'jobs:old'}")
        before = server.children()
        self.write("worker: {handler: 'jobs:missing'}")
        server.hang_up()
        until(lambda: "takes nobody's place: it ended with 1" in server.log(), server.log())
        self.assertIn("openhqm: worker.handler: jobs has no callable named missing", server.log())
        self.assertEqual(server.children(), before)
        self.write("worker: {handler: 'jobs:new'}")
        server.roll()
        self.assertEqual(server.response(server.submit(1))["result"], "new")

    def test_never_ready(self) -> None:
        """A new process that could keep no 202 gets no connection and no work, and takes nobody's place."""
        file = "queue: {connection: {redis: {url: '%s'}}}"
        url = self.backend.pop("OPENHQM_QUEUE__REDIS_URL")
        server = self.fleet(file % url, before="import openhqm.fleet.fleet; openhqm.fleet.fleet.START_SECONDS = 4")
        before = server.children()
        self.write(file % f"redis://127.0.0.1:{free_port()}")
        server.hang_up()
        statuses: set[int] = set()

        def given_up() -> bool:
            statuses.add(server.ask("POST", "/api/v1/submit", {"payload": 1})[0])
            return "did not become ready, and takes nobody's place" in server.log()

        until(given_up, "it is given up")
        self.assertEqual(statuses, {202})
        until(lambda: server.children() == before, "it is gone again")

    def test_asked_again(self) -> None:
        """SIGHUP while it rolls over: once more, with what the file says then."""
        server = self.fleet("worker: {handler: 'jobs:old'}")
        self.write("worker: {handler: 'jobs:new'}")
        server.hang_up()
        until(lambda: len(server.children()) == 3, "it has begun")
        self.write("worker: {handler: 'jobs:old'}")
        server.hang_up()
        until(lambda: server.said("rolled over") == 2, server.log(), 90)
        self.assertEqual(server.response(server.submit(1))["result"], "old")

    def test_what_is_bound_once(self) -> None:
        """Another place to listen on is refused by its key, and so is no parent; more processes, or fewer, are not."""
        file = "server: {{workers: {}, max_connections: {}}}"
        server = self.fleet(
            text=file.format(2, 1000), before="import os; os.environ.pop('OPENHQM_SERVER__WORKERS', None)"
        )
        self.write("server: {workers: 1, endpoints: ['tcp:9:interface=127.0.0.1']}")
        server.hang_up()
        until(lambda: server.said("; nothing changes") == 2, server.log())
        self.assertIn("server.endpoints: is bound once", server.log())
        self.assertIn("server.workers: 1 has no parent", server.log())
        for count in (3, 2):
            self.write(file.format(count, 1001))
            server.roll()
            server.ready(count)


class UnderLoad(SynchronousTestCase):
    def test_rounds(self) -> None:
        """Nobody is refused, nothing is lost and nothing dead-lettered, while all processes are replaced thrice."""
        find_redis()
        said: list[str] = []
        try:
            done = run(3, say=said.append)
        except Broken as broken:
            self.fail(f"{broken} {said}")
        self.assertEqual(done["accepted"], done["answered"])
        self.assertGreater(done["accepted"], 60)


class Stopping(FleetCase):
    def test_work_in_hand(self) -> None:
        """SIGTERM lets all finish what they have in hand, and ends with 0; nobody is left."""
        server = self.fleet(OPENHQM_WORKER__HANDLER="jobs:slow", OPENHQM_WORKER__EXECUTOR="thread")
        children = server.children()
        ids = [server.submit(number) for number in range(4)]
        depth = 'openhqm_queue_depth{queue="openhqm-requests",state="in_flight"}'
        until(lambda: server.metric(depth) == 4, "all are in hand")
        self.assertEqual(server.stop(), 0)
        self.assertEqual([child for child in children if alive(child)], [])
        listener = FleetServer(self.directory, self.backend)
        self.addCleanup(self.end, listener)
        listener.start("--role", "listener")
        self.assertEqual([listener.response(one, wait=0)["result"] for one in ids], ["done"] * 4)

    def test_whole_group(self) -> None:
        """Ctrl-C reaches everybody at once, and ends with 0 all the same."""
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
        until(lambda: "2 processes are ready" in server.log(), "it is up")
        os.killpg(server.pid, signal.SIGINT)
        self.assertEqual(server.process.wait(60), 0)
        self.assertNotIn("without having been told to", server.log())

    def test_twice(self) -> None:
        """Asked twice, it ends at once with 1, and nobody is left."""
        slow = {"OPENHQM_WORKER__HANDLER": "jobs:slow", "OPENHQM_WORKER__EXECUTOR": "thread"}
        server = self.fleet(**slow, OPENHQM_QUEUE__LEASE_SECONDS="1")
        children = server.children()
        correlation_id = server.submit(1)
        os.kill(server.pid, signal.SIGTERM)
        until(lambda: " Closed)" in server.log(), "it has begun to stop")
        self.assertEqual(server.stop(), 1)
        until(lambda: not any(alive(child) for child in children), "they are gone")
        server.start()
        self.assertEqual(server.response(correlation_id)["result"], "done")

    def test_parent_killed(self) -> None:
        """When the parent is killed its processes stop in order, and the port is free."""
        server = self.fleet()
        children = server.children()
        correlation_id = server.submit(1)
        server.kill()
        until(lambda: not any(alive(child) for child in children), "they are gone")
        self.assertEqual(server.said("openhqm has stopped"), 2)
        server.start()
        self.assertEqual(server.response(correlation_id)["result"], 1)


class Refusing(FleetCase):
    def refused(self, **environment: str) -> list[str]:
        """What it says before it ends with 1."""
        code, out, err = FleetServer(self.directory, self.backend, **environment).run()
        self.assertEqual(code, 1, out + err)
        self.assertNotIn("Traceback", out + err)
        return [line for line in err.splitlines() if line.startswith("openhqm: ")]

    def test_file_of_one_process(self) -> None:
        """What one process has for itself is refused by key, with the reason."""
        (line,) = self.refused(OPENHQM_QUEUE__TYPE="sqlite", OPENHQM_QUEUE__REDIS_URL="")
        self.assertIn(
            "server.workers: 2 processes need queue.type redis or rabbitmq: the file belongs to one process", line
        )

    def test_port(self) -> None:
        """A port that is taken is one line, and no process is started."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            (line,) = self.refused(OPENHQM_SERVER__PORT=str(taken.getsockname()[1]))
        self.assertIn("Address already in use", line)

    def test_handler(self) -> None:
        """What no process can do is said once, and ends the whole."""
        (line,) = self.refused(OPENHQM_WORKER__HANDLER="nowhere:handle")
        self.assertIn("worker.handler: cannot import nowhere", line)
