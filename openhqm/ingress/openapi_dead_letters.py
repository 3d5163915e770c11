# -*- test-case-name: tests.ingress.test_openapi -*-
"""The part of the OpenAPI description that is about dead letters."""

from __future__ import annotations

from openhqm.ingress.dead_letter_queries import FASTEST, MOST_LISTED, SLOWEST, USUAL_LISTED
from openhqm.ingress.openapi_parts import Json, json_answer, object_of, ref
from openhqm.policy.reason_classes import ReasonClass

_LIMIT: Json = {"type": "integer", "minimum": 1, "maximum": MOST_LISTED, "default": USUAL_LISTED}
_MOMENT: Json = {"type": "string", "format": "date-time"}
_ATTEMPTED: Json = {
    "type": ["string", "null"],
    "format": "date-time",
    "description": "When that attempt began; null: there was none.",
}
_FILTER: Json = {
    "endpoint": {"type": "string", "description": "That of the request; empty: it has none."},
    "reason_class": {"enum": [str(kind) for kind in ReasonClass]},
    "since": {**_MOMENT, "description": "The earliest time of failure."},
    "tenant": {"type": "string", "description": "That of the request; empty: it has none."},
}
_LOCAL: Json = {"403": ref("responses/not_local"), "503": ref("responses/unavailable")}
_FLAG: Json = {"type": "boolean", "default": False}
_NUMBER: Json = {"name": "number", "in": "path", "required": True, "schema": {"type": "integer", "minimum": 1}}


def _query(members: Json) -> list[Json]:
    return [{"name": name, "in": "query", "schema": schema} for name, schema in members.items()]


def dead_letter_paths() -> Json:
    """The paths, for programs on the same host."""
    page = {"limit": _LIMIT, "cursor": {"type": "string", "description": "That of the answer before."}}
    return {
        "/api/v1/dead-letters": {
            "get": {
                "summary": "The dead letters that match, the oldest first",
                "parameters": _query({**_FILTER, **page}),
                "responses": {
                    "200": json_answer("A part of them, and where to go on.", "dead_letters"),
                    "422": ref("responses/invalid"),
                    **_LOCAL,
                },
            },
            "delete": {
                "summary": "Drop the dead letters that match, for good",
                "parameters": _query({**_FILTER, "all": _FLAG, "dry_run": _FLAG, **page}),
                "responses": {
                    "200": json_answer("Which were dropped, and where to go on.", "changed_dead_letters"),
                    "422": ref("responses/invalid"),
                    **_LOCAL,
                },
            },
        },
        "/api/v1/dead-letters/redrive": {
            "post": {
                "summary": "Accept the requests of the dead letters that match again, under new ids",
                "requestBody": {"required": True, "content": {"application/json": {"schema": ref("schemas/redrive")}}},
                "responses": {
                    "200": json_answer("Which were redriven, and where to go on.", "changed_dead_letters"),
                    "400": ref("responses/malformed"),
                    "415": ref("responses/not_json"),
                    "422": ref("responses/invalid"),
                    **_LOCAL,
                },
            },
        },
        "/api/v1/dead-letters/{number}/redrive": {
            "post": {
                "summary": "Accept the request of a dead letter again, under a new id",
                "parameters": [_NUMBER],
                "responses": {
                    "202": json_answer("The new request.", "acceptance", retry_after=True),
                    "404": ref("responses/unknown_letter"),
                    "409": ref("responses/refused_letter"),
                    "415": ref("responses/not_json"),
                    **_LOCAL,
                },
            },
        },
        "/api/v1/dead-letters/{number}": {
            "get": {
                "summary": "A dead letter, with its request and the last reply",
                "parameters": [_NUMBER],
                "responses": {
                    "200": json_answer("The dead letter.", "dead_letter"),
                    "404": ref("responses/unknown_letter"),
                    **_LOCAL,
                },
            },
            "delete": {
                "summary": "Drop a dead letter, for good",
                "parameters": [_NUMBER],
                "responses": {
                    "204": {"description": "It is gone."},
                    "404": ref("responses/unknown_letter"),
                    **_LOCAL,
                },
            },
        },
    }


def dead_letter_schemas() -> Json:
    """The documents."""
    summary: Json = {
        "number": {"type": "integer"},
        "correlation_id": {"type": "string"},
        "endpoint": {"type": ["string", "null"]},
        "tenant": {"type": ["string", "null"]},
        "reason_class": _FILTER["reason_class"],
        "reason": {"type": "string"},
        "status": {"enum": ["FAILED", "TIMEOUT", "COMPLETED", "CANCELLED"]},
        "status_code": {"type": "integer"},
        "error": {"type": ["string", "null"]},
        "attempt": {"type": "integer"},
        "bytes": {"type": "integer", "description": "Those of the bodies of the request and of the last reply."},
        "submitted_at": _MOMENT,
        "first_attempt_at": _ATTEMPTED,
        "last_attempt_at": _ATTEMPTED,
        "failed_at": _MOMENT,
    }
    texts: Json = {"type": "object", "additionalProperties": {"type": "string"}}
    request = object_of(
        {
            "payload": {},
            "headers": texts,
            "metadata": {"type": "object", "additionalProperties": True},
            "priority": {"enum": ["low", "normal", "high"]},
            "timeout": {"type": ["number", "null"]},
        },
        {"body_base64": {"type": "string"}},
    )
    named = {name: summary[name] for name in ("number", "correlation_id", "endpoint", "reason_class")}
    cursor = {"type": ["string", "null"], "description": "Where to go on; null: there are no more."}
    return {
        "redrive": {
            "type": "object",
            "required": ["filter"],
            "additionalProperties": False,
            "properties": {
                "filter": {"type": "object", "additionalProperties": False, "properties": _FILTER},
                "dry_run": _FLAG,
                "rate": {
                    "type": ["number", "null"],
                    "minimum": SLOWEST,
                    "maximum": FASTEST,
                    "description": "How many a second at most.",
                },
                "limit": _LIMIT,
                "cursor": cursor,
            },
        },
        "changed_dead_letters": object_of(
            {
                "dry_run": {"type": "boolean"},
                "count": {"type": "integer"},
                "dead_letters": {
                    "type": "array",
                    "items": object_of(named, {"redriven_as": {"type": "string", "format": "uuid"}}),
                },
                "refused": {"type": "array", "items": object_of({**named, "detail": {"type": "string"}})},
                "cursor": cursor,
            }
        ),
        "dead_letters": object_of({"dead_letters": {"type": "array", "items": object_of(summary)}, "cursor": cursor}),
        "dead_letter": object_of(
            {**summary, "request": request, "reply": ref("schemas/response")}, {"reply_body_base64": {"type": "string"}}
        ),
    }
