# -*- test-case-name: tests.ingress.test_openapi -*-
"""What the parts of the OpenAPI description are made with."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]


def ref(name: str) -> Json:
    """A reference to a component."""
    return {"$ref": f"#/components/{name}"}


def object_of(required: Json, optional: Json | None = None) -> Json:
    """The schema of an object with these members."""
    return {"type": "object", "required": list(required), "properties": {**required, **(optional or {})}}


def json_answer(description: str, schema: str | None = None, *, retry_after: bool = False) -> Json:
    """A response with a JSON document; ``schema`` is the name of a component."""
    response: Json = {
        "description": description,
        "content": {"application/json": {"schema": ref(f"schemas/{schema}") if schema else {"type": "object"}}},
    }
    if retry_after:
        response["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
    return response
