"""A callable by its dotted path."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from openhqm.runtime.dotted import load_callable, one_line


class LoadCallableTests(SynchronousTestCase):
    """`load_callable`"""

    def test_found(self) -> None:
        """A function of a module, or what is called of a class in it."""
        self.assertIs(load_callable("json:dumps"), json.dumps)
        self.assertEqual(load_callable("pathlib:Path.cwd")(), Path.cwd())

    def test_not_found(self) -> None:
        """A module that is not there, a name that is not in it, and what cannot be called, each named."""
        for path, words in (
            ("nowhere_at_all:make", "cannot import nowhere_at_all: ModuleNotFoundError"),
            ("json:nothing", "json has no callable named nothing"),
            ("json:dumps.nothing", "json has no callable named dumps.nothing"),
            ("json:__name__", "json has no callable named __name__"),
        ):
            error: Any = self.assertRaises(ValueError, load_callable, path)
            self.assertIn(words, str(error))

    def test_working_directory(self) -> None:
        """A module in the working directory is found, from wherever the program that runs was started."""
        (Path.cwd() / "openhqm_test_beside.py").write_text("def make():\n    return 17\n")
        self.addCleanup((Path.cwd() / "openhqm_test_beside.py").unlink)
        self.patch(sys, "path", [path for path in sys.path if path not in ("", str(Path.cwd()))])
        self.assertEqual(load_callable("openhqm_test_beside:make")(), 17)

    def test_a_module_that_breaks(self) -> None:
        """What a module raises while it is imported is told on one line, with the module's name."""
        directory = Path(self.mktemp())
        directory.mkdir()
        (directory / "openhqm_test_breaks.py").write_text("raise RuntimeError('one\\ntwo')")
        self.patch(sys, "path", [str(directory), *sys.path])
        error: Any = self.assertRaises(ValueError, load_callable, "openhqm_test_breaks:make")
        self.assertIn("cannot import openhqm_test_breaks: RuntimeError: one two", str(error))

    def test_where_it_breaks(self) -> None:
        """The file and the line are told, also where the module ends the process, or imports what is not there."""
        directory = Path(self.mktemp())
        directory.mkdir()
        self.patch(sys, "path", [str(directory), *sys.path])
        for number, (text, error) in enumerate(
            (("import sys\nsys.exit(3)\n", "SystemExit: 3"), ("\nimport nowhere_at_all\n", "No module named"))
        ):
            path = directory / f"openhqm_test_place_{number}.py"
            path.write_text(text)
            raised: Any = self.assertRaises(ValueError, load_callable, f"{path.stem}:make")
            self.assertIn(error, str(raised))
            self.assertIn(f"{path}, line 2)", str(raised))
        self.assertNotIn("line", str(self.assertRaises(ValueError, load_callable, "nowhere_at_all:make")))

    def test_any_callable(self) -> None:
        """A class is as good as a function."""
        module = ModuleType("openhqm_test_made")
        module.Maker = type("Maker", (), {})  # type: ignore[attr-defined]
        with mock.patch.dict(sys.modules, {"openhqm_test_made": module}):
            self.assertIs(load_callable("openhqm_test_made:Maker"), module.Maker)


class OneLineTests(SynchronousTestCase):
    """`one_line`"""

    def test_nothing_said(self) -> None:
        """An error without a message has its type at least."""
        self.assertEqual(one_line(KeyError()), "KeyError:")
