# -*- test-case-name: tests.config.test_config -*-
"""Routes as an operator writes them, and the table that is made of them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, TypeVar

import attrs
from attrs.validators import optional

from openhqm.config.structure import Wrong
from openhqm.config.validators import between, not_empty, one_of
from openhqm.policy.fields import Field
from openhqm.policy.routing import CompiledRoute, Condition, RouteTable, Scalar, header_fields, query_fields
from openhqm.policy.transforms import KINDS, MissingPackage, compile_transform

METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
_NAME = re.compile(r"[A-Za-z0-9-]{1,64}")
_T = TypeVar("_T")


class _Complaints:
    """What is wrong with one route: all of it, each with its key."""

    def __init__(self) -> None:
        self.found: list[tuple[tuple[str, ...], str]] = []

    def add(self, key: str, reason: str) -> None:
        self.found.append(((key,), reason))

    def hear(self, key: str, build: Callable[[], _T]) -> _T | None:
        """What ``build`` makes of the value at ``key``, or a complaint."""
        try:
            return build()
        except MissingPackage as error:
            self.add("transform_type", str(error))
        except ValueError as error:
            self.add(key, str(error))
        return None


@attrs.frozen
class Route:
    """Which requests go where, and as what. What is None is for the endpoint to say."""

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

    def __attrs_post_init__(self) -> None:
        """A route that cannot be compiled is none. Raises `Wrong`, so that each complaint has its key."""
        self.compiled()

    def compiled(self) -> CompiledRoute:
        """The same, ready for use."""
        complaints = _Complaints()
        if not _NAME.fullmatch(self.name):
            complaints.add("name", f"must be 1 to 64 letters, digits and hyphens, not {self.name!r}")
        condition = self._condition(complaints)
        transform = complaints.hear("transform", lambda: compile_transform(self.transform_type, self.transform))
        headers = complaints.hear("header_mappings", lambda: header_fields(self.header_mappings))
        query = complaints.hear("query_params", lambda: query_fields(self.query_params))
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
        """When the route is taken; None for the default."""
        value, pattern = self.match_value, self.match_pattern
        if self.match_field is None:
            if value is not None or pattern is not None:
                complaints.add("match_field", "is missing: the field that match_value or match_pattern is about")
            elif not self.is_default:
                complaints.add("match_field", "is missing: without one, say is_default: true if that is meant")
            return None
        if self.is_default:
            complaints.add("match_field", "cannot stand beside is_default, which takes whatever no other route takes")
            return None
        name = self.match_field
        field = complaints.hear("match_field", lambda: _known_at_the_door(name))
        if (value is None) == (pattern is None):
            complaints.add("match_value", "exactly one of match_value and match_pattern goes with match_field")
        if isinstance(value, float) and not math.isfinite(value):
            complaints.add("match_value", f"must be a value that JSON has, not {value}")
        expression = None if pattern is None else complaints.hear("match_pattern", lambda: _expression(pattern))
        return None if field is None else Condition(field, value, expression)


def _no_two_alike(instance: object, attribute: object, routes: list[Route]) -> None:
    """Names are told apart in logs and in answers; of two defaults one would be in vain."""
    found: list[tuple[tuple[str, ...], str]] = []
    names: set[str] = set()
    defaults = 0
    for index, route in enumerate(routes):
        if route.name in names:
            found.append(((str(index), "name"), f"another route is called {route.name}"))
        names.add(route.name)
        defaults += route.is_default
        if route.is_default and defaults > 1:
            found.append(((str(index), "is_default"), "another route is the default"))
    if found:
        raise Wrong(found)


@attrs.frozen
class Routing:
    """Where requests go, by what stands in them."""

    routes: list[Route] = attrs.field(factory=list, validator=_no_two_alike)

    def table(self) -> RouteTable:
        """The routes, ready for use."""
        return RouteTable(route.compiled() for route in self.routes)


def _known_at_the_door(name: str) -> Field:
    field = Field.parse(name)
    if field.root == "correlation_id":
        raise ValueError(
            "the correlation id says nothing about a request; a field of the payload is payload.correlation_id"
        )
    return field


def _expression(pattern: Any) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"is not a regular expression: {error}") from None
