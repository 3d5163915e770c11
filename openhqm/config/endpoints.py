# -*- test-case-name: tests.config.test_config -*-
"""The configuration of HTTP endpoints that requests are forwarded to."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import attrs
from attrs.validators import optional

from openhqm.config.publishing import Answer, Publish
from openhqm.config.sidecar import Sidecar
from openhqm.config.structure import PRIVATE, SECRET, Wrong
from openhqm.config.validators import between, not_empty, one_of, payload_schema, statuses
from openhqm.policy.breaker import BreakerPolicy
from openhqm.policy.callbacks import CALLBACKS
from openhqm.policy.destinations import DestinationPolicy
from openhqm.policy.forwarding import METHODS, Target
from openhqm.policy.host_lists import parse_host_list
from openhqm.policy.outcome import NOT_A_SUCCESS, RETRY_ON, SERVER_ERRORS, read_statuses
from openhqm.policy.proxying import HOP_BY_HOP

AUTH_TYPES = ("bearer", "basic", "api_key", "custom", "oauth2_client_credentials")
_AUTH_KEYS = {
    "auth_token": ("bearer", "api_key", "custom"),
    "auth_username": ("basic",),
    "auth_password": ("basic",),
    "auth_header_name": ("api_key", "custom"),
    "auth_token_url": ("oauth2_client_credentials",),
    "auth_client_id": ("oauth2_client_credentials",),
    "auth_client_secret": ("oauth2_client_credentials",),
    "auth_scope": ("oauth2_client_credentials",),
}
DEFAULT = "default"
CALLERS = "callers"
APPLICATION = "application"
_RESERVED = {
    CALLERS: "is reserved for the URLs that requests name themselves: use another name",
    APPLICATION: "is reserved for the application behind the sidecar: use another name",
    CALLBACKS: "is reserved for callbacks: use another name",
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_HEADER = re.compile(r"[!#$%&'*+\-.^`|~0-9A-Za-z]{1,256}")  # without "_", which most servers drop
_VALUE = re.compile(r"[\t\x20-\x7e]{0,8192}")


def http_url(instance: object, attribute: object, value: Any) -> None:
    """None, or an http or https URL in ASCII, with a host, and without credentials or a fragment."""
    if value is None:
        return
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname, parts.port
    except ValueError:  # its text may contain a password
        raise ValueError("is not a URL") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError("must be an http or https URL with a host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not contain credentials: set auth_username and auth_password instead")
    if "#" in value or not value.isascii() or not value.isprintable() or " " in value or "\\" in value:
        raise ValueError("must be ASCII without spaces, backslashes or a fragment: percent-encode other characters")


def proxy_url(instance: object, attribute: object, value: Any) -> None:
    """None, or the URL of an HTTP proxy: a host, and a port if it is not 80."""
    if value is None:
        return
    try:
        parts = urlsplit(value)
    except ValueError:  # its text may contain a password
        raise ValueError("is not a URL") from None
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not contain credentials: set egress_proxy_username and egress_proxy_password instead")
    if parts.scheme != "http" or parts.path not in ("", "/") or parts.query:
        raise ValueError("must be like http://proxy.internal:3128: what goes through it is within TLS of its own")
    http_url(instance, attribute, value)


def header_values(instance: object, attribute: object, value: dict[str, str]) -> None:
    """A mapping from header names to values that a header can have."""
    for name, text in value.items():
        header_name(instance, attribute, name)
        if not _VALUE.fullmatch(text):
            raise ValueError(f"{name}: must be ASCII without line breaks and control characters")


def header_name(instance: object, attribute: object, value: str) -> None:
    """A header name that an operator may set."""
    if not _HEADER.fullmatch(value):
        raise ValueError(f"{value!r} is not a header name")
    if value.lower() in HOP_BY_HOP:
        raise ValueError(f"{value} is a hop-by-hop header, which the HTTP client sets")


@attrs.frozen
class CircuitBreaker:
    """When calls to a target are stopped, and for how long."""

    failure_ratio: float = attrs.field(default=0.5, validator=between(0.01, 1))
    minimum_calls: int = attrs.field(default=20, validator=between(1, 10_000))
    window_seconds: float = attrs.field(default=30.0, validator=between(0.1, 3600))
    open_seconds: float = attrs.field(default=30.0, validator=between(0.1, 3600))

    @property
    def policy(self) -> BreakerPolicy:
        """The policy for these settings."""
        return BreakerPolicy(self.failure_ratio, self.minimum_calls, self.window_seconds, self.open_seconds)


@attrs.frozen
class Rate:
    """How many ``requests`` a target gets in ``per_seconds``."""

    requests: float = attrs.field(default=1.0, validator=between(0.001, 1_000_000))
    per_seconds: float = attrs.field(default=1.0, validator=between(0.001, 86400))


@attrs.frozen
class DispatchGate:
    """A URL that says whether the target can take more, asked every ``interval`` seconds while requests wait."""

    url: str = attrs.field(default="", repr=lambda url: _without_query(url))
    interval: float = attrs.field(default=5.0, validator=between(0.1, 3600))

    def __attrs_post_init__(self) -> None:
        if not self.url:
            raise Wrong([(("url",), "is missing: the URL that says whether the target can take more")])
        try:
            http_url(None, None, self.url)
        except ValueError as error:
            raise Wrong([(("url",), str(error))]) from None


@attrs.frozen
class TLS:
    """PEM files: the trusted CAs, and the client certificate and its key."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = attrs.field(default=None, metadata=PRIVATE)


