# -*- test-case-name: tests.workers.test_loading,tests.test_service -*-
"""Imports the configured handlers, when the process starts and when its configuration changes."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from openhqm.config.model import Worker
from openhqm.config.validators import ECHO
from openhqm.errors import Complaint, ConfigurationError
from openhqm.runtime.dotted import load_callable
from openhqm.workers.executors import Executors, is_async
from openhqm.workers.handlers import Handler, Handlers, echo
from openhqm.workers.processes import check_importable


def load_handlers(worker: Worker, executors: Executors, *, again: bool = False) -> Handlers:
    """Import the configured handlers, also from the working directory. `ConfigurationError` names each that fails.

    ``executors`` say where each runs: those of processes are not imported here, and only tried in a process.

    ``again``: the process runs already. A module that was imported before is not imported again, because code that runs
    refers to it; and `about_processes` is asked at every reload, not here. Where a handler fails, what was imported for
    these handlers is forgotten, so that it is imported from its file once the operator has mended that.
    """
    importlib.invalidate_caches()  # a file may be newer than the last look into its directory
    before = set(sys.modules)
    configured = worker.executor_of
    complaints: list[Complaint] = []
    loaded: dict[str, Handler] = {}
    in_processes = handlers_in_processes(worker)
    for key, (path, executor) in configured.items():
        if path == ECHO:
            loaded[key] = echo
        elif key in in_processes:
            loaded[key] = executors.in_process(path)
        else:
            try:
                handler = load_callable(path)
            except ValueError as error:
                module = path.partition(":")[0]
                known = ", which this process imported before: restart openhqm to have it imported again"
                complaints.append(Complaint(key, f"{error}{known if again and module in before else ''}"))
            else:
                complaints += _about_executor(worker, key, handler)
                loaded[key] = executors.bind(path, handler, executor)
    complaints += [] if again else about_processes(in_processes)
    if complaints:
        _forget(before, {path.partition(":")[0] for path, _ in configured.values()})
        raise ConfigurationError(complaints)
    default = loaded.pop("worker.handler", None)
    return Handlers(default, {key.removeprefix("worker.handlers."): handler for key, handler in loaded.items()})


def handlers_in_processes(worker: Worker) -> dict[str, str]:
    """The handlers that run in processes, by their keys."""
    found = worker.executor_of.items()
    return {key: path for key, (path, executor) in found if path != ECHO and executor == "process"}


def about_processes(handlers: Mapping[str, str]) -> list[Complaint]:
    """What is wrong with these `handlers_in_processes`, as they are in their files now."""
    wrong = check_importable(sorted(set(handlers.values()))) if handlers else {}
    return [Complaint(key, wrong[path]) for key, path in handlers.items() if path in wrong]


def _about_executor(worker: Worker, key: str, handler: Handler) -> list[Complaint]:
    """What is wrong with an executor that one handler has for itself, and that has no effect on its kind."""
    operation = key.removeprefix("worker.handlers.")
    executor = worker.executors.get(operation) if operation != key else None
    if executor == "thread" and is_async(handler):
        reason = f"has no effect: {worker.handlers[operation]} is an async def. Say reactor, asyncio or process"
    elif executor == "asyncio" and not is_async(handler):
        reason = f"has no effect: {worker.handlers[operation]} is no async def. Say thread, reactor or process"
    else:
        return []
    return [Complaint(f"worker.executors.{operation}", reason)]


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
