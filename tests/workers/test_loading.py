"""Importing handlers: at the start, and again while the process runs, from files that are good, bad and mended."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import attrs
from twisted.internet import reactor
from twisted.trial.unittest import SynchronousTestCase

from openhqm.config.model import Worker
from openhqm.errors import ConfigurationError
from openhqm.workers.executors import Executors
from openhqm.workers.loading import load_handlers

# Each kind of file from which a handler cannot be had, and what is said of it.
BAD_MODULES = {
    "no such file": (None, "cannot import {module}: ModuleNotFoundError"),
    "not Python": ("def handle(work)\n", "cannot import {module}: SyntaxError"),
    "not text": (b"\xff\xfe\x00", "cannot import {module}: "),
    "an import that fails": ("import nowhere_at_all\n", "cannot import {module}: ModuleNotFoundError"),
    "an error": ("raise RuntimeError('no database')\n", "cannot import {module}: RuntimeError: no database"),
    "sys.exit()": ("import sys; sys.exit(3)\n", "cannot import {module}: SystemExit: 3"),
    "what is no Exception": ("raise GeneratorExit\n", "cannot import {module}: GeneratorExit"),
    "an error at the name": ("def __getattr__(name): raise RuntimeError(name)\n", "cannot import {module}: "),
    "no such name": ("other = print\n", "{module} has no callable named handle"),
    "not callable": ("handle = 7\n", "{module} has no callable named handle"),
}


class LoadingTests(SynchronousTestCase):
    """`load_handlers`"""

    def setUp(self) -> None:
        self.executors = Executors(reactor, 1, 1000)
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(directory)
        self.patch(sys, "path", list(sys.path))
        self.patch(sys, "dont_write_bytecode", True)  # files of one second and one size look alike to Python
        self.addCleanup(self.forget, set(sys.modules))

    def forget(self, before: set[str]) -> None:
        for name in set(sys.modules) - before:
            del sys.modules[name]

    def complaints(self, worker: Worker, again: bool = True) -> list[str]:
        error: Any = self.assertRaises(ConfigurationError, load_handlers, worker, self.executors, again=again)
        return [str(each) for each in error.complaints]

    def handler(self, worker: Worker) -> Any:
        return load_handlers(attrs.evolve(worker, executor="reactor"), self.executors, again=True)._default

    def test_every_bad_module(self) -> None:
        """Whatever is wrong with it, it is a complaint with the key. Once the file is mended, it is imported."""
        for number, (kind, (content, expected)) in enumerate(BAD_MODULES.items()):
            module = f"openhqm_test_bad{number}"
            path = Path(f"{module}.py")
            if content is not None:
                path.write_bytes(content if isinstance(content, bytes) else content.encode())
            worker = Worker(handler=f"{module}:handle")
            for again in (False, True):
                (complaint,) = self.complaints(worker, again)
                self.assertIn(f"worker.handler: {expected.format(module=module)}", complaint, kind)
            path.write_text("def handle(work): return 'mended'\n")
            self.assertEqual(self.handler(worker)(None), "mended", kind)

    def test_mended_beside_it(self) -> None:
        """What a handler imports from the working directory is imported again, too, once that has been mended."""
        Path("openhqm_test_part.py").write_text("other = 1\n")
        Path("openhqm_test_whole.py").write_text("from openhqm_test_part import answer as handle\n")
        worker = Worker(handler="openhqm_test_whole:handle")
        self.assertIn("cannot import openhqm_test_whole: ImportError", self.complaints(worker)[0])
        Path("openhqm_test_part.py").write_text("def answer(work): return 'mended'\n")
        self.assertEqual(self.handler(worker)(None), "mended")

    def test_each_is_named(self) -> None:
        """Each handler that fails is named. A good one beside them is imported from its file the next time, too."""
        Path("openhqm_test_good.py").write_text("def handle(work): return 1\n")
        worker = Worker(handler="openhqm_test_good:handle", handlers={"a": "openhqm_test_no:a", "b": "json:nothing"})
        first, second = self.complaints(worker)
        self.assertIn("worker.handlers.a: cannot import openhqm_test_no", first)
        self.assertIn("worker.handlers.b: json has no callable named nothing", second)
        Path("openhqm_test_good.py").write_text("def handle(work): return 'new'\n")
        self.assertEqual(self.handler(Worker(handler="openhqm_test_good:handle"))(None), "new")

    def test_imported_before(self) -> None:
        """A module that runs is not imported again, whatever its file says now; the complaint names the way out."""
        path = Path("openhqm_test_runs.py")
        path.write_text("def handle(work): return 'old'\n")
        running = self.handler(Worker(handler="openhqm_test_runs:handle"))
        path.write_text("def handle(work): return 'new'\ndef other(work): return 'other'\n")
        self.assertEqual(self.handler(Worker(handler="openhqm_test_runs:handle"))(None), running(None))
        (complaint,) = self.complaints(Worker(handler="openhqm_test_runs:other"))
        self.assertIn("openhqm_test_runs has no callable named other, which this process imported before", complaint)
        self.assertIn("restart openhqm", complaint)
        self.assertEqual(self.handler(Worker(handler="openhqm_test_runs:handle"))(None), "old")

    def test_installed(self) -> None:
        """What is installed is not forgotten: some packages can be imported only once in a process."""
        Path("site-packages").mkdir()
        sys.path.insert(0, str(Path("site-packages").absolute()))
        Path("site-packages/openhqm_test_installed.py").write_text("")
        Path("openhqm_test_uses.py").write_text("import openhqm_test_installed\nraise RuntimeError\n")
        self.complaints(Worker(handler="openhqm_test_uses:handle"))
        self.assertIn("openhqm_test_installed", sys.modules)
        self.assertNotIn("openhqm_test_uses", sys.modules)

    def test_in_a_process(self) -> None:
        """A handler of a process is not imported here, and what is wrong with it is said all the same."""
        Path("openhqm_test_apart.py").write_text("print('noise')\ndef handle(work): return 1\n")
        Path("openhqm_test_ill.py").write_text("import os; os._exit(7)\n")
        load_handlers(Worker(handler="openhqm_test_apart:handle", executor="process"), self.executors)
        self.assertNotIn("openhqm_test_apart", sys.modules)
        for path, expected in (
            ("openhqm_test_apart:nothing", "openhqm_test_apart has no callable named nothing"),
            ("openhqm_test_no:handle", "cannot import openhqm_test_no: ModuleNotFoundError"),
            ("openhqm_test_ill:handle", "cannot be imported: the process that tried it ended with 7"),
        ):
            (complaint,) = self.complaints(Worker(handler=path, executor="process"), again=False)
            self.assertIn(f"worker.handler: {expected}", complaint)

    def test_executors(self) -> None:
        """An executor of a single handler that has no effect on its kind is refused."""
        Path("openhqm_test_kinds.py").write_text("async def a(work): return 1\ndef p(work): return 1\n")
        handlers = {"a": "openhqm_test_kinds:a", "p": "openhqm_test_kinds:p"}
        worker = Worker(handlers=handlers, executors={"a": "thread", "p": "asyncio"})
        first, second = self.complaints(worker)
        self.assertIn("worker.executors.a: has no effect: openhqm_test_kinds:a is an async def", first)
        self.assertIn("worker.executors.p: has no effect: openhqm_test_kinds:p is no async def", second)
        load_handlers(Worker(handlers=handlers, executors={"a": "asyncio", "p": "reactor"}), self.executors)
