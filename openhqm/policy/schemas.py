# -*- test-case-name: tests.policy.test_schemas -*-
"""What a payload has to be: JSON Schema (2020-12), compiled once, and asked about the bytes as they came."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from decimal import Decimal
from itertools import islice
from typing import Any

import attrs

from openhqm.errors import PayloadRefused, SchemaFault, how_to_install
from openhqm.messages import Submission
from openhqm.policy.fields import Document
from openhqm.policy.routing import CompiledRoute
from openhqm.policy.schema_bounds import DIALECTS, check_bounds

MOST_FAULTS = 20
"""How many faults are told of one payload."""
WHOLE_BYTES = 8 * 1024
"""Of a longer payload only the first fault is told: a list of a million wrong elements has a million of them.

So it is for a shorter one where a fault has many parts: one of ``anyOf`` has all faults of all its branches in it.
"""
LONGEST_DETAIL = 200
_REGEX_BYTES = 1024 * 1024
"""How much memory a pattern may take, compiled; and as it runs, which takes time in the length of the text only."""
_SHORT = 4000
"""More digits than Python converts."""


class PayloadSchema:
    """A schema, compiled. `ValueError` where it is none, refers outside, or could cost too much."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        try:
            import jsonschema_rs
        except ImportError:
            raise ValueError(f"needs the package jsonschema-rs: {how_to_install('schema')}") from None
        if schema.get("$schema", DIALECTS[0]) not in DIALECTS:
            raise ValueError(f"has another $schema: only {DIALECTS[0]} is known")
        self._whole_bytes = WHOLE_BYTES // check_bounds(schema)
        regex = jsonschema_rs.RegexOptions(size_limit=_REGEX_BYTES, dfa_size_limit=_REGEX_BYTES)
        try:
            self._validator = jsonschema_rs.Draft202012Validator(
                dict(schema), offline=True, validate_formats=True, mask="the value", pattern_options=regex
            )
        except jsonschema_rs.ValidationError as error:
            raise ValueError(f"is no JSON Schema (2020-12): {_pointer(error.instance_path)}: {error.message}") from None
        except (TypeError, ValueError, OverflowError) as error:  # a date of YAML
            raise ValueError(f"is no JSON Schema (2020-12): {error}") from None
        self._error = jsonschema_rs.ValidationError

    def faults(self, payload: bytes) -> tuple[SchemaFault, ...]:
        """What is wrong with the JSON text ``payload``, up to `MOST_FAULTS`; none: it is as the schema has it."""
        try:
            value = _PARSER.decode(payload.decode("utf-8"))
            if self._validator.is_valid(value):
                return ()
            if len(payload) > self._whole_bytes:
                self._validator.validate(value)
            return tuple(_fault(error) for error in islice(self._validator.iter_errors(value), MOST_FAULTS))
        except self._error as error:
            return (_fault(error),)
        except ValueError:  # a lone surrogate, or in a fault, more digits than Python writes
            return (SchemaFault("", "the value is wrong, or cannot be checked"),)


@attrs.frozen
class Schemas:
    """Which schemas hold for which requests: all that are for its endpoint, its route, or its handler."""

    endpoints: Mapping[str, PayloadSchema] = attrs.field(factory=dict)
    routes: Mapping[str, PayloadSchema] = attrs.field(factory=dict)
    operations: Mapping[str, PayloadSchema] = attrs.field(factory=dict)
    handler: PayloadSchema | None = None

    def check(
        self, submission: Submission, document: Document, endpoint: str | None, route: CompiledRoute | None
    ) -> None:
        """`PayloadRefused` where the payload is not as one of them has it. ``endpoint`` None: a handler answers it."""
        for name, schema in self._of(document, endpoint, route):
            if submission.body is not None:
                raise PayloadRefused(name, (SchemaFault("", "the content must be JSON"),))
            faults = schema.faults(submission.payload)
            if faults:
                raise PayloadRefused(name, faults)

    def _of(
        self, document: Document, endpoint: str | None, route: CompiledRoute | None
    ) -> Iterable[tuple[str, PayloadSchema]]:
        if route is not None and route.name in self.routes and route.endpoint in (None, endpoint):
            yield f"the route {route.name}", self.routes[route.name]
        if endpoint is not None:
            if endpoint in self.endpoints:
                yield f"the endpoint {endpoint}", self.endpoints[endpoint]
        elif self.operations and (operation := document.operation) in self.operations:
            yield f"the operation {operation}", self.operations[str(operation)]
        elif self.handler is not None:
            yield "the handler", self.handler


def compiled(schemas: Mapping[str, Mapping[str, Any] | None]) -> dict[str, PayloadSchema]:
    """Those that are one."""
    return {name: PayloadSchema(schema) for name, schema in schemas.items() if schema is not None}


def _integer(digits: str) -> Any:
    return int(digits) if len(digits) < _SHORT else Decimal(digits)


_PARSER = json.JSONDecoder(parse_float=Decimal, parse_int=_integer)  # a float would round what is compared


def _fault(error: Any) -> SchemaFault:
    detail = error.message
    return SchemaFault(
        _pointer(error.instance_path)[:LONGEST_DETAIL],
        detail if len(detail) <= LONGEST_DETAIL else f"{detail[: LONGEST_DETAIL - 3]}...",
    )


def _pointer(path: Iterable[str | int]) -> str:
    """A JSON Pointer (RFC 6901); empty: the whole."""
    return "".join(f"/{str(each).replace('~', '~0').replace('/', '~1')}" for each in path)
