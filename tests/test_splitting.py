"""Splitting the suite over processes: every module runs once, and every outcome is counted."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

import tests.hypothesis_profile  # noqa: F401
from tests.splitting import (
    MOST_LINES,
    SECONDS,
    Counts,
    Module,
    bundle,
    count,
    failed_tests,
    find_failures,
    find_modules,
)

ROOT = Path(__file__).resolve().parent

modules_in_folders = st.lists(
    st.builds(
        Module,
        st.builds("tests.{}.test_{}".format, st.sampled_from(["a", "b", "c"]), st.integers(0, 99)),
        st.integers(0, 90),
        measured=st.booleans(),
    ),
    unique_by=lambda module: module.name,
)


class FindModulesTests(SynchronousTestCase):
    """`find_modules`, on a package written for it and on this one"""

    def test_names(self) -> None:
        """Modules of tests are found in every folder; helper modules and packages are not."""
        root = Path(self.mktemp()) / "suite"
        for name in ("test_a.py", "helper.py", "__init__.py", "inner/__init__.py", "inner/test_b.py"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text("")
        found = [(module.name, module.seconds) for module in find_modules(root, {"suite.test_a": 7})]
        self.assertEqual(found, [("suite.inner.test_b", 1), ("suite.test_a", 7)])

    def test_alone(self) -> None:
        """The line ``ALONE = True`` at the top level asks for the machine; the same text elsewhere does not."""
        root = Path(self.mktemp()) / "suite"
        root.mkdir(parents=True)
        for name, text in (
            ("test_a.py", "import os\n\nALONE = True\n"),
            ("test_b.py", '"""Not ALONE = True"""\n'),
            ("test_c.py", "class A:\n    ALONE = True\n"),
        ):
            (root / name).write_text(text)
        self.assertEqual([module.alone for module in find_modules(root)], [True, False, False])

    def test_measured(self) -> None:
        """What a module reaches is measured where it has no row in the table of durations: those are cheap."""
        root = Path(self.mktemp()) / "suite"
        root.mkdir(parents=True)
        for name in ("test_a.py", "test_b.py"):
            (root / name).write_text("")
        self.assertEqual([module.measured for module in find_modules(root, {"suite.test_a": 7})], [False, True])

    def test_durations(self) -> None:
        """Every name in the table of durations is that of a module."""
        self.assertEqual(set(SECONDS) - {module.name for module in find_modules(ROOT)}, set())


class BundleTests(SynchronousTestCase):
    """`bundle`, for modules of three folders"""

    @given(modules_in_folders, st.integers(0, 90))
    def test_each_once(self, modules: list[Module], most: int) -> None:
        """Every module is in one group. A group is of one folder, measured or not, and within the limit unless it is
        one module."""
        groups = bundle(modules, most)
        self.assertEqual(
            sorted(module.name for group in groups for module in group), sorted(module.name for module in modules)
        )
        for group in groups:
            self.assertEqual(len({(module.name.split(".")[1], module.measured) for module in group}), 1)
            self.assertTrue(len(group) == 1 or sum(module.seconds for module in group) <= most)

    @given(modules_in_folders)
    def test_longest_first(self, modules: list[Module]) -> None:
        """No group takes longer than the one before it."""
        seconds = [sum(module.seconds for module in group) for group in bundle(modules)]
        self.assertEqual(seconds, sorted(seconds, reverse=True))

    def test_short_modules_share_a_process(self) -> None:
        """Starting a process for each of a hundred short modules would take longer than the tests in them."""
        modules = [Module(f"tests.a.test_{number}", 1) for number in range(100)]
        self.assertEqual([len(group) for group in bundle(modules, 50)], [50, 50])


class CountTests(SynchronousTestCase):
    """`count`, on the last lines of trial"""

    def test_summaries(self) -> None:
        """Each kind of outcome that trial names counts as passed, failed or skipped."""
        for line, code, expected in (
            ("PASSED (successes=3)", 0, Counts(3, 0, 0)),
            ("PASSED (skips=2)", 0, Counts(0, 0, 2)),
            ("PASSED (skips=1, expectedFailures=2, successes=3)", 0, Counts(5, 0, 1)),
            ("FAILED (failures=1, errors=2, unexpectedSuccesses=4, successes=3)", 1, Counts(3, 7, 0)),
        ):
            self.assertEqual(count(f"test_a ... [OK]\nPASSED of a test's own output\n\n{line}\n", code), expected)

    def test_killed(self) -> None:
        """A process that ended without a summary, or with a failing code and no failure, counts as one failure."""
        self.assertEqual(count("test_a ... ", -9), Counts(0, 1, 0))
        self.assertEqual(count("PASSED (successes=3)\n", 1), Counts(3, 1, 0))

    def test_sum(self) -> None:
        """The closing line is the sum, in the form that CI reads."""
        self.assertEqual(str(Counts(3, 0, 1) + Counts(4, 2, 0)), "7 passed, 2 failed, 1 skipped")

    def test_failures(self) -> None:
        """Whatever trial prints about failures is found, with the names of the tests, and nothing of what passed."""
        line = "=" * 79
        long = "".join(f"  frame {number}\n" for number in range(MOST_LINES))
        output = (
            f"test_a ... [OK]\ntest_b ... [FAIL]\n\n{line}\n[FAIL]\nTraceback\n{long}\n"
            "tests.a.A.test_b\ntests.a.A.test_c\n"
            f"{line}\n[ERROR]\nTraceback\nValueError: 3\n\ntests.a.A.test_d\n{'-' * 79}\nRan 4 tests in 1.0s\n\n"
            "FAILED (failures=2, errors=1, successes=1)\n"
        )
        first, second = find_failures(output)
        self.assertTrue(first.endswith(f"frame {MOST_LINES - 1}\n\ntests.a.A.test_b\ntests.a.A.test_c"), first)
        self.assertEqual(len(first.splitlines()), MOST_LINES)
        self.assertEqual(second, "[ERROR]\nTraceback\nValueError: 3\n\ntests.a.A.test_d")
        self.assertEqual(find_failures("test_a ... [OK]\n\nPASSED (successes=1)\n"), [])

    def test_failed(self) -> None:
        """The tests of all failures, each once; where a failure is of no test, none, for all would not be run again."""
        first = "[FAIL]\nTraceback\n  tests.a.not_this in a line\n\ntests.a.test_a.A.test_b\ntests.a.test_a.A.test_c"
        second = "[ERROR]\nValueError: 3\n\ntests.test_d.D.test_d\ntests.a.test_a.A.test_b"
        expected = ["tests.a.test_a.A.test_b", "tests.a.test_a.A.test_c", "tests.test_d.D.test_d"]
        self.assertEqual(failed_tests([first, second]), expected)
        self.assertEqual(failed_tests([first, "[ERROR]\nSyntaxError\n\nsomething else"]), [])
        self.assertEqual(failed_tests([]), [])
