"""What the tests reach in `openhqm`: measured in the run of all tests, on the modules that are cheap to measure.

Before Python 3.14 a trace function doubles what is measured, so the modules that take long are not: most of them wait
for real brokers, or kill processes, which write nothing down any more. What is reached is at least what is reported.
``scripts/coverage.sh`` measures all of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COVERAGE = (sys.executable, "-m", "coverage")
TRIAL = ("-m", "twisted.trial")


@dataclass(frozen=True)
class How:
    """How the command line of trial begins, and what its environment has in addition."""

    command: Sequence[str]
    variables: Mapping[str, str]


PLAIN = How((sys.executable, *TRIAL), {})


def is_measured_outside() -> bool:
    """Whether this process itself is measured, and all that it starts: ``patch = ["subprocess"]`` has said so."""
    return "COVERAGE_PROCESS_CONFIG" in os.environ


class Measurement:
    """The measurement of one run, which writes into ``directory``. ``root`` has the pyproject.toml."""

    def __init__(self, directory: Path, root: Path = ROOT) -> None:
        directory.mkdir()
        self._root = root
        self._variables = {"COVERAGE_FILE": str(directory / "data")}

    def how(self, measured: bool) -> How:
        """How modules are run that are ``measured``, or not."""
        if not measured or is_measured_outside():
            return PLAIN
        return How((*COVERAGE, "run", *TRIAL), self._variables)

    def is_enough(self, measured: int, modules: int) -> bool:
        """Print what was reached by so many of all modules. Whether it is the share in pyproject.toml."""
        if is_measured_outside():
            return True
        print(f"== what {measured} of the {modules} modules of tests reach; the others are not measured", flush=True)
        return self._coverage("combine", "--quiet") and self._coverage("report")

    def _coverage(self, *arguments: str) -> bool:
        environment = {**os.environ, **self._variables}
        return subprocess.run([*COVERAGE, *arguments], cwd=self._root, env=environment, check=False).returncode == 0
