"""What goes wrong around a process in a container: its disk, its Secrets, and a stop before it is up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.brokers import RedisServer
from tests.servers import Server, free_port
from tests.small_disk import small_disk

AUTHORIZED = {"OPENHQM_AUTH__TYPE": "api_key"}
SUBMISSION = {"payload": 1}


class ContainerCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()

    def server(self, **environment: str) -> Server:
        server = Server(self.directory, **environment)
        self.addCleanup(lambda: server.process and server.process.poll() is None and server.kill())
        return server

    def refused(self, server: Server, *texts: str) -> None:
        """The start ends with 1 and one line on standard error, in which those texts are."""
        code, out, errors = server.run()
        self.assertEqual(code, 1, out + errors)
        (line,) = [each for each in errors.splitlines() if each.startswith("openhqm: ")]
        self.assertNotIn("Traceback", out + errors)
        for text in texts:
            self.assertIn(text, line)


class DiskTests(ContainerCase):
    def test_read_only(self) -> None:
        """A data directory that cannot be written, new or with data, ends the start with one line that names it. Once
        it can be, the data are there."""
        disk = self.directory / "disk"
        small_disk(self, disk, "64m")
        for path in (disk / "new", disk / "data"):
            server = self.server(OPENHQM_QUEUE__CONNECTION__SQLITE__PATH=str(path))
            kept = ""
            if path.name == "data":
                server.start()
                kept = server.submit("kept")
                server.response(kept)
                self.assertEqual(server.stop(), 0)
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
            self.refused(server, str(path), "ead-only file system" if path.name == "new" else "")
            subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
            server.start()
            if kept:
                self.assertEqual(server.response(kept)["result"], "kept")
            self.assertEqual(server.stop(), 0)


class SecretTests(ContainerCase):
    """A Secret as the kubelet mounts it: files are links into a directory, which is exchanged in one step"""

    def write(self, version: int, **files: str) -> Path:
        """The Secret with those files, as a new version."""
        secret = self.directory / "secret"
        secret.mkdir(exist_ok=True)
        data = secret / f"..{version}"
        data.mkdir()
        for name, text in files.items():
            (data / name).write_text(text)
            (data / name).chmod(0o440)
            if not (secret / name).is_symlink():
                (secret / name).symlink_to(Path("..data") / name)
        new = secret / "..data_tmp"
        new.symlink_to(data.name)
        os.rename(new, secret / "..data")
        return secret

    def new_key(self, file: str) -> tuple[str, str]:
        """A key, and the file that knows it."""
        path = self.directory / file
        command = ["keys", "new", "--file", str(path), "--tenant", "shop", "--role", "submit"]
        program = "import sys; sys.argv[0] = 'openhqm'; from openhqm.command.main import run; run()"
        environment = self.server().variables()
        done = subprocess.run(
            [sys.executable, "-c", program, *command], env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout.split()[-1], path.read_text()

    def status(self, server: Server, key: str) -> int:
        return server.ask("POST", "/api/v1/submit", SUBMISSION, {"OpenHQM-Key": key})[0]

    def test_missing(self) -> None:
        """A Secret that is missing, or lacks the file, ends the start with one line that names key and file."""
        for variables, texts in (
            ({**AUTHORIZED, "OPENHQM_AUTH__KEYS_FILE": "secret/keys"}, ("auth.keys_file", "secret/keys")),
            ({"OPENHQM_ADMIN__PORT": str(free_port()), "OPENHQM_ADMIN__KEY_FILE": "secret/admin"}, ("secret/admin",)),
            ({"OPENHQM_QUEUE__TYPE": "redis", "OPENHQM_QUEUE__REDIS_URL_FILE": "secret/url"}, ("secret/url",)),
        ):
            self.refused(self.server(**variables), *texts)
        path = self.directory / "cfg.yaml"
        path.write_text('queue: {type: redis, redis_url: "${REDIS_URL}"}\n')
        code, _, errors = self.server().run("--config", str(path))
        self.assertEqual((code, errors.count("openhqm: ")), (1, 1), errors)
        self.assertIn("REDIS_URL", errors)

    def test_changed(self) -> None:
        """When the kubelet exchanges the Secret, keys that are new in it count, and those that it has no more do not,
        without a restart."""
        (old, first), (new, second) = self.new_key("first"), self.new_key("second")
        secret = self.write(1, keys=first)
        server = self.server(**AUTHORIZED, OPENHQM_AUTH__KEYS_FILE=str(secret / "keys"))
        server.start()
        self.assertEqual((self.status(server, old), self.status(server, new)), (202, 401))
        self.write(2, keys=second)
        server.until(lambda: (self.status(server, old), self.status(server, new)) == (401, 202), "not read")
        self.write(3, keys="{")

        def told() -> bool:
            self.assertEqual(self.status(server, new), 202)
            return "the keys before stand" in server.log()

        server.until(told, "it does not say that the file is wrong")
        self.assertEqual(server.stop(), 0)


class StopTests(ContainerCase):
    def test_during_start(self) -> None:
        """SIGTERM at any moment of the start ends the process at once, without an error; the next start is well."""
        server = self.server(OPENHQM_MONITORING__LOG_FORMAT="text")
        before = time.monotonic()
        server.start()
        whole = time.monotonic() - before
        kept = server.submit("kept")
        server.response(kept)
        server.stop()
        for part in range(8):
            (self.directory / "log").write_text("")
            server.launch()
            time.sleep(whole * part / 7)  # the moment is what is tested
            code = server.stop()
            # Until Python has come to the line that handles it, SIGTERM does what it does to every process.
            self.assertIn(code, (0, -signal.SIGTERM), server.log())
            self.assertNotIn("Traceback", server.log())
            self.assertNotIn("Unhandled", server.log())
        server.start()
        self.assertEqual(server.response(kept)["result"], "kept")
        self.assertEqual(server.stop(), 0)

    def test_while_it_waits(self) -> None:
        """A process that waits for a Redis which is away is up, not ready, and ends at once at SIGTERM."""
        port = RedisServer().port
        server = self.server(OPENHQM_QUEUE__TYPE="redis", OPENHQM_QUEUE__REDIS_URL=f"redis://127.0.0.1:{port}")
        server.launch()
        server.until(lambda: server.ask("GET", "/health/ready")[0] == 503, "it is not up")
        before = time.monotonic()
        self.assertEqual(server.stop(), 0)
        self.assertLess(time.monotonic() - before, 10)
