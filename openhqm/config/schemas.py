# -*- test-case-name: tests.config.test_schemas -*-
"""The schemas of payloads: which are configured, and that each is for something."""

from __future__ import annotations

from typing import Any

from openhqm.policy.schemas import PayloadSchema, Schemas, compiled


def schemas_of(settings: Any) -> Schemas | None:
    """The schemas of the endpoints, routes, handler and operations of ``settings``; None: there are none."""
    worker = settings.worker
    endpoints = compiled({name: each.schema for name, each in settings.proxy.configured.items()})
    routes = compiled({route.name: route.schema for route in settings.routing.routes})
    handler = None if worker.schema is None else PayloadSchema(worker.schema)
    if not endpoints and not routes and not worker.schemas and handler is None:
        return None
    return Schemas(endpoints, routes, compiled(worker.schemas), handler)


def about_schemas(settings: Any) -> list[tuple[str, str]]:
    """Each schema that no request is checked by."""
    worker = settings.worker
    found = [
        (f"worker.schemas.{name}", "has no effect: worker.handlers has no such operation")
        for name in worker.schemas
        if name not in worker.handlers
    ]
    if worker.schema is not None and worker.handler is None:
        found.append(("worker.schema", "has no effect without worker.handler: worker.schemas is for worker.handlers"))
    return found
