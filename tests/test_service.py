"""The whole process: started, misconfigured, stopped, started again, and started twice on one file."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from openhqm import __version__
from tests.servers import ROOT, Server
from tests.small_disk import small_disk

JOBS = """
import os

def handle(work):
    if work.payload == "die":
        os._exit(7)
    return {"seen": work.payload, "attempt": work.attempt}

def blocking(work):
    import threading, time
    time.sleep(0.2)
    work.progress(thread=threading.current_thread() is not threading.main_thread())
    return "done"
"""


class ProcessCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="openhqm-service-"))
        self.addCleanup(shutil.rmtree, self.directory)
        (self.directory / "jobs.py").write_text(JOBS)

    def server(self, before: str = "", **environment: str) -> Server:
        server = Server(self.directory, before, **environment)
        self.addCleanup(lambda: server.process and server.process.poll() is None and server.kill())
        return server

    def config(self, text: str) -> str:
        path = self.directory / "cfg.yaml"
        path.write_text(text)
        return str(path)


class StartingTests(ProcessCase):
    def test_command_line(self) -> None:
        """The version is ours; what is no option is refused, with the key that was meant where there is one."""
        self.assertEqual(self.server().run("--version")[:2], (0, f"openhqm {__version__}\n"))
        for arguments, expected in (
            (("--port", "8000"), "Did you mean server.port or admin.port in the file"),
            (("--log-level", "DEBUG"), "monitoring.log_level"),
            (("--handler", "a:b"), "worker.handler"),
            (("--colour",), "option --colour not recognized"),
            (("start",), "'start' is no option"),
        ):
            code, output, errors = self.server().run(*arguments)
            self.assertEqual(code, 1)
            self.assertIn(expected, output + errors)

    def test_restart(self) -> None:
        """Ctrl-C ends the process with 0. After a restart it answers for an old id."""
        server = self.server()
        server.start()
        correlation_id = server.submit({"hello": "world"})
        before = server.response(correlation_id)
        self.assertEqual(server.stop(signal.SIGINT), 0)
        server.start()
        self.assertEqual(server.response(correlation_id), before)
        self.assertEqual(server.stop(), 0)

    def test_nothing_configured(self) -> None:
        """The first line of the log of a process for which nothing is configured says that it echoes."""
        server = self.server()
        command, clean = server.command(), {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
        # Its port may be taken on this machine: then it ends, and has written the line before.
        with (self.directory / "log").open("wb") as log:
            process = subprocess.Popen(command, cwd=self.directory, env=clean, stdout=log, stderr=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        server.until(lambda: "\n" in server.log(), "nothing is logged")
        self.assertIn("each request is answered with its own payload", server.log().splitlines()[0])
        code, _, errors = self.server().run("--config", self.config("worker: {count: 3}"))
        self.assertEqual(code, 1)
        self.assertIn("openhqm: worker.handler: is needed", errors)

    def test_own_handler(self) -> None:
        """A handler in a file beside the configuration is imported and called."""
        server = self.server()
        server.start("--config", self.config("worker: {handler: 'jobs:handle'}"))
        self.assertEqual(server.response(server.submit([1]))["result"], {"seen": [1], "attempt": 1})

    def test_thread(self) -> None:
        """With worker.executor thread a blocking handler holds up no other, and its progress is stored."""
        server = self.server(OPENHQM_WORKER__HANDLER="jobs:blocking", OPENHQM_WORKER__EXECUTOR="thread")
        server.start()
        started = time.monotonic()
        ids = [server.submit(number) for number in range(5)]
        self.assertEqual({server.response(one)["result"] for one in ids}, {"done"})
        self.assertLess(time.monotonic() - started, 5 * 0.2)
        self.assertIn(b'"thread":true', server.ask("GET", f"/api/v1/events/{ids[0]}")[2])
        self.assertEqual(server.stop(), 0)

    def test_handler_that_kills(self) -> None:
        """A handler that ends the process is called four times. Then its request is a dead letter."""
        server = self.server(OPENHQM_WORKER__HANDLER="jobs:handle")
        server.start()
        correlation_id = server.submit("die", delay=0.5)  # so that the 202 is sent before the process ends
        good = server.submit("live")
        for _ in range(4):
            assert server.process is not None
            self.assertEqual(server.process.wait(timeout=20), 7)
            self.start_or_end(server)
        response = server.response(correlation_id)
        self.assertEqual((response["status"], response["attempt"]), ("FAILED", 4))
        self.assertIn("the worker process ended during each of the 4 attempts", response["error"])
        self.assertEqual(server.response(good)["status"], "COMPLETED")

    def start_or_end(self, server: Server) -> None:
        """Start ``server``, which may end again before it answers."""
        try:
            server.start()
        except AssertionError:
            assert server.process is not None
            self.assertEqual(server.process.poll(), 7)

    def test_roles(self) -> None:
        """A listener accepts requests and does not work on them. A worker works on them, without a port."""
        server = self.server()
        server.start("--role", "listener")
        correlation_id = server.submit(1)
        self.assertEqual(server.ask("GET", f"/api/v1/response/{correlation_id}?wait=1")[0], 202)
        server.stop()
        worker = subprocess.Popen(
            server.command("--role", "worker"), cwd=self.directory, env=server.variables(), stdout=subprocess.DEVNULL
        )
        self.addCleanup(lambda: worker.poll() is None and worker.kill())
        log = self.directory / "data" / "openhqm.db-wal"
        size = -1
        while not log.exists() or (size != log.stat().st_size and worker.poll() is None):
            size = log.stat().st_size if log.exists() else -1
            time.sleep(0.5)
        self.assertRaises(OSError, server.ask, "GET", "/health")
        worker.terminate()
        self.assertEqual(worker.wait(30), 0)
        server.start("--role", "listener")
        self.assertEqual(server.response(correlation_id)["status"], "COMPLETED")


class ServingTests(ProcessCase):
    def test_hang_up(self) -> None:
        """SIGHUP ends nothing: it applies what can be applied, names the rest, and a bad file changes nothing."""
        server = self.server()
        config = self.config("worker: {handler: 'jobs:handle'}")
        server.start("--config", config)
        assert server.process is not None
        for text, expected in (
            ("worker: {handler: 'jobs:handle'}\nmonitoring: {log_level: DEBUG}", "monitoring.log_level has changed"),
            ("worker: {handler: 'jobs:none'}\nmonitoring: {log_level: INFO}", "jobs has no callable named none"),
            ("worker: {handler: 'jobs:handle', count: 3}", "worker.count has changed in the configuration: restart"),
            ("worker: {handler: 'jobs:handle', timeout_seconds: 7}", "worker.timeout_seconds has changed"),
            ("worker: {", "cfg.yaml"),
        ):
            self.config(text)
            server.process.send_signal(signal.SIGHUP)
            server.until(lambda expected=expected: expected in server.log(), "it does not say so")
        Path(config).unlink()
        server.process.send_signal(signal.SIGHUP)
        server.until(lambda: server.log().count("; the process keeps its configuration") == 3, "it does not say so")
        self.assertEqual(server.response(server.submit(1))["result"], {"seen": 1, "attempt": 1})
        self.assertEqual(server.stop(), 0)

    def test_hang_up_with_other_limits(self) -> None:
        """A lower limit refuses from then on, a contradiction changes nothing, and without a limit all are taken."""
        server = self.server()
        handler = "worker: {handler: 'jobs:handle', count: 1}\n"
        server.start("--config", self.config(handler))
        assert server.process is not None
        for _ in range(3):
            server.submit(1, delay=600)

        def hang_up(limits: str, said: str) -> None:
            assert server.process is not None
            before = server.log().count(said)
            self.config(f"{handler}queue: {{limits: {{{limits}}}}}")
            server.process.send_signal(signal.SIGHUP)
            server.until(lambda: server.log().count(said) > before, "it does not say so")

        hang_up("requests: 3", "queue.limits.requests has changed")
        submission = {"payload": 1, "metadata": {"delay": 600}}
        self.assertEqual(server.ask("POST", "/api/v1/submit", submission)[0], 503)
        health = json.loads(server.ask("GET", "/health")[2])
        self.assertEqual(health["queue"]["requests"], {"open": 3, "limit": 3})
        hang_up("overflow: drop_oldest", "queue.limits.overflow: ")
        self.assertEqual(server.ask("POST", "/api/v1/submit", submission)[0], 503)
        hang_up("requests: null", "queue.limits.requests has changed")
        self.assertEqual(server.ask("POST", "/api/v1/submit", submission)[0], 202)
        self.assertEqual(server.stop(), 0)

    def test_hang_up_beyond_the_broker(self) -> None:
        """Endpoints that take more channels than the broker has change nothing, and the key is named."""
        server = self.server()
        factory = "{factory: 'tests.custom_factories:make_broker', options: {form: event hubs}}"
        queue = f"queue: {{type: custom, connection: {{custom: {factory}}}}}\nworker: {{handler: 'jobs:handle'}}\n"
        server.start("--config", self.config(queue))
        assert server.process is not None
        endpoints = ", ".join(f"{name}: {{url: 'http://{name}.test'}}" for name in "abcde")
        self.config(f"{queue}proxy: {{enabled: true, endpoints: {{{endpoints}}}}}")
        server.process.send_signal(signal.SIGHUP)
        kept = "= 18 channels, and the broker has 10 at most; the process keeps its configuration"
        server.until(lambda: kept in server.log(), "it does not say so")
        self.assertIn("proxy.endpoints: ", server.log())
        self.assertEqual(server.ask("GET", "/health/ready")[0], 200)

    def test_hang_up_at_the_start(self) -> None:
        """A SIGHUP that comes before the process is up ends nothing: the configuration is read again once it is up."""
        server = self.server()
        config = self.config("worker: {handler: 'jobs:handle'}")
        jobs = Path(config).parent / "jobs.py"
        jobs.write_text(f"import os, signal\nos.kill(os.getpid(), signal.SIGHUP)\n{jobs.read_text()}")
        server.start("--config", config)
        server.until(lambda: "the configuration was read again" in server.log(), "it does not say so")
        self.assertEqual(server.response(server.submit(1))["result"], {"seen": 1, "attempt": 1})
        self.assertEqual(server.stop(), 0)

    def hold_connection(self, server: Server, number: int) -> None:
        """Hold a connection, once the server counts ``number`` of them and no older ones."""
        deadline = time.monotonic() + 20
        while True:
            connection = server.connection()
            connection.request("GET", "/metrics")
            answer = connection.getresponse().read()
            if b"openhqm_connections %d.0\n" % number in answer:
                self.addCleanup(connection.close)
                return
            connection.close()
            self.assertLess(time.monotonic(), deadline, answer)

    def test_connections(self) -> None:
        """One connection more than server.max_connections gets a 503, and the metric counts the open ones."""
        server = self.server(OPENHQM_SERVER__MAX_CONNECTIONS="2")
        server.start()
        self.hold_connection(server, 1)
        self.hold_connection(server, 2)
        with socket.create_connection(("127.0.0.1", server.port)) as more:
            more.settimeout(20)
            self.assertTrue(more.recv(65536).startswith(b"HTTP/1.1 503 "))

    def test_buffered(self) -> None:
        """Bytes of incomplete bodies are a metric, and more than server.max_buffered_bytes of them is a 503."""
        server = self.server(OPENHQM_SERVER__MAX_BUFFERED_BYTES="1000", OPENHQM_SERVER__MAX_BODY_BYTES="1000")
        server.start()
        head = b"POST /api/v1/submit HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n"
        with socket.create_connection(("127.0.0.1", server.port)) as held:
            held.sendall(head + b"a" * 800)
            deadline = time.monotonic() + 20
            while b"openhqm_buffered_bytes 800.0\n" not in server.ask("GET", "/metrics")[2]:
                self.assertLess(time.monotonic(), deadline)
            status, fields, _ = server.ask("POST", "/api/v1/submit", b"x" * 300)
            self.assertEqual((status, fields["retry-after"]), (503, "1"))
            correlation_id = server.submit("small")
            self.assertEqual(server.response(correlation_id)["result"], "small")

    def test_access_log(self) -> None:
        """With monitoring.access_log a submission and its answer are logged with the id; without it neither is."""
        for on in ("true", "false"):
            server = self.server(OPENHQM_MONITORING__ACCESS_LOG=on)
            server.start()
            correlation_id = server.submit("secret")
            server.response(correlation_id)
            self.assertEqual(server.stop(), 0)
            lines = [json.loads(line) for line in server.log().splitlines() if line.startswith("{")]
            found = [
                (line["method"], line["path"].split("/")[3], line["status"])
                for line in lines
                if line.get("correlation_id") == correlation_id and "method" in line
            ]
            self.assertEqual(found, [("POST", "submit", 202), ("GET", "response", 200)] if on == "true" else [])
            self.assertNotIn("secret", server.log())
            self.assertNotIn("wait=", server.log())


class RefusalTests(ProcessCase):
    def refused(self, server: Server, *arguments: str) -> list[str]:
        """The lines of a process that ends with exit code 1 and without a traceback."""
        code, out, err = server.run(*arguments)
        self.assertEqual(code, 1, out + err)
        self.assertNotIn("Traceback", out + err)
        return [line for line in err.splitlines() if line.startswith("openhqm: ")]

    def test_port(self) -> None:
        """A port that is taken is one clear line."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            (line,) = self.refused(self.server(OPENHQM_SERVER__PORT=str(port)))
        self.assertIn(f"127.0.0.1:{port}", line)
        self.assertIn("Address already in use", line)

    def test_keys(self) -> None:
        """Each key with an error is a line of its own, with the name of the file."""
        path = self.config("server: {prot: 1, port: x}\nqueue: {type: nats}\n")
        lines = self.refused(self.server(), "--config", path)
        self.assertEqual(len(lines), 2, lines)  # server.port is overridden by the environment here
        self.assertTrue(all(path in line for line in lines))

    def test_no_file(self) -> None:
        """A file that cannot be read is one clear line."""
        (line,) = self.refused(self.server(), "--config", "/nowhere/cfg.yaml")
        self.assertIn("/nowhere/cfg.yaml: cannot be read: No such file or directory", line)

    def test_handler(self) -> None:
        """Each handler that cannot be loaded is one clear line."""
        lines = self.refused(
            self.server(OPENHQM_WORKER__HANDLER="nowhere:handle", OPENHQM_WORKER__HANDLERS='{"a": "jobs:nothing"}')
        )
        self.assertEqual(len(lines), 2)
        self.assertIn("worker.handler: cannot import nowhere", lines[0])
        self.assertIn("worker.handlers.a: jobs has no callable named nothing", lines[1])

    def test_second_process(self) -> None:
        """A second process on the same files is refused, and told the pid of the first, which goes on."""
        first = self.server()
        first.start()
        second = self.server()
        (line,) = self.refused(second)
        assert first.process is not None
        self.assertIn(f"in use by process {first.process.pid}", line)
        self.assertEqual(first.response(first.submit(1))["status"], "COMPLETED")

    def test_foreign_file(self) -> None:
        """The database of another program is refused, and not changed."""
        import sqlite3

        (self.directory / "data").mkdir()
        with sqlite3.connect(self.directory / "data" / "openhqm.db") as database:
            database.execute("CREATE TABLE theirs (a)")
        database.close()
        (line,) = self.refused(self.server())
        self.assertIn("some other program's database", line)

    def test_role(self) -> None:
        """An unknown role is refused."""
        code, out, err = self.server().run("--role", "boss")
        self.assertEqual(code, 1)
        self.assertIn("--role must be", out + err)

    def test_role_alone(self) -> None:
        """A listener or a worker on a queue in memory is refused: no other process could see its requests."""
        for role in ("listener", "worker"):
            code, out, err = self.server(OPENHQM_QUEUE__TYPE="memory").run("--role", role)
            self.assertEqual(code, 1)
            self.assertIn("memory is seen by one process only", out + err)

    def test_check(self) -> None:
        """--check prints what the backend promises and ends with 0; with an error in a key it ends with 1."""
        code, out, err = self.server().run("--check")
        self.assertEqual((code, err), (0, ""))
        self.assertIn("durable: a 202 survives a crash and a power cut: yes", out)
        code, out, _ = self.server(OPENHQM_QUEUE__TYPE="memory").run("--check")
        self.assertIn("durable: a 202 survives a crash and a power cut: no", out)
        self.refused(self.server(OPENHQM_QUEUE__TYPE="rabbitmq"), "--check")

    def test_reader_has_gone(self) -> None:
        """What is printed for a reader that has seen enough, like head, ends without a traceback, and with 0."""
        (self.directory / "sample.json").write_text('{"payload":1}')
        for arguments in (("--check",), ("--dry-run", "sample.json")):
            server = self.server()
            reading, writing = os.pipe()
            os.close(reading)
            try:
                done = subprocess.run(
                    server.command(*arguments),
                    cwd=server.directory,
                    env=server.variables(),
                    stdout=writing,
                    stderr=subprocess.PIPE,
                    timeout=60,
                )
            finally:
                os.close(writing)
            self.assertEqual((done.returncode, done.stderr), (0, b""), arguments)


