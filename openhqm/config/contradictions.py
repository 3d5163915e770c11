# -*- test-case-name: tests.config.test_config -*-
"""What each key allows, and all of them together do not."""

from __future__ import annotations

import ipaddress
import re
from importlib.util import find_spec

from openhqm.config.endpoints import CALLERS, Proxy
from openhqm.config.model import RESPONSES, Settings
from openhqm.policy.queue_names import MOST_WORKED_QUEUES

SHARED = ("redis", "rabbitmq")
"""Backends whose queue and answers several processes can have together."""
HANDED_ON = ("tcp", "tcp6", "unix", "systemd")
"""Kinds of endpoints that are a listening socket and nothing more."""


def contradictions(settings: Settings) -> list[tuple[str, str]]:
    """Each key with what is wrong with it beside the others."""
    found = []
    server, auth = settings.server, settings.auth
    if auth.type not in (None, "none"):
        found.append(("auth.type", f"must be none, not {auth.type!r}"))
    if server.enabled and auth.type is None:
        if not server.endpoints and not _is_loopback(server.host):
            found.append(
                (
                    "server.host",
                    f"{server.host} can be reached from other machines and nobody has to show a key: "
                    "bind to 127.0.0.1, or say auth.type: none if that is meant",
                )
            )
        if any(not _endpoint_is_local(endpoint) for endpoint in server.endpoints):
            found.append(
                (
                    "server.endpoints",
                    "one can be reached from other machines and nobody has to show a key: "
                    "use interface=127.0.0.1 or unix:, or say auth.type: none if that is meant",
                )
            )
    if server.max_buffered_bytes < server.max_body_bytes:
        found.append(("server.max_buffered_bytes", "must not be less than server.max_body_bytes"))
    found += _about_processes(settings)
    found += _about_the_store(settings)
    found += about_halves(settings)
    if settings.queue.type == "rabbitmq":
        found += _about_rabbitmq(settings)
    if settings.queue.type != "redis" and settings.queue.format not in ("auto", "envelope"):
        reason = f"{settings.queue.format} is for messages of others, and nobody else reaches {settings.queue.type}"
        found.append(("queue.format", reason))
    found += _about_responses(settings)
    if settings.queue.request_queue == settings.queue.dead_letter_queue:
        found.append(("queue.dead_letter_queue", "must not be the request queue"))
    if settings.queue.dead_letter_queue.startswith(settings.queue.request_queue + "."):
        found.append(("queue.dead_letter_queue", "must not begin with the request queue's name and a dot"))
    found += _about_too_many_queues(settings)
    for index, route in enumerate(settings.routing.routes):
        if route.endpoint == CALLERS and CALLERS in settings.proxy.names:
            found.append((f"routing.routes.{index}.endpoint", "callers is for URLs that requests name themselves"))
        elif route.endpoint is not None and route.endpoint not in settings.proxy.names:
            more = "" if settings.proxy.enabled else ": proxy.enabled is false"
            found.append((f"routing.routes.{index}.endpoint", f"there is no endpoint {route.endpoint!r}{more}"))
    found += [(key, f"{what} needs TLS: pip install 'openhqm[tls]'") for key, what in _without_tls(settings.proxy)]
    if not server.enabled and not settings.worker.enabled:
        found.append(("server.enabled", "false, and worker.enabled too: nothing is left to do"))
    return found


def about_halves(settings: Settings) -> list[tuple[str, str]]:
    """What is wrong with a process that only listens, or only works, on the queue that it has."""
    if settings.server.enabled == settings.worker.enabled:
        return []
    if settings.queue.type == "memory":
        return [("queue.type", "memory is of one process: what a listener alone accepts nobody could ever work on")]
    return []


def _about_too_many_queues(settings: Settings) -> list[tuple[str, str]]:
    count = sum(1 for _ in settings.addressing().lanes())
    if count <= MOST_WORKED_QUEUES:
        return []
    key = "partitioning.partition_count" if settings.partitioning.enabled else "proxy.endpoints"
    what = f"makes {count} queues, one for each endpoint and one for each of its partitions"
    return [(key, f"{what}: at most {MOST_WORKED_QUEUES} can be worked on")]


