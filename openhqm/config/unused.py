# -*- test-case-name: tests.config.test_unused -*-
"""Settings without effect: an operator who writes one means something by it, so each is refused with the cure.

A setting that says what holds anyway (its default) may stand. So may a section that says ``enabled: false`` itself,
which is switched off on purpose, and whole sections of ``queue.connection`` for products that are not used: files that
several installations share have them. ``server`` and ``worker`` may stand for the other role.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import attrs

from openhqm.config.endpoints import CALLERS
from openhqm.config.model import Settings, Worker, short_forms
from openhqm.config.products import Kind, Product, Products, Reach
from openhqm.config.structure import Text
from openhqm.config.validators import ECHO

Found = Iterator[tuple[str, str]]


def unused(
    settings: Settings, products: Products, document: Mapping[str, Any], variables: Collection[tuple[str, ...]]
) -> list[tuple[str, str]]:
    """Each key that has no effect in ``settings``, with the reason.

    ``document`` is what the settings were made from, and ``variables`` the keys in it that are from the environment.
    """
    used = _used(settings, products)
    return [
        *_of_other_products(settings, products, used, variables),
        *_of_the_store(settings, products),
        *_switched_off(settings, document),
        *_of_the_door(settings),
        *_of_callbacks(settings),
        *_of_rate_limits(settings),
        *_of_the_admin_listener(settings),
        *_of_endpoints(settings),
        *_of_routes(settings),
        *_of_the_worker(settings),
        *_of_retries(settings.worker),
        *_of_executors(settings),
        *_of_brokers(settings),
    ]


def _used(settings: Settings, products: Products) -> list[Product]:
    """The products whose connection is used: where the queue is, and where the store beside a broker is."""
    product = products[settings.queue.type]
    if product.kind is Kind.BACKEND:
        return [product]
    return [product, _store(settings, products)]


def _store(settings: Settings, products: Products) -> Product:
    return products.record_keepers[0] if settings.cache.type is None else products[settings.cache.type]


def _of_other_products(
    settings: Settings, products: Products, used: Collection[Product], variables: Collection[tuple[str, ...]]
) -> Found:
    for row in products.rows:
        if row in used or row.settings is None:
            continue
        types = f"queue.type is {settings.queue.type}"
        if row.keeps_records and products[settings.queue.type].kind is not Kind.BACKEND:
            types += f" and cache.type {_store(settings, products).name}"
        reason = f"has no effect, because {types}: leave it out, or set the type to {row.name}"
        for short in short_forms(row.settings):
            if getattr(settings.queue, short) is not None:
                yield f"queue.{short}", reason
        for key in variables:
            if key[:3] == ("queue", "connection", row.name) and len(key) > 3:
                yield ".".join(key), reason


def _of_the_store(settings: Settings, products: Products) -> Found:
    """What only counts where a store is shared, and what the store has from ``cache`` instead."""
    product = products[settings.queue.type]
    if product.kind is not Kind.BROKER:
        return
    store = _store(settings, products)
    if product.settings is not None and store.reach is not Reach.SHARED:
        ours: Any = settings.queue.of(product.settings)
        if "lost_after_seconds" in _changed(ours):
            key = settings.queue.key(product.settings, "lost_after_seconds")
            shared = " or ".join(row.name for row in products.record_keepers if row.reach is Reach.SHARED)
            yield key, f"has no effect without cache.type: {shared}: leave it out"
    if store.settings is not None:
        for short in short_forms(store.settings):
            if getattr(settings.cache, short) is not None and getattr(settings.queue, short) is not None:
                reason = f"has no effect, because {store.name} holds the results only, and cache.{short} says where"
                yield f"queue.{short}", f"{reason}: leave it out"


def _switched_off(settings: Settings, document: Mapping[str, Any]) -> Found:
    """The keys of a section beside its ``enabled``, which is false."""
    proxy = settings.proxy
    forwarding = {"sidecar"} if not proxy.sidecar.enabled else {"sidecar", *_FORWARDING}
    for path, section, elsewhere in (
        (("proxy",), proxy, forwarding),
        (("proxy", "sidecar"), proxy.sidecar, set()),
        (("proxy", "caller_targets"), proxy.caller_targets, set()),
        (("partitioning",), settings.partitioning, set()),
    ):
        if section.enabled or _is_said(document, (*path, "enabled")):
            continue
        for name in _changed(section):
            if name not in elsewhere and not (name == "caller_targets" and not proxy.caller_targets.enabled):
                switch = ".".join((*path, "enabled"))
                cure = f"set that to true, or to false where {path[-1]} is to stay unused"
                yield ".".join((*path, name)), f"has no effect without {switch}: {cure}"


_FORWARDING = {"forward_headers", "strip_headers", "max_response_bytes"}


def _of_the_door(settings: Settings) -> Found:
    if settings.server.endpoints:
        for name in _changed(settings.server):
            if name in ("host", "port"):
                yield f"server.{name}", "has no effect beside server.endpoints, which say where to listen: leave it out"


def _of_callbacks(settings: Settings) -> Found:
    if settings.callbacks.enabled and not settings.callbacks.secrets:
        for name in set(_changed(settings.callbacks)) - {"channels"}:
            reason = "has no effect, because callbacks are signed, and callbacks.secrets is empty"
            yield f"callbacks.{name}", f"{reason}: name a secret, or leave it out"


def _of_rate_limits(settings: Settings) -> Found:
    if settings.rate_limit.requests is None:
        for name in _changed(settings.rate_limit):
            yield f"rate_limit.{name}", "has no effect without rate_limit.requests: set that, or leave this out"


def _of_the_admin_listener(settings: Settings) -> Found:
    if settings.admin.enabled and settings.admin.port is None:
        for name in _changed(settings.admin):
            yield (
                f"admin.{name}",
                "has no effect without admin.port, where the admin listener is: set it, or leave this out",
            )


def _of_endpoints(settings: Settings) -> Found:
    proxy = settings.proxy
    for name, endpoint in proxy.endpoints.items():
        for key, reason in endpoint.unused():
            yield f"proxy.endpoints.{name}.{key}", reason
    if proxy.enabled and proxy.default_endpoint in proxy.endpoints and settings.worker.handler is not None:
        reason = "has no effect, because worker.handler takes every request that names no endpoint and has no route"
        yield "proxy.default_endpoint", f"{reason}: leave one of them out"
    routes = settings.routing.routes
    if routes and not proxy.names and all(route.endpoint is None for route in routes):
        reason = "have no effect without an endpoint: set proxy.enabled and proxy.endpoints, or leave them out"
        yield "routing.routes", reason


def _of_routes(settings: Settings) -> Found:
    for index, route in enumerate(settings.routing.routes):
        endpoint = settings.proxy.endpoints.get(route.endpoint or "")
        if endpoint is not None and route.timeout is not None and route.timeout > endpoint.timeout:
            reason = f"has no effect, because the timeout of {route.endpoint} is {endpoint.timeout:g} s: raise that"
            yield f"routing.routes.{index}.timeout", reason


def _of_the_worker(settings: Settings) -> Found:
    worker, names = settings.worker, settings.proxy.names
    answers = worker.handler is not None or worker.handlers or not names or settings.reply_brokers
    if "timeout_seconds" in _changed(worker) and not answers and CALLERS not in names:
        reason = "has no effect, because no handler runs here: set timeout of each endpoint"
        if settings.proxy.sidecar.enabled:
            reason += ", and proxy.sidecar.timeout"
        yield "worker.timeout_seconds", reason


def _of_retries(worker: Worker) -> Found:
    """What shapes the pauses between attempts, where there is no other attempt, or no pause."""
    changed = _changed(worker.retry)
    if worker.max_retries == 0:
        for name in changed:
            yield f"worker.retry.{name}", "has no effect with worker.max_retries: 0: leave it out, or allow retries"
        return
    if worker.retry.base_seconds == 0 or worker.retry.max_seconds == 0:
        none = "base_seconds" if worker.retry.base_seconds == 0 else "max_seconds"
        for name in changed:
            if name != none:
                yield f"worker.retry.{name}", f"has no effect, because {none} is 0, so there is no pause: leave it out"
    elif "base_seconds" in changed and worker.retry.base_seconds > worker.retry.max_seconds:
        yield "worker.retry.base_seconds", "has no effect, because worker.retry.max_seconds is less: raise that"


def _of_executors(settings: Settings) -> Found:
    worker = settings.worker
    for operation in worker.executors:
        if operation not in worker.handlers:
            yield f"worker.executors.{operation}", f"has no effect, because worker.handlers has no {operation}"
    if worker.executor is not None and not {worker.handler, *worker.handlers.values()} - {None, ECHO}:
        yield (
            "worker.executor",
            "has no effect without a handler: set worker.handler or worker.handlers, or leave it out",
        )


def _of_brokers(settings: Settings) -> Found:
    published = any(endpoint.publish is not None for endpoint in settings.proxy.endpoints.values())
    if settings.brokers and not settings.bridges and not published and not settings.callbacks.reply_topics:
        yield (
            "brokers",
            "has no effect, because no bridge, no endpoint and no callbacks.channels uses one: leave it out",
        )


def _changed(section: Any) -> list[str]:
    """The names of the fields that differ from their defaults."""
    default = type(section)()
    names = [field.name for field in attrs.fields(type(section))]
    return [name for name in names if getattr(section, name) != getattr(default, name)]


def _is_said(document: Mapping[str, Any], path: tuple[str, ...]) -> bool:
    value: Any = document
    for part in path:
        if isinstance(value, Text):  # a section as JSON, which was sound
            value = json.loads(value)
        if not isinstance(value, Mapping) or part not in value:
            return False
        value = value[part]
    return True