class CustomTests(ProcessCase):
    OWN = """
import attrs
from openhqm.memory.queue import MemoryQueue
from openhqm.memory.results import MemoryResults
from openhqm.policy.ids import CorrelationIds

class Queue(MemoryQueue):
    def start(self):
        self._results.start()
        return super().start()

    def stop(self):
        self._results.stop()
        return super().stop()

def make(options, clock):
    ids = CorrelationIds(b"k" * 32)
    results = MemoryResults(clock, ids, 3600.0)
    queue = Queue(results, clock, ids, requests="openhqm-requests", dead_letters="openhqm-dlq")
    queue.traits = attrs.evolve(queue.traits, largest_message=options["largest_message"])
    return queue, results

def broken(options, clock):
    raise RuntimeError("no luck")
"""

    def custom(self, factory: str) -> Server:
        (self.directory / "own.py").write_text(self.OWN)
        return self.server(
            OPENHQM_QUEUE__TYPE="custom",
            OPENHQM_QUEUE__CONNECTION__CUSTOM__FACTORY=factory,
            OPENHQM_QUEUE__CONNECTION__CUSTOM__OPTIONS='{"largest_message": 1000}',
        )

    def test_served(self) -> None:
        """A queue that a file beside the configuration makes is served like any other, with the limit that it has."""
        server = self.custom("own:make")
        code, out, err = server.run("--check")
        self.assertEqual((code, err), (0, ""))
        self.assertIn("queue.type custom\n", out)
        self.assertIn("largest message, in bytes (413 for a longer one): 1000\n", out)
        server.start()
        self.assertEqual(server.response(server.submit({"a": 1}))["result"], {"a": 1})
        status, _, body = server.ask("POST", "/api/v1/submit", {"payload": "x" * 1000})
        self.assertEqual((status, json.loads(body)["largest_message"]), (413, 1000))
        self.assertEqual(server.stop(), 0)

    def test_refused(self) -> None:
        """A factory that is not there, or breaks down, ends the process with one line."""
        for factory, words in (
            ("own:nothing", "own has no callable named nothing"),
            ("own:broken", "own:broken failed: RuntimeError: no luck"),
        ):
            code, out, err = self.custom(factory).run()
            self.assertEqual(code, 1)
            self.assertNotIn("Traceback", out + err)
            (line,) = [line for line in err.splitlines() if line.startswith("openhqm: ")]
            self.assertIn(f"queue.connection.custom.factory: {words}", line)