def _about_the_store(settings: Settings) -> list[tuple[str, str]]:
    queue, cache = settings.queue, settings.cache
    if queue.type == "rabbitmq":
        if cache.type == "memory":
            return [("cache.type", "memory forgets what was accepted: say sqlite, or redis for several processes")]
        if cache.type != "redis" and cache.redis_url is not None:
            return [("cache.redis_url", "is only used with cache.type: redis")]
        return []
    found = []
    if cache.type not in (None, queue.type):
        found.append(("cache.type", f"must be {queue.type} or left out: it follows queue.type"))
    if cache.redis_url not in (None, queue.redis_url or queue.connection.redis.url):
        found.append(
            ("cache.redis_url", "must be that of the queue or left out: reply and end of request are one step")
        )
    return found


def _about_processes(settings: Settings) -> list[tuple[str, str]]:
    server, type = settings.server, settings.queue.type
    if server.workers == 1:
        return []
    found = []
    if type not in SHARED:
        reason = f"{server.workers} processes need queue.type {' or '.join(SHARED)}: "
        reason += "the file belongs to one process" if type == "sqlite" else f"{type} is seen by one process only"
        found.append(("server.workers", reason))
    elif type != "redis" and settings.cache.type != "redis":
        reason = f"{server.workers} processes need cache.type redis: the embedded file belongs to one process"
        found.append(("server.workers", reason))
    for endpoint in server.endpoints if server.enabled else []:
        if (kind := endpoint.partition(":")[0]) not in HANDED_ON:
            reason = f"{kind}: cannot be handed on to {server.workers} processes: {', '.join(HANDED_ON)} can"
            found.append(("server.endpoints", reason))
    return found


def _about_rabbitmq(settings: Settings) -> list[tuple[str, str]]:
    """RabbitMQ closes the channel of whoever holds a message for longer than its ``consumer_timeout``."""
    found = []
    where = settings.queue.connection.rabbitmq
    if (settings.queue.rabbitmq_url or where.url).startswith("amqps:") and not _has_tls():
        key = "queue.rabbitmq_url" if settings.queue.rabbitmq_url else "queue.connection.rabbitmq.url"
        found.append((key, "amqps needs TLS: pip install 'openhqm[tls]'"))
    limit, lease = where.consumer_timeout_seconds, settings.queue.lease_seconds
    spans = [("worker.timeout_seconds", settings.worker.timeout_seconds)]
    if settings.proxy.enabled:
        spans += [(f"proxy.endpoints.{name}.timeout", each.timeout) for name, each in settings.proxy.endpoints.items()]
    if settings.proxy.sidecar.enabled:
        spans.append(("proxy.sidecar.timeout", settings.proxy.sidecar.timeout))
    spans += [
        (f"routing.routes.{index}.timeout", route.timeout)
        for index, route in enumerate(settings.routing.routes)
        if route.timeout is not None
    ]
    if not limit or not settings.worker.enabled:
        return found
    for key, span in spans:
        if span + lease > limit:
            reason = (
                f"{span:g} s and a lease of {lease:g} s are more than the {limit:g} s for which RabbitMQ lets us hold "
                "a message: raise its consumer_timeout, and queue.connection.rabbitmq.consumer_timeout_seconds with it "
                "(0: it is switched off)"
            )
            found.append((key, reason))
    return found


def _about_responses(settings: Settings) -> list[tuple[str, str]]:
    queue = settings.queue
    key, name = "queue.response_queue", queue.response_queue
    if queue.type == "rabbitmq" and settings.cache.type != "redis":
        name = queue.steps_queue
        if name in (queue.request_queue, queue.dead_letter_queue) or name.startswith(queue.request_queue + "."):
            return [(key, f"{name} is for what workers without a store tell, and holds nothing else")]
        return []
    if name is None:
        return []
    if queue.type != "redis":
        # The contract's own name may stay in a file that several share: it asks for nothing here.
        return [] if name == RESPONSES else [(key, f"nobody else reaches {queue.type}: answers rest there")]
    if name in (queue.request_queue, queue.dead_letter_queue) or name.startswith(queue.connection.redis.key_prefix):
        return [(key, "must not name a stream that is read here")]
    return []


def _without_tls(proxy: Proxy) -> list[tuple[str, str]]:
    """The keys that ask for https, on an installation that does not have it."""
    if _has_tls():
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


def _has_tls() -> bool:
    return all(find_spec(package) is not None for package in ("OpenSSL", "service_identity", "treq"))


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
