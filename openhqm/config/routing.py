# -*- test-case-name: tests.config.test_config -*-
"""The configuration of routes, and the route table made from it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, TypeVar

import attrs
from attrs.validators import optional

from openhqm.config.structure import Wrong
from openhqm.config.validators import between, not_empty, one_of, payload_schema
from openhqm.policy.fields import Field
from openhqm.policy.routing import CompiledRoute, Condition, RouteTable, Scalar, header_fields, query_fields
from openhqm.policy.transforms import KINDS, MissingPackage, compile_transform

METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
_NAME = re.compile(r"[A-Za-z0-9-]{1,64}")
_T = TypeVar("_T")


class _Complaints:
    """All complaints about one route, each with its key."""

    def __init__(self) -> None:
        self.found: list[tuple[tuple[str, ...], str]] = []

    def add(self, key: str, reason: str) -> None:
        self.found.append(((key,), reason))

    def collect(self, key: str, build: Callable[[], _T]) -> _T | None:
        """What ``build`` returns; or None, and a complaint about ``key`` where it raises."""
        try:
            return build()
        except MissingPackage as error:
            self.add("transform_type", str(error))
        except ValueError as error:
            self.add(key, str(error))
        return None


@attrs.frozen
class Route:
    """Which requests take a route, and what the route sends to its endpoint. None leaves a value to the endpoint."""

    name: str = ""
    match_field: str | None = None
    match_value: Scalar | None = None
    match_pattern: str | None = None
    priority: int = attrs.field(default=0, validator=between(-1_000_000, 1_000_000))
    is_default: bool = False
    endpoint: str | None = attrs.field(default=None, validator=optional(not_empty))
    method: str | None = attrs.field(default=None, validator=optional(one_of(METHODS)))
    transform_type: str = attrs.field(default="passthrough", validator=one_of(KINDS))
    transform: str | None = None
    header_mappings: dict[str, str] = attrs.field(factory=dict)
    query_params: dict[str, str] = attrs.field(factory=dict)
    timeout: float | None = attrs.field(default=None, validator=optional(between(0.001, 30 * 86400)))
    schema: dict[str, Any] | None = attrs.field(default=None, validator=optional(payload_schema))

    def __attrs_post_init__(self) -> None:
        """Compile the route. Raises `Wrong`, so that each complaint has its key."""
        self.compiled()

    def compiled(self) -> CompiledRoute:
        """The compiled route. Raises `Wrong`."""
        complaints = _Complaints()
        if not _NAME.fullmatch(self.name):
            complaints.add("name", f"must be 1 to 64 letters, digits and hyphens, not {self.name!r}")
        condition = self._condition(complaints)
        transform = complaints.collect("transform", lambda: compile_transform(self.transform_type, self.transform))
        headers = complaints.collect("header_mappings", lambda: header_fields(self.header_mappings))
        query = complaints.collect("query_params", lambda: query_fields(self.query_params))
        if complaints.found or transform is None:
            raise Wrong(complaints.found)
        return CompiledRoute(
            self.name,
            condition,
            self.priority,
            self.endpoint,
            self.method,
            self.timeout,
            transform,
            headers or {},
            query or {},
        )

    def _condition(self, complaints: _Complaints) -> Condition | None:
        """The condition of the route; None for the default route."""
        value, pattern = self.match_value, self.match_pattern
        if self.match_field is None:
            if value is not None or pattern is not None:
                complaints.add("match_field", "is missing: match_value and match_pattern need it")
            elif not self.is_default:
                complaints.add("match_field", "is missing: set it, or is_default: true for the default route")
            return None
        if self.is_default:
            complaints.add(
                "match_field", "must not be set with is_default: the default route takes what no other route takes"
            )
            return None
        name = self.match_field
        field = complaints.collect("match_field", lambda: _match_field(name))
        if (value is None) == (pattern is None):
            complaints.add("match_value", "exactly one of match_value and match_pattern must be set with match_field")
        if isinstance(value, float) and not math.isfinite(value):
            complaints.add("match_value", f"must be a value of JSON, not {value}")
        expression = None if pattern is None else complaints.collect("match_pattern", lambda: _expression(pattern))
        return None if field is None else Condition(field, value, expression)


def _no_two_alike(instance: object, attribute: object, routes: list[Route]) -> None:
    """Names of routes are unique, because logs and responses use them, and at most one route is the default."""
    found: list[tuple[tuple[str, ...], str]] = []
    names: set[str] = set()
    defaults = 0
    for index, route in enumerate(routes):
        if route.name in names:
            found.append(((str(index), "name"), f"must be unique: another route is called {route.name}"))
        names.add(route.name)
        defaults += route.is_default
        if route.is_default and defaults > 1:
            found.append(((str(index), "is_default"), "must be set for one route only: another route is the default"))
    if found:
        raise Wrong(found)


@attrs.frozen
class Routing:
    """Routes, chosen by fields of the request."""

    routes: list[Route] = attrs.field(factory=list, validator=_no_two_alike)

    def table(self) -> RouteTable:
        """The table of the compiled routes."""
        return RouteTable(route.compiled() for route in self.routes)


def _match_field(name: str) -> Field:
    field = Field.parse(name)
    if field.root == "correlation_id":
        raise ValueError(
            "must not be the correlation id, which is random; a field of the payload is payload.correlation_id"
        )
    return field


def _expression(pattern: Any) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"is not a regular expression: {error}") from None
