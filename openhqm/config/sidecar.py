# -*- test-case-name: tests.policy.test_sidecar_rules -*-
"""The configuration of the sidecar, which stands in front of an application."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import attrs

from openhqm.config.structure import Wrong
from openhqm.config.validators import Validator, between, statuses
from openhqm.policy.sidecar_rules import Rule, check_header, check_methods, check_pattern


def _each(check: Callable[[Any], None]) -> Validator:
    def validate(instance: object, attribute: object, value: Any) -> None:
        check(value)

    return validate


def check_base_url(value: str | None) -> None:
    """Raise `ValueError` unless ``value`` is None or an http or https URL of a server, without path and query."""
    if value is None:
        return
    try:
        url = urlsplit(value)
        port = url.port
    except ValueError:
        raise ValueError(f"must be a URL such as http://localhost:8080, not {value!r}") from None
    if url.username is not None or url.password is not None:
        raise ValueError("must not contain a user name or a password")
    sound = value.isascii() and value.isprintable() and " " not in value and "\\" not in value and port != 0
    if url.scheme not in ("http", "https") or not url.hostname or not sound:
        raise ValueError(f"must be a URL such as http://localhost:8080, not {value!r}")
    if url.path not in ("", "/") or "?" in value or "#" in value:
        raise ValueError("must not have a path or a query: those are the client's")


def _pattern(path: str) -> None:
    if path:  # a missing path is reported by __attrs_post_init__
        check_pattern(path)


@attrs.frozen
class AsyncRule:
    """Requests that wait in the queue: see `policy.sidecar_rules.Rule`."""

    path: str = attrs.field(default="", validator=_each(_pattern))
    methods: list[str] = attrs.field(factory=list, validator=_each(check_methods))
    header: str | None = attrs.field(default=None, validator=_each(check_header))
    header_value: str | None = attrs.field(default=None)
    wait: float | None = attrs.field(default=None, validator=attrs.validators.optional(between(1, 3600)))

    @property
    def rule(self) -> Rule:
        """The rule for these settings."""
        return Rule(self.path, tuple(self.methods), self.header, self.header_value, self.wait)

    def __attrs_post_init__(self) -> None:
        """Check keys that depend on each other. Raises `Wrong`, so that each complaint has its key."""
        found: list[tuple[tuple[str, ...], str]] = []
        if not self.path:
            found.append((("path",), "is missing: set the paths whose requests wait in the queue, such as /jobs/**"))
        if self.header_value is not None and self.header is None:
            found.append((("header_value",), "needs header to be set as well"))
        if found:
            raise Wrong(found)


@attrs.frozen
class Sidecar:
    """The application behind the gateway: its URL, which of its requests wait in the queue, and its
    timeout in seconds. ``failures`` are the status codes with which a queued request fails; None: those from 500.
    """

    enabled: bool = False
    upstream: str | None = attrs.field(default=None, validator=_each(check_base_url))
    async_rules: list[AsyncRule] = attrs.field(factory=list)
    timeout: float = attrs.field(default=300.0, validator=between(0.1, 86400))
    failures: list[int | str] | None = attrs.field(default=None, validator=attrs.validators.optional(statuses))

    def __attrs_post_init__(self) -> None:
        """Raises `Wrong`, so that the complaint has its key."""
        if self.enabled and self.upstream is None:
            raise Wrong([(("upstream",), "is missing: the sidecar needs the URL of the application")])