def _url(instance: object, attribute: object, value: str) -> None:
    """An HTTP URL. It is only left out where an endpoint publishes, which `Endpoint` checks."""
    if value or instance is None:
        not_empty(instance, attribute, value)
        http_url(instance, attribute, value)


def _without_query(url: str | None) -> str:
    """An URL for people: its query may hold a secret."""
    return repr(None if url is None else url.partition("?")[0])


_FOR_EITHER = ("publish", "reply", "timeout", "max_in_flight", "schema")


@attrs.frozen
class Endpoint:
    """The configuration of one endpoint: an HTTP one at ``url``, or the channel of a broker where it is to ``publish``.

    ``reply``: the answer that is waited for after publishing; None: it has succeeded once it is published.
    """

    url: str = attrs.field(default="", validator=_url, repr=_without_query)
    publish: Publish | None = None
    reply: Answer | None = None
    method: str = attrs.field(default="POST", validator=one_of(METHODS))
    timeout: float = attrs.field(default=300.0, validator=between(0.001, 30 * 86400))
    headers: dict[str, str] = attrs.field(factory=dict, validator=header_values, repr=False, metadata=SECRET)
    auth_type: str | None = attrs.field(default=None, validator=optional(one_of(AUTH_TYPES)))
    auth_token: str | None = attrs.field(default=None, repr=False, metadata=SECRET)
    auth_username: str | None = None
    auth_password: str | None = attrs.field(default=None, repr=False, metadata=SECRET)
    auth_header_name: str | None = attrs.field(default=None, validator=optional(header_name))
    auth_token_url: str | None = attrs.field(default=None, validator=http_url, repr=_without_query)
    auth_client_id: str | None = None
    auth_client_secret: str | None = attrs.field(default=None, repr=False, metadata=SECRET)
    auth_scope: str | None = None
    retry_on: list[int] = attrs.field(factory=lambda: sorted(RETRY_ON))
    failures: list[int | str] | None = attrs.field(default=None, validator=optional(statuses))
    rate: Rate | None = None
    max_in_flight: int | None = attrs.field(default=None, validator=optional(between(1, 10_000)))
    adaptive: bool = False
    circuit_breaker: CircuitBreaker = attrs.field(factory=CircuitBreaker)
    tls: TLS = attrs.field(factory=TLS)
    schema: dict[str, Any] | None = attrs.field(default=None, validator=optional(payload_schema))
    gate: DispatchGate | None = None
    egress_proxy: str | None = attrs.field(default=None, validator=proxy_url)
    egress_proxy_username: str | None = None
    egress_proxy_password: str | None = attrs.field(default=None, repr=False, metadata=SECRET)

    def __attrs_post_init__(self) -> None:
        """Check keys that depend on each other. Raises `Wrong`, so that each complaint has its key."""
        found: list[tuple[tuple[str, ...], str]] = []
        if self.publish is None:
            if not self.url:
                found.append((("url",), "is missing: an endpoint has a url, or publish"))
            if self.reply is not None:
                found.append((("reply",), "has no effect without publish"))
        else:
            mistaken = [name for name in _FOR_HTTP if getattr(self, name) != _default(name)]
            found += [((name,), "is for HTTP, and this endpoint publishes") for name in mistaken]
        found += [((key,), f"is missing: auth_type {self.auth_type} needs it") for key in self._missing()]
        for index, status in enumerate(self.retry_on):
            if not 300 <= status <= 599:
                found.append(((f"retry_on.{index}",), f"must be a status from 300 to 599, not {status}"))
        for key in ("auth_token", "auth_password", "auth_client_secret"):
            value = getattr(self, key)
            if value is not None and not _VALUE.fullmatch(value):
                found.append(((key,), "must be ASCII without line breaks and control characters"))
        name, password = self.egress_proxy_username, self.egress_proxy_password
        if (name is None) != (password is None):
            missing = "egress_proxy_password" if password is None else "egress_proxy_username"
            found.append(((missing,), "is missing: a name and a password go together"))
        if name is not None and ":" in name:
            found.append((("egress_proxy_username",), "must not have a colon, which ends it (RFC 7617)"))
        if name is not None and self.egress_proxy is None:
            found.append((("egress_proxy_username",), "has no effect without egress_proxy"))
        if self.tls.key is not None and self.tls.cert is None:
            found.append((("tls", "cert"), "is missing: tls.key needs the certificate it belongs to"))
        if found:
            raise Wrong(found)

    def unused(self) -> list[tuple[str, str]]:
        """The keys that have no effect here, each with the reason: credentials of another kind, TLS without https."""
        found = []
        for key, types in _AUTH_KEYS.items():
            if getattr(self, key) is not None and self.auth_type not in types:
                beside = "without auth_type" if self.auth_type is None else f"with auth_type {self.auth_type}"
                found.append((key, f"has no effect {beside}: it is for auth_type {' or '.join(types)}"))
        if self.url.startswith("http:"):
            for name in ("ca", "cert", "key"):
                if getattr(self.tls, name) is not None:
                    found.append((f"tls.{name}", "has no effect, because the URL of the endpoint is not https"))
        return found

    def _missing(self) -> list[str]:
        needed = {
            "bearer": ("auth_token",),
            "basic": ("auth_username", "auth_password"),
            "api_key": ("auth_token",),
            "custom": ("auth_header_name", "auth_token"),
            "oauth2_client_credentials": ("auth_token_url", "auth_client_id", "auth_client_secret"),
        }
        return [key for key in needed.get(self.auth_type or "", ()) if not getattr(self, key)]


