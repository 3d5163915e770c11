# -*- test-case-name: tests.test_config -*-
"""A YAML file and the environment become `Settings`, or every complaint at once."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from openhqm.config.absent import take_out
from openhqm.config.endpoints import CALLERS, Proxy
from openhqm.config.model import Queue, Settings
from openhqm.config.structure import Text, Wrong, structure
from openhqm.errors import Complaint, ConfigurationError

PREFIX = "OPENHQM_"
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
# What Kubernetes tells every pod of a service named openhqm is not meant as configuration.
_KUBERNETES = re.compile(r"OPENHQM_(SERVICE_HOST|SERVICE_PORT\w*|PORT(_\d+_(TCP|UDP|SCTP)\w*)?)\Z")
MOST_BYTES = 1024 * 1024
SHARED = ("redis", "rabbitmq")
"""Backends whose queue and answers several processes can have together."""
HANDED_ON = ("tcp", "tcp6", "unix", "systemd")
"""Kinds of endpoints that are a listening socket and nothing more."""


def load(path: str | None, environment: Mapping[str, str], text: bytes | None = None) -> Settings:
    """The settings in the file at ``path`` (None: no file) and in ``OPENHQM_*`` variables, which win.

    ``text`` is what the file holds, where that was read before.
    `ConfigurationError` carries every complaint, each with the key and where it came from.
    """
    complaints: list[Complaint] = []
    document: dict[str, Any] = {}
    if path is not None:
        document = _parse(path, read_text(path) if text is None else text)
        try:
            document = _replace(document, (), environment, complaints, path)
        except RecursionError:
            raise ConfigurationError([Complaint(path, "refers to itself, or nests without end")]) from None
    variables = _overlay(document, environment)

    def complain(key: tuple[str, ...], reason: str) -> None:
        source = next((name for known, name in variables.items() if _concerns(known, key)), path or "")
        complaints.append(Complaint(".".join(key), reason, source))

    for key, reason in take_out(document):
        complain(tuple(key.split(".")), reason)
    try:
        settings: Settings = structure(document, Settings)
    except Wrong as wrong:
        for key_path, reason in wrong.found:
            complain(key_path, reason)
    else:
        for key, reason in _contradictions(settings):
            complain(tuple(key.split(".")), reason)
    if complaints:
        raise ConfigurationError(complaints)
    return settings


def read_text(path: str) -> bytes:
    """What the file at ``path`` holds. `ConfigurationError` where it cannot be read, or is too large to be one."""
    try:
        with Path(path).open("rb") as file:
            text = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ConfigurationError([Complaint(path, f"cannot be read: {error.strerror}")]) from None
    if len(text) > MOST_BYTES:
        raise ConfigurationError([Complaint(path, f"larger than {MOST_BYTES} bytes")])
    return text


def _parse(path: str, text: bytes) -> dict[str, Any]:
    try:
        document = YAML(typ="safe", pure=True).load(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigurationError([Complaint(path, f"is not UTF-8: {error}")]) from None
    except YAMLError as error:
        raise ConfigurationError([Complaint(path, f"is not YAML: {_one_line(error)}")]) from None
    except (ValueError, OverflowError, RecursionError) as error:  # a date or a number that cannot be one
        raise ConfigurationError([Complaint(path, f"is not YAML: {error}")]) from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigurationError([Complaint(path, f"must be a mapping of sections, not {document!r}")])
    return document


def _one_line(error: YAMLError) -> str:
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    mark = getattr(error, "problem_mark", None)
    return f"{problem} (line {mark.line + 1}, column {mark.column + 1})" if mark else str(problem)


def _replace(
    value: Any, key: tuple[str, ...], environment: Mapping[str, str], complaints: list[Complaint], source: str
) -> Any:
    """``${VARIABLE}`` and ``${VARIABLE:-default}`` in every string of the file."""
    if isinstance(value, dict):
        return {
            name: _replace(item, (*key, str(name)), environment, complaints, source) for name, item in value.items()
        }
    if isinstance(value, list):
        return [_replace(item, (*key, str(index)), environment, complaints, source) for index, item in enumerate(value)]
    if not isinstance(value, str) or "${" not in value:
        return value

    def variable(match: re.Match[str]) -> str:
        name, default = match.groups()
        found = environment.get(name, default)
        if found is None:
            complaints.append(Complaint(".".join(key), f"the environment has no {name}", source))
            return ""
        return found

    return Text(_VARIABLE.sub(variable, value))


def _overlay(document: dict[str, Any], environment: Mapping[str, str]) -> dict[tuple[str, ...], str]:
    """Put ``OPENHQM_A__B`` into the document as ``a.b``; which key came from which variable."""
    variables = {}
    for name in sorted(environment):
        if not name.startswith(PREFIX) or _KUBERNETES.match(name):
            continue
        key = tuple(part.lower() for part in name[len(PREFIX) :].split("__"))
        variables[key] = name
        holder: Any = document
        for part in key[:-1]:
            inner = holder.get(part)
            if inner is None or isinstance(inner, Text):
                inner = holder[part] = _mapping(inner)
            if not isinstance(inner, dict):
                break  # something else stands there: it is complained of where it is read
            holder = inner
        else:
            holder[key[-1]] = _mapping(Text(environment[name])) if len(key) == 1 else Text(environment[name])
    return variables


def _mapping(text: Text | None) -> Any:
    """A section given as JSON, so that single keys can be put into it; what is none stays as it is."""
    with suppress(ValueError):
        value = {} if text is None else json.loads(text)
        if isinstance(value, dict):
            return value
    return text


def _concerns(known: tuple[str, ...], key: tuple[str, ...]) -> bool:
    """Whether a complaint about ``key`` is about what a variable for ``known`` said."""
    plain = (*known[:-1], known[-1].removesuffix("_file"))
    return key[: len(known)] in (known, plain) or known[: len(key)] == key


def _contradictions(settings: Settings) -> list[tuple[str, str]]:
    """What each key allows and all of them together do not."""
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
    found += _about_responses(settings.queue)
    if settings.queue.request_queue == settings.queue.dead_letter_queue:
        found.append(("queue.dead_letter_queue", "must not be the request queue"))
    if settings.queue.dead_letter_queue.startswith(settings.queue.request_queue + "."):
        found.append(("queue.dead_letter_queue", "must not begin with the request queue's name and a dot"))
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
    if settings.queue.type == "rabbitmq" and settings.cache.type != "redis":
        reason = "the embedded file is of one process, and this is only half of one: "
        return [("cache.type", f"{reason}say redis, with cache.redis_url, or let one process do both")]
    return []


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


def _about_responses(queue: Queue) -> list[tuple[str, str]]:
    key, name = "queue.response_queue", queue.response_queue
    if name is None:
        return []
    if queue.type != "redis":
        # The contract's own name may stay in a file that several share: it asks for nothing here.
        return [] if name == "openhqm-responses" else [(key, f"nobody else reaches {queue.type}: answers rest there")]
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
