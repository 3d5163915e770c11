# -*- test-case-name: tests.policy.test_routing -*-
"""Which route a request takes, and what the route sends to its endpoint."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

import attrs

from openhqm.errors import TransformFailed
from openhqm.messages import Submission
from openhqm.policy.fields import Document, Field, to_text
from openhqm.policy.transforms import Passthrough, Transform

Scalar = str | int | float | bool

# RFC 9110, section 5.5, without tabs, and without characters that some readers take for a line end
_FIELD_VALUE = re.compile("[\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\U0010ffff]{0,8192}")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}")
# Fields that frame the message or name its receiver. Values of a request must not set them.
_NOT_MAPPABLE = frozenset(
    ("connection", "content-length", "expect", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade")
)


@attrs.frozen
class Condition:
    """A field equals ``value``, as JSON values compare, or ``pattern`` is found in its text."""

    field: Field
    value: Scalar | None = None
    pattern: re.Pattern[str] | None = None

    def matches(self, document: Document) -> bool:
        """Whether the request meets the condition. A field that is missing, null, a list or an object does not."""
        text = document.find(self.field)
        if text is None or text[:1] in b"n[{":
            return False
        try:
            if self.pattern is not None:
                return self.pattern.search(to_text(text)) is not None
            value = json.loads(text)
        except ValueError:  # a number with too many digits, or a lone surrogate
            return False
        return value == self.value and isinstance(value, bool) == isinstance(self.value, bool)


@attrs.frozen
class Outgoing:
    """What is sent for one request: the content and its type, and values for header fields and for the query."""

    content: bytes
    content_type: str
    headers: dict[str, str]
    query: dict[str, str]


def _no_fields() -> Mapping[str, Field]:
    return {}


@attrs.frozen
class CompiledRoute:
    """One route, compiled. Without a condition it is the default: it takes what no other route takes.

    Attributes that are None are left to the endpoint's settings.
    """

    name: str
    condition: Condition | None = None
    priority: int = 0
    endpoint: str | None = None
    method: str | None = None
    timeout: float | None = None
    transform: Transform = attrs.field(factory=Passthrough)
    headers: Mapping[str, Field] = attrs.field(factory=_no_fields)
    query: Mapping[str, Field] = attrs.field(factory=_no_fields)

    def outgoing(self, document: Document) -> Outgoing:
        """What is sent for the request. Raises `TransformFailed`, with the route and the reason."""
        try:
            content = self.transform.apply(document)
            headers, query = _mapped(self.headers, document), _mapped(self.query, document)
            for name, value in headers.items():
                if not _FIELD_VALUE.fullmatch(value):
                    raise TransformFailed(
                        f"the value of {self.headers[name].name} cannot be sent in the header {name}: "
                        "it must be at most 8192 characters without line breaks or controls"
                    )
        except TransformFailed as error:
            raise TransformFailed(error.reason, self.name) from None
        return Outgoing(content, self.transform.content_type, headers, query)


class RouteTable:
    """All routes, in the order in which they are tried: by descending priority, then as configured; the
    default last.
    """

    def __init__(self, routes: Iterable[CompiledRoute] = ()) -> None:
        self._routes = sorted(routes, key=lambda route: (route.condition is None, -route.priority))

    def choose(self, submission: Submission) -> CompiledRoute | None:
        """The route of a submission, or None. The payload is parsed only if a route needs a field of it."""
        return self.choose_for(Document(submission))

    def choose_for(self, document: Document) -> CompiledRoute | None:
        """The same for a document, which keeps the parsed parts for `CompiledRoute.outgoing`."""
        for route in self._routes:
            if route.condition is None or route.condition.matches(document):
                return route
        return None


def header_fields(mappings: Mapping[str, str]) -> dict[str, Field]:
    """The fields that are mapped to header names. Raises `ValueError` for an invalid or forbidden name."""
    seen: set[str] = set()
    for name in mappings:
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"{name!r} is not a header name")
        if name.lower() in _NOT_MAPPABLE:
            raise ValueError(f"{name} must not be set by a route")
        if name.lower() in seen:
            raise ValueError(f"{name} is repeated")
        seen.add(name.lower())
    return query_fields(mappings)


def query_fields(mappings: Mapping[str, str]) -> dict[str, Field]:
    """The fields that are mapped to query parameters. Raises `ValueError` where one is not a field."""
    fields = {}
    for name, field in mappings.items():
        try:
            fields[name] = Field.parse(field)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return fields


def _mapped(fields: Mapping[str, Field], document: Document) -> dict[str, str]:
    """The values of those fields that the request has."""
    values = {}
    for name, field in fields.items():
        text = document.find(field)
        if text is not None:
            try:
                values[name] = to_text(text)
            except ValueError:
                raise TransformFailed(f"the value of {field.name} cannot be sent as text") from None
    return values