class DiskFullTests(ProcessCase):
    def setUp(self) -> None:
        super().setUp()
        self.disk = self.directory / "disk"
        self.grow = small_disk(self, self.disk)

    def test_full(self) -> None:
        """On a full disk no request is accepted, and all answers are readable.

        With room again the process recovers by itself.
        """
        server = self.server(OPENHQM_QUEUE__CONNECTION__SQLITE__PATH=str(self.disk / "data"))
        server.start()
        early = server.submit("early")
        before = server.response(early)
        accepted = []
        for _ in range(200):
            status, fields, body = server.ask("POST", "/api/v1/submit", {"payload": "x" * 90_000})
            if status != 202:
                break
            accepted.append(body)
        self.assertEqual(status, 503)
        self.assertIn("retry-after", fields)
        self.assertEqual(server.ask("GET", "/health/ready")[0], 503)
        self.assertEqual(server.response(early), before)
        # Make room: here the disk becomes larger.
        self.grow("64m")
        deadline = time.monotonic() + 15
        while server.ask("GET", "/health/ready")[0] != 200 and time.monotonic() < deadline:
            time.sleep(0.1)
        self.assertEqual(server.response(server.submit("late"))["status"], "COMPLETED")
        for body in accepted:
            self.assertEqual(server.response(json.loads(body)["correlation_id"])["status"], "COMPLETED")
        self.assertEqual(server.stop(), 0)


class PackagingTests(ProcessCase):
    def test_wheel_and_sdist(self) -> None:
        """``scripts/check-dist.sh``: both are sound and whole, and the wheel runs in a clean environment."""
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        checked = subprocess.run(
            ["bash", str(ROOT / "scripts" / "check-dist.sh"), str(self.directory / "dist")],
            env=environment,
            capture_output=True,
            text=True,
        )
        self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)
        self.assertIn(f"openhqm-{__version__}-py3-none-any.whl", checked.stdout)
