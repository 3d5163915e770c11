"""The order of the layers: who may know whom."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import openhqm

ROOT = Path(openhqm.__file__).parent
# A module imports from its own package and from the rows above it; two in one row do not know each other.
LAYERS = (
    ("openhqm",),  # its version, and nothing else
    ("errors",),
    ("messages",),
    ("interfaces",),
    ("runtime",),
    ("http1",),
    ("policy",),
    ("codec",),
    ("config",),
    ("queue",),
    ("memory", "sqlite", "redis"),
    ("brokered",),
    ("pulled",),
    ("rabbitmq", "mqtt", "kafka", "pubsub", "sqs", "custom"),
    ("event_hubs",),
    ("storeless",),
    ("backends",),
    ("delivery",),
    ("workers", "bridges"),
    ("fleet",),
    ("ingress",),
    ("dry_run", "check_report", "announcing", "draining"),
    ("options", "applied", "sockets"),
    ("service",),
    ("plugin", "command"),
)
RANK = {package: rank for rank, row in enumerate(LAYERS) for package in row}
VOCABULARY = {"openhqm", "errors", "messages", "interfaces"}
MOST_LINES = 400


def modules() -> dict[str, ast.Module]:
    """Every module of the package by its dotted name below ``openhqm``."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "openhqm"
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imported(tree: ast.AST) -> Iterator[str]:
    """The dotted names that are imported anywhere in it, also inside functions and under conditions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, "a relative import hides where it leads"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def packages(tree: ast.AST) -> set[str]:
    """Which parts of ours are imported, by the names in `LAYERS`."""
    ours = [name.split(".") for name in imported(tree) if name.split(".")[0] == "openhqm"]
    known = {*RANK, "testing"}
    return {parts[1] if len(parts) > 1 and parts[1] in known else "openhqm" for parts in ours}


class LayersTests(SynchronousTestCase):
    """The modules of ``openhqm``, as they are written"""

    def test_every_module_has_its_place(self) -> None:
        """A new package is given a row before it is given imports."""
        self.assertEqual({name.split(".")[0] for name in modules()} - {"testing"}, set(RANK))

    def test_only_upwards(self) -> None:
        """No module imports from a layer below its own, or from a neighbour in its row."""
        for name, tree in modules().items():
            own = name.split(".")[0]
            if own == "testing":
                continue
            for other in packages(tree) - {own}:
                self.assertIn(other, RANK, f"{name} imports {other}, which is for tests")
                self.assertLess(RANK[other], RANK[own], f"{name} imports {other}")

    def test_the_contracts(self) -> None:
        """The suite for those who write a backend knows the vocabulary, and no backend."""
        self.assertEqual(packages(modules()["testing"]) - VOCABULARY - {"testing"}, set())

    def test_two_halves(self) -> None:
        """The door and the workers know each other only through a queue; one module knows both."""
        for name, tree in modules().items():
            if name != "service":
                self.assertNotEqual(
                    {name.split(".")[0], *packages(tree)} & {"ingress", "workers"}, {"ingress", "workers"}, name
                )

    def test_one_reactor(self) -> None:
        """The reactor is imported in ``makeService`` and nowhere else; everything else gets it as an argument."""
        found = []
        for name, tree in modules().items():
            for function in ast.walk(tree):
                if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) and reactors(function):
                    found.append(f"{name}.{function.name}")
            self.assertEqual(reactors(tree), sum(entry.startswith(f"{name}.") for entry in found), name)
        self.assertEqual(found, ["service.makeService"])

    def test_size(self) -> None:
        """A module that outgrows 400 lines holds more than one idea."""
        for path in ROOT.rglob("*.py"):
            self.assertLessEqual(len(path.read_text(encoding="utf-8").splitlines()), MOST_LINES, path.name)

    def test_where_it_is_tested(self) -> None:
        """Every module names what tests it, and that exists."""
        root = ROOT.parent
        for path in ROOT.rglob("*.py"):
            if path.name != "__init__.py":
                first = path.read_text(encoding="utf-8").partition("\n")[0]
                named = re.fullmatch(r"# -\*- test-case-name: ([\w.,]+) -\*-", first)
                self.assertIsNotNone(named, path)
                assert named is not None
                for name in named[1].split(","):
                    place = root.joinpath(*name.split("."))
                    self.assertTrue(place.with_suffix(".py").is_file() or place.is_dir(), f"{path}: {name}")

    def test_it_begins_with_a_sentence(self) -> None:
        """Every module says what it is for."""
        for name, tree in modules().items():
            self.assertTrue(ast.get_docstring(tree), name)


def reactors(tree: ast.AST) -> int:
    """How often the reactor is imported in it."""
    return sum(name.startswith("twisted.internet.reactor") for name in imported(tree))
