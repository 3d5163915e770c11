# -*- test-case-name: tests.workers.test_loading,tests.test_service -*-
"""Imports the configured handlers, when the process starts and when its configuration changes."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Collection
from pathlib import Path
from types import ModuleType
from typing import Any

from openhqm.config.model import Worker
from openhqm.errors import Complaint, ConfigurationError
from openhqm.workers.handlers import Handler, Handlers, RunBlocking, load_handler


def load_handlers(
    worker: Worker, run_blocking: RunBlocking | None, *, again: bool = False, fallback: Handler | None = None
) -> Handlers:
    """Import the configured handlers, also from the working directory. `ConfigurationError` names each that fails.

    ``fallback`` is the default handler where none is configured.

    ``again``: the process runs already. Then a module that was imported before is not imported again: code that runs
    refers to it. Where a handler fails, what was imported for these handlers is forgotten, so that it is imported from
    its file once the operator has mended that.
    """
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    importlib.invalidate_caches()  # a file may be newer than the last look into its directory
    before = set(sys.modules)
    complaints: list[Complaint] = []

    def loaded(key: str, path: str) -> Handler | None:
        try:
            return load_handler(path)
        except ValueError as error:
            module = path.partition(":")[0]
            known = ", which this process imported before: restart openhqm to have it imported again"
            complaints.append(Complaint(key, f"{error}{known if again and module in before else ''}"))
            return None

    default = loaded("worker.handler", worker.handler) if worker.handler is not None else fallback
    by_operation = {
        operation: handler
        for operation, path in worker.handlers.items()
        if (handler := loaded(f"worker.handlers.{operation}", path)) is not None
    }
    if complaints:
        paths = [*worker.handlers.values(), *([] if worker.handler is None else [worker.handler])]
        _forget(before, {path.partition(":")[0] for path in paths})
        raise ConfigurationError(complaints)
    return Handlers(default, by_operation, run_blocking)


def _forget(before: Collection[str], handlers: Collection[str]) -> None:
    """Forget the modules of ``handlers``, and those in the working directory, that were not there ``before``.

    Installed packages stay: some of them can be imported only once.
    """
    for name, module in list(sys.modules.items()):
        if name not in before and (name in handlers or _is_in_working_directory(module)):
            del sys.modules[name]


def _is_in_working_directory(module: ModuleType) -> bool:
    file: Any = getattr(module, "__file__", None)
    if not isinstance(file, str):
        return False
    path = Path(file)
    return path.is_relative_to(Path.cwd()) and "site-packages" not in path.parts
