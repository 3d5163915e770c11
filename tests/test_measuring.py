"""Measuring what tests reach, in a project written for it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.measuring import PLAIN, Measurement, is_measured_outside

CODE = """
def double(number):
    return 2 * number

def half(number):
    if number % 2:
        raise ValueError(number)
    return number // 2
"""
TESTS = """
import subprocess, sys
from twisted.trial.unittest import SynchronousTestCase
from code_of import numbers

class NumbersTests(SynchronousTestCase):
    def test_double(self):
        self.assertEqual(numbers.double(2), 4)

    def test_half(self):
        subprocess.run([sys.executable, "-c", "from code_of import numbers; numbers.half(2)"], check=True)
"""
SETTINGS = """
[tool.coverage.run]
source = ["code_of"]
parallel = true
patch = ["subprocess"]

[tool.coverage.report]
fail_under = 80
"""


class MeasurementTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Path(self.mktemp()).resolve()
        for name, text in (
            ("code_of/__init__.py", ""),
            ("code_of/numbers.py", CODE),
            ("test_numbers.py", TESTS),
            ("pyproject.toml", SETTINGS),
        ):
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_text(text)
        self.patch(os, "environ", {**os.environ, "PYTHONPATH": str(self.root)})
        os.environ.pop("COVERAGE_PROCESS_CONFIG", None)
        self.measurement = Measurement(self.root / "measured", self.root)

    def reach(self, *names: str) -> bool:
        """Whether those tests reach enough."""
        how = self.measurement.how(measured=True)
        subprocess.run(
            [*how.command, *names], cwd=self.root, env={**os.environ, **how.variables}, check=True, capture_output=True
        )
        return self.measurement.is_enough(1, 2)

    def test_enough(self) -> None:
        """What processes reach counts that the tests have started: seven of the eight lines."""
        self.assertTrue(self.reach("test_numbers"))

    def test_not_enough(self) -> None:
        """Below the share in pyproject.toml it is not enough."""
        self.assertFalse(self.reach("test_numbers.NumbersTests.test_double"))

    def test_nothing_measured(self) -> None:
        """Where nothing was written down, it is not enough."""
        self.assertFalse(self.measurement.is_enough(1, 2))

    def test_plain(self) -> None:
        """A module that is not measured runs without coverage, and so does every module where all are measured."""
        self.assertIs(self.measurement.how(measured=False), PLAIN)
        os.environ["COVERAGE_PROCESS_CONFIG"] = "as scripts/coverage.sh does"
        self.assertTrue(is_measured_outside())
        self.assertIs(self.measurement.how(measured=True), PLAIN)
        self.assertTrue(self.measurement.is_enough(1, 2))
