# -*- test-case-name: tests.config.test_handler_rules -*-
"""What answers the requests, and that a process does not answer them by mistake.

A worker without a handler could only answer a request with the request's own payload. That is good for a first look at
one process with its own file, and wrong everywhere else: a worker that was started without its configuration would
complete what the others should work on.
"""

from __future__ import annotations

from openhqm.config.model import Settings
from openhqm.config.products import Products, Reach


def echoes(settings: Settings) -> bool:
    """Whether nothing is configured that answers requests: no handler and no endpoint."""
    worker = settings.worker
    return worker.handler is None and not worker.handlers and not settings.proxy.names


def about_handlers(settings: Settings, products: Products) -> list[tuple[str, str]]:
    """What is wrong with a process that works on requests and has nothing that answers them."""
    server, worker = settings.server, settings.worker
    alone = server.enabled and server.workers == 1 and products[settings.queue.type].reach is not Reach.SHARED
    if not worker.enabled or alone or not echoes(settings):
        return []
    reason = (
        "is needed, or worker.handlers, or an endpoint with proxy.enabled: without them this process would answer the "
        "requests of others with their own payloads. Say echo if that is meant"
    )
    return [("worker.handler", reason)]
