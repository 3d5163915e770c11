"""The code blocks of the README and of ``docs/``, and a reader who follows a page from its top to its end."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path

import attrs

from openhqm.policy.own_paths import SIDECAR_PREFIX
from tests.servers import ROOT, free_port

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"`([\w-]+\.(?:yaml|py|json))`[^`]*\Z")
READY_SECONDS = 90
"""How long a server has until it is ready for the commands of the page."""
# A command line that serves until it is stopped, in the foreground.
_SERVES = re.compile(r"(?:twistd -n openhqm|openhqm serve)(?!.*--(?:check|dry-run|version))[^&\n]*\Z")
_ID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|[0-9a-f]{8}-(?=\.\.\.)")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@attrs.frozen
class Block:
    """A code block: the page it is on, the line of its fence, its language, its text, and the prose before it."""

    page: str
    line: int
    language: str
    text: str
    before: str

    @property
    def name(self) -> str:
        """The page and the text: a list of exceptions knows the block by how this begins."""
        return f"{self.page}: {self.text}"

    @property
    def where(self) -> str:
        """For a failure."""
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """The README, that of the examples, and the pages of ``docs/``, as paths in the repository."""
    found = [ROOT / "README.md", ROOT / "examples" / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
    return [str(path.relative_to(ROOT)) for path in found]


def blocks(page: str) -> list[Block]:
    """The code blocks of a page, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found, end = [], 0
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(page, line, match[1], match[2], text[end : match.start()]))
        end = match.end()
    return found


def said(expected: str, output: str) -> bool:
    """Whether ``output`` has the lines of ``expected``, in order.

    White space, ids, times and numbers may differ, ``...`` stands for anything, and there may be more lines between.
    """
    pattern = ".*".join(
        re.escape(_plain(line)).replace(r"\.\.\.", ".*") for line in expected.splitlines() if line.strip()
    )
    return re.search(pattern, _plain(output), re.DOTALL) is not None


def _plain(text: str) -> str:
    text = _TIME.sub("TIME", _ID.sub("ID", text.replace("\r", "")))
    return re.sub(r"\d+", "0", re.sub(r"\s+", "", text))


