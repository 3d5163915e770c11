# -*- test-case-name: tests.config.test_config -*-
"""What each key allows, and all of them together do not."""

from __future__ import annotations

import ipaddress
import re

from openhqm.config.auth_rules import about_tls, about_who_may
from openhqm.config.bridge_rules import about_bridges
from openhqm.config.endpoints import CALLERS, Proxy
from openhqm.config.model import Settings
from openhqm.config.products import Products
from openhqm.config.queue_rules import about_the_queue
from openhqm.config.schemas import about_schemas
from openhqm.config.tenant_rules import about_tenants
from openhqm.config.validators import has_tls
from openhqm.errors import how_to_install
from openhqm.policy.queue_names import MOST_WORKED_QUEUES

HANDED_ON = ("tcp", "tcp6", "unix", "systemd")
"""Kinds of endpoints that are a listening socket and nothing more."""


def contradictions(settings: Settings, products: Products, has_door: bool = True) -> list[tuple[str, str]]:
    """Each key with what is wrong with it beside the others. ``has_door``: false where callers cannot reach it."""
    found = []
    server, auth = settings.server, settings.auth
    found += about_who_may(settings)
    found += about_tls(settings)
    if server.enabled and has_door and auth.type is None:
        if not server.endpoints and not _is_loopback(server.host):
            found.append(
                (
                    "server.host",
                    f"{server.host} can be reached from other machines, and a caller needs no key: "
                    "bind to 127.0.0.1, say auth.type: api_key or jwt, or auth.type: none if that is meant",
                )
            )
        if any(not _endpoint_is_local(endpoint) for endpoint in server.endpoints):
            found.append(
                (
                    "server.endpoints",
                    "one can be reached from other machines, and a caller needs no key: "
                    "use interface=127.0.0.1 or unix:, say auth.type: api_key or jwt, "
                    "or auth.type: none if that is meant",
                )
            )
    if server.max_buffered_bytes < server.max_body_bytes:
        found.append(("server.max_buffered_bytes", "must not be less than server.max_body_bytes"))
    if server.proxy_protocol and not server.trusted_proxies:
        found.append(("server.trusted_proxies", "is missing: server.proxy_protocol needs the addresses of the proxies"))
    limits = settings.rate_limit.requests is not None or settings.auth.type not in (None, "none") or settings.hooks
    if server.trusted_proxies and not (settings.proxy.sidecar.enabled or server.proxy_protocol or limits):
        found.append(
            (
                "server.trusted_proxies",
                "has no effect: it says whose X-Forwarded-* is believed, for rate_limit, auth, hooks and the "
                "application behind a sidecar. Leave it out, or set one of those",
            )
        )
    found += _about_endpoints(settings)
    found += _about_the_admin_listener(settings)
    found += _about_hooks(settings)
    found += about_the_queue(settings, products)
    found += _about_too_many_queues(settings)
    found += about_bridges(settings, products)
    found += about_schemas(settings)
    found += about_tenants(settings, products)
    for index, route in enumerate(settings.routing.routes):
        if route.endpoint == CALLERS and CALLERS in settings.proxy.names:
            found.append((f"routing.routes.{index}.endpoint", "callers is for URLs that requests name themselves"))
        elif route.endpoint is not None and route.endpoint not in settings.proxy.names:
            more = "" if settings.proxy.enabled else ": proxy.enabled is false"
            found.append((f"routing.routes.{index}.endpoint", f"there is no endpoint {route.endpoint!r}{more}"))
    found += [(key, f"{what} needs TLS: {how_to_install('tls')}") for key, what in _without_tls(settings.proxy)]
    if not server.enabled and not settings.worker.enabled:
        found.append(("server.enabled", "false, and worker.enabled too: nothing is left to do"))
    return found


def _about_the_admin_listener(settings: Settings) -> list[tuple[str, str]]:
    admin, found = settings.admin, []
    if not admin.enabled or admin.port is None:
        return []
    if admin.key is None and not _is_loopback(admin.host):
        reason = f"is missing: admin.host {admin.host} can be reached from other machines, and has no key"
        found.append(("admin.key", f"{reason}: name one, or bind to 127.0.0.1"))
    if settings.server.workers > 1:
        reason = f"is for one process, and server.workers is {settings.server.workers}"
        found.append(("admin.port", f"{reason}: leave it out, /health and /metrics at server.port are those of all"))
    if settings.server.enabled and not settings.server.endpoints and admin.port == settings.server.port != 0:
        found.append(("admin.port", f"is {admin.port}, as server.port: use another one"))
    return found


def _about_hooks(settings: Settings) -> list[tuple[str, str]]:
    if settings.hooks and settings.proxy.sidecar.enabled:
        return [("hooks", "has no effect behind a sidecar, where /hooks/ is a path of the application: leave it out")]
    return [
        (f"hooks.{name}.endpoint", f"there is no endpoint {hook.endpoint!r}")
        for name, hook in settings.hooks.items()
        if hook.endpoint is not None and hook.endpoint not in settings.proxy.names
    ]


def _about_too_many_queues(settings: Settings) -> list[tuple[str, str]]:
    addressing, requests = settings.addressing(), settings.queue.request_queue
    count = len(addressing.queues(requests))
    if count <= MOST_WORKED_QUEUES:
        return []
    if addressing.shares and len(addressing.queues(requests, shares=False)) <= MOST_WORKED_QUEUES:
        what = f"makes {count} queues, one for each tenant beside that of each endpoint"
        return [("tenants", f"{what}: at most {MOST_WORKED_QUEUES} can be worked on")]
    key = "partitioning.partition_count" if settings.partitioning.enabled else "proxy.endpoints"
    what = f"makes {count} queues, one for each endpoint and one for each of its partitions"
    return [(key, f"{what}: at most {MOST_WORKED_QUEUES} can be worked on")]


def _about_endpoints(settings: Settings) -> list[tuple[str, str]]:
    """Several processes listen on sockets that their parent hands on."""
    server = settings.server
    if server.workers == 1 or not server.enabled:
        return []
    kinds = [endpoint.partition(":")[0] for endpoint in server.endpoints]
    return [
        ("server.endpoints", f"{kind}: cannot be handed on to {server.workers} processes: {', '.join(HANDED_ON)} can")
        for kind in kinds
        if kind not in HANDED_ON
    ]


def _without_tls(proxy: Proxy) -> list[tuple[str, str]]:
    """The keys that ask for https, on an installation that does not have it."""
    if has_tls():
        return []
    found = []
    if proxy.enabled:
        for name, endpoint in proxy.all_endpoints.items():
            if endpoint.url.startswith("https:"):
                found.append((f"proxy.endpoints.{name}.url", "https"))
            if endpoint.auth_type == "oauth2_client_credentials":
                found.append((f"proxy.endpoints.{name}.auth_type", "oauth2_client_credentials"))
        if proxy.caller_targets.enabled and "https" in proxy.caller_targets.schemes:
            found.append(("proxy.caller_targets.schemes", "https"))
    if proxy.sidecar.enabled and (proxy.sidecar.upstream or "").startswith("https:"):
        found.append(("proxy.sidecar.upstream", "https"))
    return found


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _endpoint_is_local(endpoint: str) -> bool:
    if endpoint.startswith("unix:"):
        return True
    interfaces = re.findall(r":interface=((?:\\.|[^:])+)", endpoint)
    return bool(interfaces) and all(_is_loopback(interface.replace("\\", "")) for interface in interfaces)
