# -*- test-case-name: tests.policy.test_routing -*-
"""Which route a request takes, and what is sent to its endpoint."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

import attrs

from openhqm.errors import TransformFailed
from openhqm.messages import Submission
from openhqm.policy.fields import Document, Field, spelled
from openhqm.policy.transforms import Passthrough, Transform

Scalar = str | int | float | bool

# RFC 9110, section 5.5, without tabs, and without what some readers take for the end of a line
_FIELD_VALUE = re.compile("[\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\U0010ffff]{0,8192}")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}")
# What frames a message and names its receiver is for whoever sends it, never for the data.
_NOT_FOR_DATA = frozenset(
    ("connection", "content-length", "expect", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade")
)


@attrs.frozen
class Condition:
    """What a field has to be: equal to ``value`` as JSON has it, or text in which ``pattern`` is found."""

    field: Field
    value: Scalar | None = None
    pattern: re.Pattern[str] | None = None

    def holds(self, document: Document) -> bool:
        """Whether the request is so. A field that is missing is nothing, and null, lists and objects neither."""
        text = document.find(self.field)
        if text is None or text[:1] in b"n[{":
            return False
        try:
            if self.pattern is not None:
                return self.pattern.search(spelled(text)) is not None
            value = json.loads(text)
        except ValueError:  # digits without end, or half of a surrogate pair
            return False
        return value == self.value and isinstance(value, bool) == isinstance(self.value, bool)


@attrs.frozen
class Outgoing:
    """What is sent for one request: the content with its type, and the fields mapped to headers and to the query."""

    content: bytes
    content_type: str
    headers: dict[str, str]
    query: dict[str, str]


def _nothing() -> Mapping[str, Field]:
    return {}


@attrs.frozen
class CompiledRoute:
    """One route, ready for use. Without a condition it is the default: it takes what no other route takes.

    What is None is for the endpoint's own settings to say.
    """

    name: str
    condition: Condition | None = None
    priority: int = 0
    endpoint: str | None = None
    method: str | None = None
    timeout: float | None = None
    transform: Transform = attrs.field(factory=Passthrough)
    headers: Mapping[str, Field] = attrs.field(factory=_nothing)
    query: Mapping[str, Field] = attrs.field(factory=_nothing)

    def outgoing(self, document: Document) -> Outgoing:
        """What is sent for the request. `TransformFailed` names the route, and what is wrong with the request."""
        try:
            content = self.transform.apply(document)
            headers, query = _mapped(self.headers, document), _mapped(self.query, document)
            for name, value in headers.items():
                if not _FIELD_VALUE.fullmatch(value):
                    raise TransformFailed(
                        f"{self.headers[name].name} cannot be sent in the header {name}: "
                        "it must be at most 8192 characters without line breaks or controls"
                    )
        except TransformFailed as error:
            raise TransformFailed(error.reason, self.name) from None
        return Outgoing(content, self.transform.content_type, headers, query)


class RouteTable:
    """All routes, in the order in which they are tried: the highest priority first, then as given; the default last."""

    def __init__(self, routes: Iterable[CompiledRoute] = ()) -> None:
        self._routes = sorted(routes, key=lambda route: (route.condition is None, -route.priority))

    def choose(self, submission: Submission) -> CompiledRoute | None:
        """The route of a submission, or None. The payload is looked into only if a route asks for it."""
        return self.choose_for(Document(submission))

    def choose_for(self, document: Document) -> CompiledRoute | None:
        """The same for a document, which keeps what was read of it for `CompiledRoute.outgoing`."""
        for route in self._routes:
            if route.condition is None or route.condition.holds(document):
                return route
        return None


def header_fields(mappings: Mapping[str, str]) -> dict[str, Field]:
    """The fields of a mapping from header names. `ValueError` for a name that cannot be one, or must not."""
    seen: set[str] = set()
    for name in mappings:
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"{name!r} is not a header name")
        if name.lower() in _NOT_FOR_DATA:
            raise ValueError(f"{name} is not for a route to set")
        if name.lower() in seen:
            raise ValueError(f"{name} stands twice")
        seen.add(name.lower())
    return query_fields(mappings)


def query_fields(mappings: Mapping[str, str]) -> dict[str, Field]:
    """The fields of a mapping from the names of query parameters. `ValueError` for what is not a field."""
    fields = {}
    for name, field in mappings.items():
        try:
            fields[name] = Field.parse(field)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return fields


def _mapped(fields: Mapping[str, Field], document: Document) -> dict[str, str]:
    """The values of the fields that are there."""
    values = {}
    for name, field in fields.items():
        text = document.find(field)
        if text is not None:
            try:
                values[name] = spelled(text)
            except ValueError:
                raise TransformFailed(f"{field.name} is not text that can be sent") from None
    return values
