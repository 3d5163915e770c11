"""The servers that are measured, and the load on them."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TWISTD = "import sys; from twisted.scripts.twistd import run; sys.argv[0] = 'twistd'; run()"
BODY = b'{"payload":{"operation":"process","data":{"a":1,"b":[1,2,3]}},"metadata":{"priority":"normal"}}'


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port: int, seconds: float = 30) -> float:
    """Wait until ``port`` is open, and return how many seconds that took."""
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return time.perf_counter() - started
        except OSError:
            time.sleep(0.01)
    raise TimeoutError(f"port {port} is not open")


@contextmanager
def process(
    command: list[str], port: int | None = None, root: Path = ROOT, **environment: str
) -> Iterator[subprocess.Popen]:
    """A process that is terminated at the end, of the checkout in ``root``."""
    running = subprocess.Popen(
        command,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        if port is not None:
            wait_for(port)
        yield running
    finally:
        running.terminate()
        try:
            running.wait(10)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


@contextmanager
def until_it_prints(command: list[str]) -> Iterator[None]:
    """A process that is ready when it has printed a line, and is killed at the end."""
    running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert running.stdout is not None
        assert running.stdout.readline(), "it ended before it printed a line"
        yield
    finally:
        running.kill()
        running.wait()
        running.stdout.close()


def most_files() -> int:
    """How many files a process may have open, once it has raised its limit."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def allow_many_files() -> None:
    """Raise the limit of open files to its hard limit, for this process and its children."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files(), most_files()))


@contextmanager
def openhqm(
    port: int | None, *arguments: str, directory: str | None = None, tls: bool = True, **settings: str
) -> Iterator[subprocess.Popen]:
    """OpenHQM with files of its own. ``port`` None: a worker. ``tls`` False: as without the extra of that name."""
    scratch = directory or tempfile.mkdtemp(prefix="openhqm-bench-", dir="/var/tmp")
    answered = "--config" in arguments or any("PROXY" in name for name in settings)
    environment = {
        **({} if answered else {"OPENHQM_WORKER__HANDLER": "echo"}),
        "OPENHQM_SERVER__PORT": str(port or 0),
        "OPENHQM_QUEUE__CONNECTION__SQLITE": json.dumps({"path": scratch}),
        "OPENHQM_MONITORING__LOG_LEVEL": "ERROR",
        **settings,
    }
    try:
        program = TWISTD if tls else f"import sys; sys.modules['OpenSSL'] = None; {TWISTD}"
        with process([sys.executable, "-c", program, "-n", "openhqm", *arguments], port, **environment) as running:
            yield running
    finally:
        if directory is None:
            shutil.rmtree(scratch)


def wrk(
    port: int,
    path: str,
    seconds: float,
    body: bytes | None = BODY,
    headers: dict[str, str] | None = None,
    callers: int = 64,
) -> float:
    """Good answers per second over so many connections."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        if body is not None:
            script.write('wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\n')
            script.write(f"wrk.body = [[{body.decode()}]]\n")
        for name, value in (headers or {}).items():
            script.write(f'wrk.headers["{name}"] = "{value}"\n')
        script.flush()
        command = [
            "wrk",
            "-t1",
            f"-c{callers}",
            f"-d{max(1, round(seconds))}s",
            "-s",
            script.name,
            f"http://127.0.0.1:{port}{path}",
        ]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)|Socket errors: .*", out)
    if bad:
        raise AssertionError(f"not all answers were good: {bad[0]}")
    found = re.search(r"Requests/sec:\s*([\d.]+)", out)
    assert found is not None, out
    return float(found[1])


def resident(pid: int) -> float:
    """The resident memory of a process in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


def submit(port: int, body: bytes = BODY) -> str:
    """Submit a request, wait until it has ended, and return its id."""
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("POST", "/api/v1/submit", body, {"Content-Type": "application/json", "Prefer": "wait=10"})
    return json.loads(connection.getresponse().read())["correlation_id"]


def printed(module: str, *arguments: str, **environment: str) -> float:
    """The number that a module prints."""
    command = [sys.executable, "-m", module, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return float(subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout)