_DEFAULTS = {field.name: field.default for field in attrs.fields(Endpoint)}
_FOR_HTTP = [name for name in _DEFAULTS if name not in _FOR_EITHER]


def _default(name: str) -> object:
    default: Any = _DEFAULTS[name]
    return default.factory() if hasattr(default, "factory") else default


def _ports(instance: object, attribute: object, value: list[int]) -> None:
    if not value:
        raise ValueError("must not be empty")
    for port in value:
        if not 1 <= port <= 65535:
            raise ValueError(f"must be ports from 1 to 65535, not {port}")


def _check_host_list(instance: object, attribute: object, value: list[str]) -> None:
    parse_host_list(value)


def _schemes(instance: object, attribute: object, value: list[str]) -> None:
    if not value or not set(value) <= {"http", "https"}:
        raise ValueError("must be https or http, or both")


@attrs.frozen
class CallerTargets:
    """URLs that requests may name themselves in ``metadata.endpoint``: public ones, and those in ``allow``."""

    enabled: bool = False
    schemes: list[str] = attrs.field(factory=lambda: ["https"], validator=_schemes)
    ports: list[int] = attrs.field(factory=lambda: [443], validator=_ports)
    allow: list[str] = attrs.field(factory=list, validator=_check_host_list)
    deny: list[str] = attrs.field(factory=list, validator=_check_host_list)

    def policy(self) -> DestinationPolicy:
        """The policy for these settings."""
        return DestinationPolicy(tuple(self.schemes), tuple(self.ports), tuple(self.allow), tuple(self.deny))


