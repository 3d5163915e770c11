# -*- test-case-name: tests.config.test_handler_rules -*-
"""What answers the requests, and that a process does not answer them by mistake.

A worker without a handler could only answer a request with the request's own payload. That is good for a first look,
where nothing at all is configured, and wrong everywhere else: a worker that was started without its configuration, or
with a mistake in it, would complete what it should have worked on.
"""

from __future__ import annotations

import os

from attrs import evolve

from openhqm.config.model import Settings
from openhqm.config.validators import ECHO

FIRST_LOOK = (
    "nothing is configured (no file, no OPENHQM_ variable): each request is answered with its own payload. "
    "Set worker.handler to have it answered by your code"
)
"""What the log says first where `for_a_first_look` applies."""


def for_a_first_look(settings: Settings) -> Settings:
    """The settings of a process for which nothing at all is configured: it echoes."""
    return evolve(settings, worker=evolve(settings.worker, handler=ECHO))


def about_handlers(settings: Settings) -> list[tuple[str, str]]:
    """What is wrong with a process that works on requests and has nothing that answers them."""
    worker = settings.worker
    if not worker.enabled or worker.handler is not None or worker.handlers or settings.proxy.names:
        return []
    reason = (
        "is needed, or worker.handlers, or an endpoint with proxy.enabled: nothing answers the requests. Say echo to "
        "have them answered with their own payloads"
    )
    return [("worker.handler", reason)]


def about_watching(settings: Settings, directory: str) -> list[tuple[str, str]]:
    """What is wrong with reading the files in ``directory`` again whenever one changes (``--watch``)."""
    if not os.path.isdir(directory):
        return [(f"--watch {directory}", "is no directory")]
    if settings.server.workers > 1 or not settings.worker.enabled:
        return []
    reason = "is imported by this process, which imports no module again, so that --watch would have no effect: set "
    reason += "worker.executor: process"
    found = settings.worker.executor_of.items()
    return [(key, f"{path} {reason}") for key, (path, executor) in found if path != ECHO and executor != "process"]
