"""The log: what reads it slowly, or not at all, holds up nothing."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO, Any

from twisted.trial.unittest import SynchronousTestCase

from openhqm.runtime import log_writer
from openhqm.runtime.log_writer import LogWriter
from tests.servers import Server

LINE = "x" * 99


def dropped(count: int) -> str:
    return f"{count} dropped"


class LogWriterTests(SynchronousTestCase):
    """`LogWriter`, on a pipe that the test reads"""

    def setUp(self) -> None:
        reading, writing = os.pipe()
        self.reader: IO[bytes] = os.fdopen(reading, "rb")
        self.stream = os.fdopen(writing, "w", encoding="ascii")
        self.addCleanup(self.reader.close)
        self.writer = LogWriter(self.stream, dropped)

    def read_all(self) -> list[str]:
        """Every line up to the last one, which says ``end``."""
        lines = []
        while (line := self.reader.readline().decode().rstrip("\n")) != "end":
            lines.append(line)
        return lines

    def test_in_order(self) -> None:
        """Every line is written, in order, what the encoding does not have escaped; at first without a thread."""
        self.writer.write("first \u2713")
        self.assertEqual(self.reader.readline(), b"first \\u2713\n")
        self.writer.decouple()
        for number in range(10_000):
            self.writer.write(str(number))
            if number % 500 == 0:
                self.writer.flush()
                while number and self.reader.readline() != b"%d\n" % number:
                    pass
        self.writer.write("end")
        self.assertEqual(self.read_all(), [str(number) for number in range(9501, 10_000)])
        self.assertEqual(self.writer.dropped, 0)

    def test_not_read(self) -> None:
        """Lines for which there is no room are dropped at once. The log says how many, where they are missing."""
        self.writer.decouple()
        began = time.monotonic()
        for number in range(200_000):
            self.writer.write(f"{number:06} {LINE}")
        self.assertLess(time.monotonic() - began, 5)
        self.assertGreater(self.writer.dropped, 100_000)
        for number in range(1000):
            self.writer.write(f"important {number}", important=True)  # has room that the others have not
        most = self.writer._bytes
        self.assertLess(most, log_writer.MOST_BYTES)
        began = time.monotonic()
        self.writer.flush(0.2)
        self.assertLess(time.monotonic() - began, 1)
        self.writer.write("end", important=True)
        lines = self.read_all()
        at = next(index for index, line in enumerate(lines) if "dropped" in line)
        self.assertEqual([int(line[:6]) for line in lines[:at]], list(range(at)))
        self.assertEqual(lines[at], f"{200_000 - at} dropped")
        self.assertEqual(lines[at + 1 :], [f"important {number}" for number in range(1000)])
        self.writer.write("again")
        self.writer.write("end")
        self.assertEqual(self.read_all(), ["again"])

    def test_told_without_another_line(self) -> None:
        """That lines were dropped is told as soon as the log is read again."""
        self.writer.decouple()
        for _ in range(100_000):
            self.writer.write(LINE)
        count = self.writer.dropped
        self.assertTrue(count)
        while (line := self.reader.readline()) == f"{LINE}\n".encode():
            pass
        self.assertEqual(line, f"{count} dropped\n".encode())

    def test_not_writable(self) -> None:
        """Lines that cannot be written are counted as dropped, and cost the process nothing."""
        self.writer.decouple()
        self.reader.close()
        self.writer.write("lost")
        deadline = time.monotonic() + 5
        while not self.writer.dropped and time.monotonic() < deadline:
            time.sleep(0.01)
        self.assertGreater(self.writer.dropped, 0)
        self.writer.write("lost, too")
        began = time.monotonic()
        self.writer.flush(10)
        self.assertLess(time.monotonic() - began, 5)

    def test_writable_again(self) -> None:
        """Once lines can be written again, as on a disk that was full, all that are missing are told, each once."""
        broken = True
        write = self.writer._write

        def fails(data: bytes) -> None:
            if broken:
                raise OSError("full")
            write(data)

        self.writer._write = fails  # type: ignore[method-assign]
        self.writer.decouple()
        for number in range(10):
            self.writer.write(str(number))
            self.writer.flush(0.1)
            time.sleep(0.03)
        deadline = time.monotonic() + 10
        while self.writer.dropped < 10 and time.monotonic() < deadline:
            time.sleep(0.01)  # the last of them may not have been tried yet
        broken = False
        self.assertEqual(self.reader.readline(), b"10 dropped\n")
        self.assertEqual(self.writer.dropped, 10)

    def test_forked(self) -> None:
        """A process that is forked from this one writes its lines without a thread."""
        self.writer.decouple()
        self.writer.flush()
        child = os.fork()
        if child == 0:
            self.writer.write("of the child")
            os._exit(0)
        os.waitpid(child, 0)
        self.writer.write("of the parent")
        self.assertEqual([self.reader.readline() for _ in range(2)], [b"of the child\n", b"of the parent\n"])

    def test_no_descriptor(self) -> None:
        """A stream that is no file is written to at once."""
        stream = io.StringIO()
        writer = LogWriter(stream, dropped)
        writer.decouple()
        writer.write("line")
        self.assertEqual(stream.getvalue(), "line\n")


class ProcessTests(SynchronousTestCase):
    """A process whose log goes into a pipe"""

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="openhqm-log-"))
        self.addCleanup(shutil.rmtree, self.directory)

    def start(self, **environment: str) -> tuple[Server, Any]:
        server = Server(self.directory, OPENHQM_MONITORING__ACCESS_LOG="true", **environment)
        process = subprocess.Popen(
            server.command(),
            cwd=self.directory,
            env=server.variables(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.addCleanup(lambda: process.poll() is None and process.kill())
        (self.directory / "log").touch()
        server.process = process
        server.until(lambda: server.ask("GET", "/health/live")[0] == 200, "not ready within 30 s")
        return server, process

    def test_not_read(self) -> None:
        """It serves on, `/health` says that the log is not read, and it stops with 0. What is read is whole."""
        server, process = self.start(OPENHQM_MONITORING__LOG_FORMAT="json")
        connection = server.connection()
        path = "/health/live?" + "x" * 2000  # the log has the path alone
        asked = 15_000
        for _ in range(asked):
            connection.request("GET", path)
            connection.getresponse().read()
        warnings = json.loads(server.ask("GET", "/health")[2])["warnings"]
        self.assertRegex(" ".join(warnings), "lines of the log were dropped: it is not read")
        process.terminate()
        self.assertEqual(process.wait(20), 0)
        lines = [json.loads(line) for line in process.stdout.read().splitlines()[:-1]]
        self.assertGreater(len(lines), 50)

    def test_read_again(self) -> None:
        """Where it is read late, nothing of what had room is missing, and the end arrives whole."""
        server, process = self.start(OPENHQM_MONITORING__LOG_FORMAT="text")
        connection = server.connection()
        for _ in range(3000):
            connection.request("GET", "/health/live")
            connection.getresponse().read()
        process.terminate()
        output = process.stdout.read().decode()
        self.assertEqual(process.wait(20), 0)
        missing = [int(count) for count in re.findall(r"(\d+) lines of the log were dropped here", output)]
        served = output.count("GET /health/live 200")
        self.assertGreaterEqual(sum(missing) + served, 3000)
        self.assertIn("openhqm has stopped", output)
        self.assertIn("Server Shut Down", output)
