"""``openhqm dead``, against a process that runs."""

from __future__ import annotations

import atexit
import io
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from functools import cache
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from openhqm.command.dead import run_dead
from openhqm.command.main import main, parser
from openhqm.command.server import Refused
from openhqm.command.server import Server as Asked
from tests.servers import Server

HANDLERS = """
import os
from openhqm.errors import Reject

def handle(work):
    if work.payload["fails"] and not os.path.exists("mended"):
        raise Reject(work.payload["fails"])
    return "done"
"""


@cache
def served() -> Server:
    """One server for all tests. It listens on a Unix socket as well."""
    directory = Path(tempfile.mkdtemp(prefix="openhqm-dead-"))
    (directory / "jobs.py").write_text(HANDLERS)
    server = Server(directory, OPENHQM_WORKER__HANDLER="jobs:handle")
    server.environment["OPENHQM_SERVER__ENDPOINTS"] = json.dumps(
        [f"tcp:{server.port}:interface=127.0.0.1", f"unix:{directory}/socket"]
    )
    server.start()
    atexit.register(shutil.rmtree, directory)
    atexit.register(server.kill)
    return server


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = served()
        (self.server.directory / "mended").unlink(missing_ok=True)
        self.openhqm("dead", "drop", "--all")

    def openhqm(self, *arguments: str) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        where = () if "--url" in arguments else ("--url", f"http://127.0.0.1:{self.server.port}")
        code = main([*arguments, *where], {}, out, err)
        return code, out.getvalue(), err.getvalue()

    def done(self, *arguments: str) -> list[str]:
        code, out, err = self.openhqm(*arguments)
        self.assertEqual(code, 0, err)
        return out.splitlines()

    def failed(self, *errors: str) -> list[str]:
        """The ids of requests that have failed one after the other."""
        ids = []
        for error in errors:
            ids.append(self.server.submit({"fails": error, "exact": 1}))
            self.server.response(ids[-1])
        return ids

    def numbers(self) -> list[int]:
        return [json.loads(line)["number"] for line in self.done("dead", "list", "--json")]


class ListTests(Case):
    def test_none(self) -> None:
        """Where there are none it says so, and prints nothing."""
        self.assertEqual(self.openhqm("dead", "list"), (0, "", "there are no dead letters\n"))
        self.assertEqual(self.openhqm("dead", "list", "--since", "1h"), (0, "", "there are no such dead letters\n"))
        self.assertEqual(self.openhqm("dead", "list", "--json"), (0, "", ""))

    def test_table(self) -> None:
        """A line for each, with what it takes to decide; what a caller has written cannot act on the terminal."""
        ids = self.failed("no luck", "\x1b[2Jgone")
        head, *lines = self.done("dead", "list")
        names = ["NUMBER", "FAILED_AT", "ENDPOINT", "REASON_CLASS", "STATUS_CODE", "CORRELATION_ID", "ERROR"]
        self.assertEqual(head.split(), names)
        for line, id, error in zip(lines, ids, ("no luck", "\\x1b[2Jgone"), strict=True):
            self.assertIn("rejected  ", line)
            self.assertIn(id, line)
            self.assertTrue(line.endswith(error), line)

    def test_json(self) -> None:
        """One document a line, for programs."""
        ids = self.failed("a", "b", "c")
        letters = [json.loads(line) for line in self.done("dead", "list", "--json")]
        self.assertEqual([letter["correlation_id"] for letter in letters], ids)

    def test_limit(self) -> None:
        """So many are listed, and it says where there are more."""
        self.failed("a", "b", "c")
        code, out, err = self.openhqm("dead", "list", "--limit", "2", "--json")
        self.assertEqual((code, len(out.splitlines())), (0, 2))
        self.assertIn("--limit 0 lists all", err)
        self.assertEqual(len(self.done("dead", "list", "--limit", "0", "--json")), 3)

    def test_filter(self) -> None:
        """Filters are those of the API, and a time may be given as how long ago."""
        self.failed("a")
        for arguments, count in (
            (("--since", "1h"), 1),
            (("--since", "2100-01-01T00:00:00Z"), 0),
            (("--reason-class", "rejected"), 1),
            (("--reason-class", "poison"), 0),
            (("--endpoint", ""), 1),
            (("--endpoint", "billing & co"), 0),
        ):
            self.assertEqual(len(self.done("dead", "list", "--json", *arguments)), count, arguments)

    def test_socket(self) -> None:
        """A process is asked over a Unix socket as well."""
        self.failed("a")
        url = f"unix:{self.server.directory}/socket"
        self.assertEqual(len(self.done("dead", "list", "--json", "--url", url)), 1)


class ShowTests(Case):
    def test_shown(self) -> None:
        """The request and the last reply; with --json as they came."""
        (id,) = self.failed("no")
        (number,) = self.numbers()
        text = "\n".join(self.done("dead", "show", str(number)))
        self.assertIn('"exact": 1', text)
        self.assertIn(id, text)
        (line,) = self.done("dead", "show", str(number), "--json")
        self.assertEqual(json.loads(line)["request"]["payload"], {"fails": "no", "exact": 1})

    def test_unknown(self) -> None:
        """A number that none has is said, and is exit code 1; the others are shown."""
        self.failed("no")
        (number,) = self.numbers()
        code, out, err = self.openhqm("dead", "show", "999999", str(number), "--json")
        self.assertEqual((code, len(out.splitlines())), (1, 1))
        self.assertIn("there is no dead letter 999999", err)