@attrs.frozen
class Proxy:
    """Forwarding: the endpoints, and the header fields that are forwarded."""

    enabled: bool = False
    default_endpoint: str | None = attrs.field(default=None, validator=optional(not_empty))
    forward_headers: list[str] = attrs.field(
        factory=lambda: ["Content-Type", "Accept", "User-Agent", "X-Request-ID", "X-Correlation-ID"]
    )
    strip_headers: list[str] = attrs.field(factory=lambda: ["Host", "Connection"])
    max_response_bytes: int = attrs.field(default=10 * 1024 * 1024, validator=between(1, 1 << 30))
    endpoints: dict[str, Endpoint] = attrs.field(factory=dict, metadata=SECRET)
    caller_targets: CallerTargets = attrs.field(factory=CallerTargets)
    sidecar: Sidecar = attrs.field(factory=Sidecar)

    def __attrs_post_init__(self) -> None:
        """Check keys that depend on each other. Raises `Wrong`, so that each complaint has its key."""
        found: list[tuple[tuple[str, ...], str]] = []
        for name in self.endpoints:
            if name in _RESERVED:
                found.append((("endpoints", name), _RESERVED[name]))
            if not _NAME.fullmatch(name):
                found.append(
                    (("endpoints", name), "must have a name of 1 to 64 letters, digits, hyphens and underscores")
                )
        default = self.default_endpoint
        if default is not None and default not in self.endpoints:
            if "://" in default:
                try:
                    http_url(None, None, default)
                except ValueError as error:
                    found.append((("default_endpoint",), str(error)))
                if DEFAULT in self.endpoints:
                    found.append(
                        (("endpoints", DEFAULT), "is reserved for a default_endpoint that is a URL: use another name")
                    )
            else:
                known = ", ".join(sorted(self.endpoints)) or "none are configured"
                found.append(
                    (("default_endpoint",), f"{default!r} is neither a URL nor one of the endpoints ({known})")
                )
        if self.enabled and not self.endpoints and default is None and not self.caller_targets.enabled:
            found.append(
                (("endpoints",), "is empty, and so is default_endpoint: configure one of them, or disable proxy")
            )
        if found:
            raise Wrong(found)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all endpoints that requests can be forwarded to."""
        application = (APPLICATION,) if self.sidecar.enabled else ()
        callers = (CALLERS,) if self.caller_targets.enabled else ()
        return (*application, *self.configured, *callers) if self.enabled else application

    @property
    def default(self) -> str | None:
        """The endpoint for requests that name none: the default endpoint, or the application behind the sidecar."""
        named = self.default_name if self.enabled else None
        return named or (APPLICATION if self.sidecar.enabled else None)

    @property
    def default_name(self) -> str | None:
        """The name of the default endpoint."""
        default = self.default_endpoint
        return DEFAULT if default is not None and default not in self.endpoints else default

    @property
    def all_endpoints(self) -> dict[str, Endpoint]:
        """All endpoints by name, including the application behind the sidecar."""
        sidecar = self.sidecar
        if not sidecar.enabled:
            return self.configured
        # The application is on this machine: few failures mean that it is down, and it restarts soon.
        breaker = CircuitBreaker(minimum_calls=5, open_seconds=5.0)
        # What the application answers to its client is an answer, and no failure of the gateway's.
        failures: list[int | str] = [*sorted(SERVER_ERRORS)] if sidecar.failures is None else sidecar.failures
        behind = Endpoint(
            url=sidecar.upstream or "", timeout=sidecar.timeout, failures=failures, circuit_breaker=breaker
        )
        return {APPLICATION: behind, **self.configured}

    @property
    def configured(self) -> dict[str, Endpoint]:
        """All configured endpoints by name, including a default endpoint that is a URL."""
        if self.default_name == DEFAULT and DEFAULT not in self.endpoints:
            return {**self.endpoints, DEFAULT: Endpoint(url=self.default_endpoint or "")}
        return self.endpoints

    def target(self, name: str) -> Target:
        """What is sent to the endpoint ``name``, and what its status codes mean."""
        endpoint = self.all_endpoints.get(name) or Endpoint(url="http://named.by.the.caller")
        named = frozenset(map(str.lower, self.forward_headers))
        forward = None if "*" in named else named
        # A caller's credentials are for the gateway: they are forwarded only where the list names them.
        credentials = frozenset({"authorization"} - named)
        return Target(
            name,
            None if name == CALLERS else endpoint.url,
            endpoint.method,
            endpoint.headers,
            forward,
            frozenset(map(str.lower, self.strip_headers)) | credentials,
            frozenset(endpoint.retry_on),
            NOT_A_SUCCESS if endpoint.failures is None else read_statuses(endpoint.failures),
            relays=name == APPLICATION,
        )
