"""Run every test and close with one line: ``N passed, N failed, N skipped``.

    python -m tests [names of modules, cases or tests]

With names, it runs them in one process of trial, and prints their output as it comes. Without names, it splits the
modules over processes: two for each core and one more, because many wait for a broker, and at most eight. ``TEST_JOBS``
sets another number. The output of a process appears when that process has ended, with the seconds of CPU that it and
what it started have used, and everything that failed is repeated at the end. A module with the line ``ALONE = True``
runs after all others, when no other tests run. At last the tests that failed beside others run once more alone, if they
are few: many wait for a real broker for some seconds, and a machine that other processes keep busy may take longer.
Those that pass then are named as unsteady. It also measures what the modules reach that take little time
(`tests.measuring`), and fails where that is too little. Temporary files are kept in memory where there is room: tests
kill processes and not the machine, so nothing is gained from a disk. The exit code is 0 where at least one test passed
and none failed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from tests.measuring import PLAIN, How, Measurement
from tests.splitting import MOST_AGAIN, Counts, bundle, count, failed_tests, find_failures, find_modules

JOBS_FOR_A_CORE, MOST_JOBS = 2, 8
MEMORY = "/dev/shm"
ROOM_BYTES = 8 << 30
"""How much of ``MEMORY`` has to be free. A whole run takes about two gigabytes."""


@dataclass(frozen=True)
class Ran:
    """What a process of trial printed, its exit code, and what it took: in seconds, and in seconds of CPU.

    The CPU is that of the process and of everything below it that has ended and was waited for.
    """

    output: str
    code: int
    seconds: float
    cpu_seconds: float

    def __str__(self) -> str:
        return f"{self.seconds:.1f} s, {self.cpu_seconds:.1f} s of CPU, exit code {self.code}"


def run_trial(names: Sequence[str], directory: str, how: How = PLAIN, *, show: bool = False) -> Ran:
    """Run one process of trial. ``show``: print each line as it comes."""
    command = [*how.command, "--temp-directory", directory, *names]
    environment = {**os.environ, **how.variables}
    lines = []
    begun = time.monotonic()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as trial:
        assert trial.stdout is not None
        for line in trial.stdout:
            lines.append(line)
            if show:
                print(line, end="", flush=True)
        _, status, used = os.wait4(trial.pid, 0)
        trial.returncode = os.waitstatus_to_exitcode(status)
    return Ran("".join(lines), trial.returncode, time.monotonic() - begun, used.ru_utime + used.ru_stime)


def run_named(names: Sequence[str], scratch: str) -> Counts:
    """Run these tests in one process."""
    ran = run_trial(names, os.path.join(scratch, "trial"), show=True)
    print(f"== {ran}")
    return count(ran.output, ran.code)


def run_all(scratch: str, jobs: int) -> Counts:
    """Run every module: ``jobs`` processes at a time, then those that need the machine alone, one process at a time.

    It fails where those that are measured do not reach enough.
    """
    modules = find_modules(Path(__file__).resolve().parent)
    started, cpu = time.monotonic(), _cpu_seconds()
    total = Counts()
    failures: list[str] = []
    again: list[tuple[list[str], Counts]] = []

    measurement = Measurement(Path(scratch) / "coverage")

    def run(number: int, names: list[str], measured: bool = False) -> Ran:
        return run_trial(names, os.path.join(scratch, f"trial-{number}"), measurement.how(measured))

    numbers = iter(range(len(modules)))
    for alone in (False, True):
        groups = bundle(one for one in modules if one.alone is alone)
        with ThreadPoolExecutor(1 if alone else jobs) as pool:
            running = {}
            for group in groups:
                names = [one.name for one in group]
                running[pool.submit(run, next(numbers), names, group[0].measured)] = names
            try:
                for done in as_completed(running):
                    ran = done.result()
                    counts = count(ran.output, ran.code)
                    total += counts
                    if counts.failed:
                        found = find_failures(ran.output)
                        failures += found or [f"{' '.join(running[done])}: exit code {ran.code} and no summary"]
                        if not alone:
                            again.append((failed_tests(found), counts))
                    print(f"{ran.output}== {' '.join(running[done])}: {ran}\n", flush=True)
            except BaseException:  # Ctrl-C, which the processes that run get, too
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    for failure in failures:
        print(f"{failure}\n")
    if all(names for names, _ in again) and sum(len(names) for names, _ in again) <= MOST_AGAIN:
        for names, counts in again:
            print(f"== once more, alone: {' '.join(names)}", flush=True)
            ran = run(next(numbers), names)
            print(ran.output)
            if not count(ran.output, ran.code).failed:
                print(f"== unsteady: {' '.join(names)}: failed beside other tests, and passed alone\n", flush=True)
                total += Counts(passed=len(names), failed=-counts.failed)
    if not measurement.is_enough(sum(one.measured for one in modules), len(modules)):
        print("fewer than have to be reached: the run has failed\n")
        total += Counts(failed=1)
    seconds = time.monotonic() - started
    print(f"{jobs} processes at a time, {seconds:.0f} s, {_cpu_seconds() - cpu:.0f} s of CPU on {os.cpu_count()} cores")
    return total


def _cpu_seconds() -> float:
    """What all processes have used that have ended and were waited for."""
    times = os.times()
    return times.children_user + times.children_system


def compile_once() -> None:
    """Compile what the tests start, hundreds of times. No process does it where ``PYTHONDONTWRITEBYTECODE`` is set."""
    root = Path(__file__).resolve().parent.parent
    command = [sys.executable, "-m", "compileall", "-q", "-j", "0", "openhqm", "tests", "twisted"]
    subprocess.run(command, cwd=root, stdout=subprocess.DEVNULL, check=False)


def in_memory() -> str | None:
    """A directory for temporary files that is no disk, where there is one with room, and programs in it can run."""
    try:
        room, flags = shutil.disk_usage(MEMORY).free, os.statvfs(MEMORY).f_flag
    except OSError:  # there is no such directory
        return None
    usable = room >= ROOM_BYTES and os.access(MEMORY, os.W_OK) and not flags & os.ST_NOEXEC
    return MEMORY if usable else None


def main(names: Sequence[str]) -> int:
    """The exit code: 0 where at least one test passed and none failed."""
    jobs = int(os.environ.get("TEST_JOBS") or min((os.cpu_count() or 1) * JOBS_FOR_A_CORE + 1, MOST_JOBS))
    with tempfile.TemporaryDirectory(prefix="openhqm-", dir=os.environ.get("TMPDIR") or in_memory()) as scratch:
        os.environ["TMPDIR"] = scratch
        compile_once()
        total = run_named(names, scratch) if names else run_all(scratch, jobs)
    print(total)
    return 0 if total.passed and not total.failed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
