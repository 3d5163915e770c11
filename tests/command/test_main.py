"""The command ``openhqm``: its options, its exit codes, and the processes that it starts."""

from __future__ import annotations

import io
import json
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from openhqm import __version__
from openhqm.command.main import main
from tests.redis.bench import shared_redis
from tests.servers import Server, free_port

RUN = "import sys; from openhqm.command.main import run; sys.argv[0] = 'openhqm'; run()"


class CommandServer(Server):
    """``openhqm serve`` in a process of its own"""

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-c", RUN, *(arguments or ("serve",))]


def openhqm(*arguments: str, **environment: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error."""
    out, err = io.StringIO(), io.StringIO()
    return main(arguments, environment, out, err), out.getvalue(), err.getvalue()


class OptionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.errors, self.output = io.StringIO(), io.StringIO()
        self.patch(sys, "stderr", self.errors)  # where argparse writes
        self.patch(sys, "stdout", self.output)

    def test_version(self) -> None:
        """It says its version."""
        self.assertEqual(openhqm("--version")[0], 0)
        self.assertEqual(self.output.getvalue(), f"openhqm {__version__}\n")

    def test_help(self) -> None:
        """The help names the commands and the exit codes."""
        self.assertEqual(openhqm("--help")[0], 0)
        for word in ("serve", "check", "dead", "exit codes"):
            self.assertIn(word, self.output.getvalue())

    def test_wrong(self) -> None:
        """A command line that is wrong is exit code 2, and is said."""
        for arguments in (
            (),
            ("serv",),
            ("serve", "--conf", "x"),
            ("serve", "--role", "both"),
            ("dead",),
            ("dead", "show"),
            ("dead", "show", "x"),
            ("dead", "list", "--reason-class", "bad"),
        ):
            self.assertEqual(openhqm(*arguments)[0], 2, arguments)
        self.assertIn("usage: openhqm", self.errors.getvalue())

    def test_meant(self) -> None:
        """An option that is called like a key of the configuration is met with that key, and start with serve."""
        for arguments, said in (
            (("--port", "8000"), "OPENHQM_SERVER__PORT"),
            (("serve", "--port=8000"), "Did you mean server.port or admin.port in the file"),
            (("start",), "Did you mean openhqm serve?"),
            (("serve", "start"), "Did you mean openhqm serve?"),
            (("serve", "--colour"), ""),
        ):
            code, _, err = openhqm(*arguments)
            self.assertEqual(code, 2, arguments)
            self.assertIn(said, err)
            self.assertEqual(bool(err), bool(said), err)

    def test_wrong_values(self) -> None:
        """So is a value that cannot be, a configuration that cannot be read, and a change that names nothing."""
        url = ("--url", "http://127.0.0.1:1")
        for arguments, said in (
            (("dead", "list", "--url", "ftp://x"), "must be like http://127.0.0.1:8000"),
            (("dead", "list", "--url", "http://h/path"), "must be like"),
            (("dead", "list", "--config", "/nowhere.yaml"), "/nowhere.yaml"),
            (("dead", "list", *url, "--since", "yesterday"), "--since must be an RFC 3339 time"),
            (("dead", "list", *url, "--limit", "-1"), "--limit"),
            (("dead", "drop", *url), "needs either numbers, or a filter, or --all"),
            (("dead", "drop", *url, "1", "--all"), "needs either"),
            (("dead", "drop", *url, "--endpoint", "a", "--all"), "needs either"),
            (("dead", "redrive", *url, "1", "--since", "1h"), "needs either"),
            (("dead", "redrive", *url, "--all", "--rate", "0"), "--rate"),
            (("dead", "redrive", *url, "--all", "--rate", "nan"), "--rate"),
        ):
            code, out, err = openhqm(*arguments)
            self.assertEqual((code, out), (2, ""), arguments)
            self.assertIn(said, err)
            self.assertTrue(err.startswith("openhqm: "), err)

    def test_not_reached(self) -> None:
        """Where nothing listens it says where it has asked, and what to do: exit code 3."""
        port = free_port()
        for arguments, environment in (
            (("dead", "list", "--url", f"http://127.0.0.1:{port}"), {}),
            (("dead", "redrive", "--all"), {"OPENHQM_SERVER__PORT": str(port)}),
        ):
            code, _, err = openhqm(*arguments, **environment)
            self.assertEqual(code, 3)
            self.assertIn(f"no answer from http://127.0.0.1:{port}: Connection refused", err)
            self.assertIn("--url", err)
        code, _, err = openhqm("dead", "list", "--url", "unix:/nowhere.sock")
        self.assertEqual(code, 3)
        self.assertIn("no answer from unix:/nowhere.sock: No such file", err)


class ProcessTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="openhqm-command-"))
        self.addCleanup(shutil.rmtree, self.directory)

    def test_serve(self) -> None:
        """``openhqm serve`` is a process that serves, and ends with 0 on SIGTERM."""
        server = CommandServer(self.directory)
        server.start("serve", "--role", "all")
        self.addCleanup(lambda: server.process and server.process.poll() is None and server.kill())
        self.assertEqual(server.response(server.submit(1))["result"], 1)
        self.assertEqual(server.stop(signal.SIGTERM), 0)

    def test_several_processes(self) -> None:
        """So is the parent of several, which starts the others by the same command line."""
        server = CommandServer(
            self.directory,
            OPENHQM_SERVER__WORKERS="2",
            OPENHQM_QUEUE__TYPE="redis",
            OPENHQM_QUEUE__REDIS_URL=shared_redis().url,
        )
        server.start("serve")
        self.addCleanup(lambda: server.process and server.process.poll() is None and server.kill())
        self.assertEqual(server.response(server.submit(1))["result"], 1)
        self.assertEqual(sum(json.loads(server.ask("GET", "/health")[2])["processes"].values()), 2)
        self.assertEqual(server.stop(signal.SIGTERM), 0)

    def test_check(self) -> None:
        """``openhqm check`` exits with 0 or 1, like ``twistd -n openhqm --check``."""
        server = CommandServer(self.directory)
        code, out, err = server.run("check")
        self.assertEqual(code, 0, err)
        self.assertIn("the configuration is sound", out)
        (self.directory / "bad.yaml").write_text("queue: {typ: redis}\n")
        code, out, err = server.run("check", "--config", "bad.yaml")
        self.assertEqual((code, out), (1, ""))
        self.assertIn("openhqm: queue.typ: ", err)