class ChangeTests(Case):
    def test_redriven_by_number(self) -> None:
        """Those that are named are redriven, and the new ids are printed; one that is unknown is said."""
        second = self.failed("a", "b")[1]
        numbers = self.numbers()
        (self.server.directory / "mended").touch()
        code, out, err = self.openhqm("dead", "redrive", str(numbers[1]), "999999", "--json")
        self.assertEqual(code, 1)
        entry = json.loads(out)
        self.assertEqual((entry["number"], entry["correlation_id"]), (numbers[1], second))
        self.assertEqual(self.server.response(entry["redriven_as"])["result"], "done")
        self.assertIn("openhqm: dead letter 999999 is not redriven: there is none", err)
        self.assertIn("1 dead letter was redriven\n", err)
        self.assertEqual(self.numbers(), [numbers[0]])

    def test_redriven_by_filter(self) -> None:
        """All that match are redriven, portion by portion, at a rate."""
        self.patch_portion(2)
        self.failed(*"abcde")
        (self.server.directory / "mended").touch()
        began = time.monotonic()
        code, out, err = self.openhqm("dead", "redrive", "--reason-class", "rejected", "--rate", "20")
        self.assertEqual((code, len(out.splitlines()), err), (0, 5, "5 dead letters were redriven\n"))
        self.assertGreaterEqual(time.monotonic() - began, 5 / 20)
        self.assertEqual(self.numbers(), [])

    def test_fails_again(self) -> None:
        """What fails again while it is redriven is not redriven once more: it comes to an end."""
        self.patch_portion(1)
        self.failed("a", "b")
        self.assertEqual(self.openhqm("dead", "redrive", "--all")[2], "2 dead letters were redriven\n")

    def test_dry_run(self) -> None:
        """A dry run prints which, and changes nothing."""
        self.failed("a", "b")
        numbers = self.numbers()
        for action, participle in (("redrive", "redriven"), ("drop", "dropped")):
            for which, count in ((["--all"], "2 dead letters"), ([str(numbers[0])], "1 dead letter")):
                code, out, err = self.openhqm("dead", action, *which, "--dry-run")
                self.assertEqual((code, err), (0, f"{count} would be {participle}\n"))
                self.assertEqual(out.split()[0], str(numbers[0]))
        self.assertEqual(self.numbers(), numbers)

    def test_dropped(self) -> None:
        """Those that are named or match are dropped."""
        self.failed(*"abcd")
        numbers = self.numbers()
        self.assertEqual(self.openhqm("dead", "drop", *map(str, numbers[:2]))[2], "2 dead letters were dropped\n")
        self.patch_portion(1)
        self.assertEqual(
            self.openhqm("dead", "drop", "--reason-class", "rejected", "--endpoint", "")[2],
            "2 dead letters were dropped\n",
        )
        self.assertEqual(self.numbers(), [])

    def patch_portion(self, count: int) -> None:
        import openhqm.command.dead

        self.patch(openhqm.command.dead, "PORTION", count)


class FakeTime:
    """Time that passes only in a sleep."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def time(self) -> float:
        return self.now

    monotonic = time

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class AnswerTests(SynchronousTestCase):
    """Answers that a sound process on the same host seldom gives"""

    def answering(self, *answers: tuple[int, dict[str, str], bytes]) -> str:
        left = list(answers)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, fields, body = left.pop(0) if len(left) > 1 else left[0]
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **fields}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_DELETE = do_GET

            def log_message(self, *arguments: Any) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        return f"http://127.0.0.1:{server.server_port}"

    def dead(self, url: str, time: FakeTime, *arguments: str) -> tuple[int, list[str]]:
        lines: list[str] = []
        append: Callable[[str], None] = lines.append
        code = run_dead(parser().parse_args(["dead", *arguments]), Asked(url), append, append, time)
        return code, lines

    UNAVAILABLE = (503, {"Retry-After": "5"}, b'{"detail": "not now"}')

    def test_unavailable(self) -> None:
        """While nothing can be stored it waits as long as it is told, and goes on."""
        body = b'{"dry_run":false,"count":0,"dead_letters":[],"refused":[],"cursor":null}'
        url = self.answering(self.UNAVAILABLE, self.UNAVAILABLE, (200, {"Content-Type": "application/json"}, body))
        time = FakeTime()
        self.assertEqual(self.dead(url, time, "redrive", "--all")[0], 0)
        self.assertEqual(time.slept, [5, 5])

    def test_unavailable_for_long(self) -> None:
        """It does not wait for ever."""
        time = FakeTime()
        error = self.assertRaises(Refused, self.dead, self.answering(self.UNAVAILABLE), time, "drop", "--all")
        self.assertIn("503: not now", str(error))
        self.assertLessEqual(sum(time.slept), 60)

    def test_refused(self) -> None:
        """A refusal is said as the process says it: exit code 1."""
        url = self.answering((403, {}, b'{"detail": "this path is for programs on the same host only"}'))
        out, err = io.StringIO(), io.StringIO()
        self.assertEqual(main(["dead", "list", "--url", url], {}, out, err), 1)
        self.assertIn("refuses this with 403: this path is for programs on the same host only", err.getvalue())

    def test_another_program(self) -> None:
        """Where another program answers, that is said, and not a traceback."""
        for answer in (
            (200, {"Content-Type": "text/html"}, b"<html>"),
            (404, {"Content-Type": "text/html"}, b"<html>"),
            (404, {}, b"[]"),
            (302, {"Location": "http://127.0.0.1:1/"}, b""),
        ):
            out, err = io.StringIO(), io.StringIO()
            self.assertEqual(main(["dead", "list", "--url", self.answering(answer)], {}, out, err), 1, answer)
            self.assertIn("OpenHQM", err.getvalue())
