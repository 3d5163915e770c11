# -*- test-case-name: tests.ingress.test_openapi -*-
"""The OpenAPI 3.1 description of the HTTP API. A test compares it with the routes and their answers."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

from openhqm import __version__
from openhqm.policy.forwarding import METHODS

Json = dict[str, Any]


@cache
def document(prefix: str = "") -> bytes:
    """The description as JSON text. ``prefix`` is that of the paths for operators."""
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "OpenHQM",
                "version": __version__,
                "summary": "A durable queue between HTTP callers and the code or service that answers them.",
                "license": {"name": "MIT", "identifier": "MIT"},
            },
            "paths": _paths(prefix),
            "components": {"schemas": _schemas(), "responses": _problems()},
        }
    )


def _paths(prefix: str) -> Json:
    one = [{"name": "correlation_id", "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}]
    wait = {"name": "wait", "in": "query", "schema": {"type": "integer", "minimum": 0}}
    prefer = {"name": "Prefer", "in": "header", "schema": {"type": "string"}, "example": "wait=10"}
    asked = {"404": _ref("responses/unknown"), "410": _ref("responses/expired")}
    waited = {"422": _ref("responses/invalid"), **asked}
    pending = _json("The request has not ended yet.", "status", retry_after=True)
    return {
        "/api/v1/submit": {
            "post": {
                "summary": "Submit a request",
                "parameters": [
                    prefer,
                    {
                        "name": "Idempotency-Key",
                        "in": "header",
                        "schema": {"type": "string", "minLength": 1, "maxLength": 255},
                    },
                ],
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": _ref("schemas/submission")}},
                },
                "responses": {
                    "202": _json("The request is stored, and will end exactly once.", "acceptance", retry_after=True),
                    "200": {
                        "description": "The response, in time for `Prefer: wait`; or events, if `Accept` asks for it.",
                        "content": {
                            "application/json": {"schema": _ref("schemas/response")},
                            "text/event-stream": {"schema": {"type": "string"}},
                        },
                    },
                    **{
                        str(status): _ref(f"responses/{name}")
                        for status, name in (
                            (400, "malformed"),
                            (413, "too_large"),
                            (415, "not_json"),
                            (422, "invalid"),
                            (503, "unavailable"),
                        )
                    },
                },
            }
        },
        "/api/v1/status/{correlation_id}": {
            "get": {
                "summary": "The status of a request",
                "parameters": one,
                "responses": {"200": _json("The status.", "status"), **asked},
            }
        },
        "/api/v1/response/{correlation_id}": {
            "get": {
                "summary": "The response of a request",
                "parameters": [*one, wait, prefer],
                "responses": {"200": _json("The response.", "response"), "202": pending, **waited},
            }
        },
        "/api/v1/response/{correlation_id}/body": {
            "get": {
                "summary": "The reply with its own status, header fields and bytes",
                "parameters": [*one, wait],
                "responses": {
                    "default": {"description": "The reply, or a problem where the request did not complete."},
                    "202": pending,
                    **waited,
                },
            }
        },
        "/api/v1/cancel/{correlation_id}": {
            "post": {
                "summary": "Cancel a request",
                "parameters": one,
                "responses": {
                    "200": _json("The request had not begun, and will not.", "status"),
                    "202": _json("The request had begun; its handler is told to stop.", "status"),
                    "409": _ref("responses/ended"),
                    "503": _ref("responses/unavailable"),
                    **asked,
                },
            }
        },
        "/api/v1/events/{correlation_id}": {
            "get": {
                "summary": "The events of a request: those so far, and then live until it ends",
                "parameters": [
                    *one,
                    {"name": "Last-Event-ID", "in": "header", "schema": {"type": "integer"}},
                    {"name": "last_event_id", "in": "query", "schema": {"type": "integer"}},
                ],
                "responses": {
                    "200": {
                        "description": "Server-Sent Events.",
                        "content": {"text/event-stream": {"schema": {"type": "string"}}},
                    },
                    "204": {"description": "The request has ended, and there are no more events."},
                    **waited,
                },
            }
        },
        **{
            prefix + path: {"get": {"summary": summary, "responses": responses}}
            for path, summary, responses in (
                (
                    "/health",
                    "The health of the service",
                    {"200": _json("Healthy."), "503": _json("Degraded.")},
                ),
                (
                    "/health/live",
                    "Whether a restart is not needed",
                    {"200": _json("Yes."), "503": _ref("responses/unavailable")},
                ),
                (
                    "/health/ready",
                    "Whether requests can be accepted",
                    {"200": _json("Yes."), "503": _ref("responses/unavailable")},
                ),
                (
                    "/metrics",
                    "Metrics for Prometheus",
                    {
                        "200": {"description": "Metrics.", "content": {"text/plain": {"schema": {"type": "string"}}}},
                        "404": _ref("responses/unknown"),
                    },
                ),
                ("/openapi.json", "This document", {"200": _json("OpenAPI 3.1.")}),
            )
        },
    }


def _schemas() -> Json:
    moment = {"type": "string", "format": "date-time"}
    identity = {"type": "string", "format": "uuid"}
    statuses = ["PENDING", "PROCESSING", "COMPLETED", "FAILED", "TIMEOUT", "CANCELLED"]
    return {
        "submission": {
            "type": "object",
            "required": ["payload"],
            "additionalProperties": False,
            "properties": {
                "payload": {"description": "Any JSON value, carried byte for byte."},
                "headers": {
                    "type": ["object", "null"],
                    "additionalProperties": {"type": "string", "maxLength": 8192},
                    "maxProperties": 100,
                },
                "metadata": {
                    "type": ["object", "null"],
                    "additionalProperties": True,
                    "properties": {
                        "priority": {"enum": ["low", "normal", "high"], "default": "normal"},
                        "timeout": {"type": "number", "exclusiveMinimum": 0, "maximum": 2592000},
                        "delay": {"type": "number", "minimum": 0, "maximum": 2592000},
                        "not_before": moment,
                        "operation": {"type": "string"},
                        "partition_key": {"type": "string"},
                        "tags": {
                            "type": "array",
                            "items": {"type": "string", "minLength": 1, "maxLength": 128},
                            "maxItems": 20,
                        },
                        "endpoint": {"type": "string"},
                        "method": {"enum": list(METHODS)},
                        "path": {"type": "string", "pattern": "^/"},
                        "query": {"type": ["string", "object", "null"]},
                    },
                },
            },
        },
        "acceptance": _object({"correlation_id": identity, "status": {"const": "PENDING"}, "submitted_at": moment}),
        "status": _object(
            {
                "correlation_id": identity,
                "status": {"enum": statuses},
                "submitted_at": moment,
                "updated_at": moment,
                "attempt": {"type": "integer"},
            },
            {"next_attempt_at": moment, "expires_at": moment},
        ),
        "response": _object(
            {
                "correlation_id": identity,
                "status": {"enum": statuses[2:]},
                "result": {},
                "status_code": {"type": "integer"},
                "headers": {"type": "object", "additionalProperties": {"type": "string"}},
                "error": {"type": ["string", "null"]},
                "attempt": {"type": "integer"},
                "processing_time_ms": {"type": "integer"},
                "completed_at": moment,
            },
            {
                "expires_at": moment,
                "reason_class": {"type": "string", "description": "Why it did not complete, in one word."},
            },
        ),
        "problem": _object(
            {
                "type": {"type": "string"},
                "title": {"type": "string"},
                "status": {"type": "integer"},
                "detail": {"type": "string"},
            },
            {
                "instance": {"type": "string"},
                "correlation_id": {"type": "string"},
                "field": {"type": "string"},
                "largest_message": {"type": "integer"},
                "request_status": {"enum": statuses},
            },
        ),
    }


def _problems() -> Json:
    return {
        name: {
            "description": description,
            "content": {"application/problem+json": {"schema": _ref("schemas/problem")}},
        }
        for name, description in (
            ("malformed", "The body is not JSON, or a header field is malformed."),
            ("unknown", "No request has this correlation id."),
            ("ended", "The request has already ended."),
            ("expired", "The answer has expired."),
            ("too_large", "The body is too long, or the message that it makes is longer than the queue takes."),
            ("not_json", "The content is not application/json."),
            ("invalid", "A field is unknown or has the wrong type or range; the problem names it."),
            ("unavailable", "This could not be stored safely now. Repeat a submission under the same Idempotency-Key."),
        )
    }


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/{name}"}


def _object(required: Json, optional: Json | None = None) -> Json:
    return {"type": "object", "required": list(required), "properties": {**required, **(optional or {})}}


def _json(description: str, schema: str | None = None, *, retry_after: bool = False) -> Json:
    response: Json = {
        "description": description,
        "content": {"application/json": {"schema": _ref(f"schemas/{schema}") if schema else {"type": "object"}}},
    }
    if retry_after:
        response["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
    return response
