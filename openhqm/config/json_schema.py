# -*- test-case-name: tests.config.test_json_schema -*-
"""The configuration as JSON Schema (2020-12), for editors: which keys there are, and what each takes.

It is made of the records that the settings are made of. What several keys have to do with each other it does not know:
``openhqm check`` does.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from openhqm.config.structure import Tagged, records_of

Json = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"
_SCALARS: Mapping[Any, str] = {bool: "boolean", int: "integer", float: "number", str: "string"}
_VARIABLE: Json = {"type": "string", "pattern": r"\$\{"}
"""In place of any value but a mapping or a list: what a variable of the environment has."""


def json_schema(settings: type[Any]) -> Json:
    """The schema of a file of ``settings``, which are those over a table of products."""
    return {"$schema": DIALECT, "title": "OpenHQM", **_record(settings)}


def _record(kind: type[Any]) -> Json:
    hints = typing.get_type_hints(kind)
    properties: Json = {}
    for field in attrs.fields(kind):
        name = field.name.rstrip("_")
        properties[name] = {**_of(hints[field.name], field.validator), **_default(field)}
        if str in (hints[field.name], *typing.get_args(hints[field.name])):
            properties[f"{name}_file"] = {"type": "string", "description": f"a file with {name}"}
    required = [field.name.rstrip("_") for field in attrs.fields(kind) if field.default is attrs.NOTHING]
    found: Json = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**found, "required": required} if required else found


def _of(kind: Any, validator: Any = None) -> Json:
    """What a value of the type ``kind`` is. ``validator`` may tell which of those are allowed."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_of(each, validator) for each in arguments]}
    if kind is type(None):
        return {"type": "null"}
    if origin is list:
        return {"type": "array", "items": _of(arguments[0])}
    if origin in (dict, Mapping, typing.get_origin(Mapping[str, str])):
        return {"type": "object", "additionalProperties": _of(arguments[1])}
    if isinstance(kind, type) and issubclass(kind, Tagged):
        return {"anyOf": [_with_type(name, record) for name, record in records_of(kind).items()]}
    if attrs.has(kind):
        return _record(kind)
    if kind in _SCALARS:
        return {"anyOf": [{"type": _SCALARS[kind], **_limits(validator)}, _VARIABLE]}
    return {}


def _with_type(name: str, record: type[Any]) -> Json:
    found = _record(record)
    return {
        **found,
        "properties": {"type": {"const": name}, **found["properties"]},
        "required": ["type", *found.get("required", ())],
    }


def _limits(validator: Any) -> Json:
    """What a validator of `openhqm.config.validators` says about itself."""
    inner: Callable[..., Any] | None = getattr(validator, "validator", validator)  # within attrs' ``optional``
    found: Json = getattr(inner, "schema", {})
    return found


def _default(field: Any) -> Json:
    default = field.default
    if default is attrs.NOTHING or hasattr(default, "takes_self") or not field.repr:  # a factory, or a secret
        return {}
    return {"default": default}