@attrs.define
class Reader:
    """Follows a page in a directory of its own: saves the files that it shows, and runs the commands.

    A YAML, Python or JSON block is saved under the last name of a file that the prose before it has, otherwise as
    ``cfg.yaml``, ``jobs.py`` or ``sample.json``. What serves until it is stopped runs in the background until the page
    starts the next server. ``ports`` are put in place of the ports that the page has.
    """

    directory: Path
    ports: Mapping[str, str]
    environment: Mapping[str, str]
    _port: int = attrs.field(init=False, factory=free_port)
    _target: int = attrs.field(init=False, factory=free_port)
    _server: subprocess.Popen[bytes] | None = attrs.field(init=False, default=None)
    _targets: list[subprocess.Popen[bytes]] = attrs.field(init=False, factory=list)
    printed: str = attrs.field(init=False, default="")

    def __attrs_post_init__(self) -> None:
        """Make what a clone has after its installation."""
        programs = self.directory / ".venv" / "bin"
        programs.mkdir(parents=True)
        for name in ("python", "twistd"):
            (programs / name).write_text(f'#!/bin/sh\nexec {Path(sys.executable).parent / name} "$@"\n')
        run = "import sys; from openhqm.command.main import run; sys.exit(run())"
        (programs / "openhqm").write_text(f'#!/bin/sh\nexec {sys.executable} -c "{run}" "$@"\n')
        for program in programs.iterdir():
            program.chmod(0o755)
        for folder in ("examples", "tests"):
            shutil.copytree(ROOT / folder, self.directory / folder, ignore=shutil.ignore_patterns("__pycache__"))
        for module, names in {"jobs": ("handle", "anything_else"), "pictures": ("resize",), "money": ("bill",)}.items():
            functions = [f"def {name}(work):\n    return work.payload\n" for name in names]
            (self.directory / f"{module}.py").write_text("\n\n".join(functions))

    def follow(self, block: Block) -> None:
        """Do what a reader does with the block. `AssertionError` where that fails."""
        if block.language in ("yaml", "python", "json"):
            named = _NAMED.search(block.before)
            usual = {"yaml": "cfg.yaml", "python": "jobs.py", "json": "sample.json"}[block.language]
            name = named[1] if named and Path(named[1]).suffix == Path(usual).suffix else usual
            (self.directory / name).write_text(self._placed(block.text))
        if block.language in ("", "json") and self.printed:
            assert said(self._placed(block.text), self.printed), f"{block.where}: it printed\n{self.printed}"
        self.printed = self._run(block) if block.language == "sh" else ""

    def close(self) -> None:
        """Stop everything that was started."""
        for process in (*self._targets, *([] if self._server is None else [self._server])):
            self._end(process, signal.SIGKILL)

    def _placed(self, text: str) -> str:
        ports = {r"(?<=:)8000\b": str(self._port), r"(?<=[: ])(?:8080|9000)\b": str(self._target), **self.ports}
        for port, mine in ports.items():
            text = re.sub(port, mine, text)
        return text

    def _run(self, block: Block) -> str:
        """Run the commands of the block, and return what they print; nothing for those that serve."""
        text = self._placed(block.text.rstrip())
        if "examples/target.py" in text or text == "python receiver.py":
            self._targets.append(self._start(["bash", "-c", text], self._target, block))
            return ""
        background = text.endswith("&")
        if background or _SERVES.search(text):
            if self._server is not None:
                self._end(self._server, signal.SIGTERM)
            self._server = self._start(["bash", "-c", f"{text}\nwait" if background else text], self._port, block)
            return ""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"{self._variables()}{text}\ndeclare -p ID > .variables || true"],
            cwd=self.directory,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"{block.where} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        # What the door refuses is an answer to curl, and no failure.
        refused = re.search(r'"title":"[^"]*","status":(?!409)', done.stdout)
        assert not refused, f"{block.where} was refused:\n{done.stdout}"
        return done.stdout

    def _variables(self) -> str:
        """The variable that an earlier block has set in the reader's shell."""
        path = self.directory / ".variables"
        return path.read_text() if path.exists() else ""

    def _environment(self) -> dict[str, str]:
        path = f"{self.directory / '.venv' / 'bin'}:{os.environ.get('PATH', '')}"
        return {
            "MQTT_PORT": str(free_port()),
            **{name: value for name, value in os.environ.items() if not name.startswith("OPENHQM_")},
            "PATH": path,
            "PYTHONPATH": str(ROOT),
            "OPENHQM_SERVER__PORT": str(self._port),
            "PORT": str(self._port),
            "TARGET_PORT": str(self._target),
            **self.environment,
        }

    def _start(self, command: list[str], port: int, block: Block) -> subprocess.Popen[bytes]:
        log = self.directory / f"log-{block.line}"
        with log.open("wb") as out:
            process = subprocess.Popen(
                command, cwd=self.directory, env=self._environment(), stdout=out, stderr=out, start_new_session=True
            )
        deadline = time.monotonic() + READY_SECONDS
        while not _answers(port):
            assert process.poll() is None and time.monotonic() < deadline, f"{block.where}: not up\n{log.read_text()}"
            time.sleep(0.05)  # asking again until the deadline
        # As a reader does, who sees in the log that it is ready. A target does not say so.
        while port == self._port and not _is_ready(port):
            assert process.poll() is None and time.monotonic() < deadline, (
                f"{block.where}: not ready\n{log.read_text()}"
            )
            time.sleep(0.05)  # asking again until the deadline
        return process

    def _end(self, process: subprocess.Popen[bytes], number: int) -> None:
        with suppress(ProcessLookupError):  # once none of its group is left
            deadline = time.monotonic() + 60
            os.killpg(process.pid, number)
            while time.monotonic() < deadline:
                process.poll()
                os.killpg(process.pid, 0)
                time.sleep(0.02)  # looking again until the deadline


def _is_ready(port: int) -> bool:
    # A server with TLS answers, whether or not it is to be trusted.
    untrusted = ssl._create_unverified_context()
    plain, prefixed = "/health/ready", f"{SIDECAR_PREFIX}/health/ready"
    for path, secure in ((plain, False), (prefixed, False), (plain, True)):
        connection = (
            HTTPSConnection("127.0.0.1", port, timeout=5, context=untrusted)
            if secure
            else HTTPConnection("127.0.0.1", port, timeout=5)
        )
        try:
            connection.request("GET", path)
            if connection.getresponse().status == 200:
                return True
        except (OSError, HTTPException):
            pass
        finally:
            connection.close()
    return False


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True
