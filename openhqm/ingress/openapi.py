# -*- test-case-name: tests.ingress.test_openapi -*-
"""The OpenAPI 3.1 description of the HTTP API. A test compares it with the routes and their answers."""

from __future__ import annotations

from functools import cache

import msgspec

from openhqm import __version__
from openhqm.ingress.batch import MOST_REQUESTS
from openhqm.ingress.coalescing import COALESCE, COALESCE_SCHEMA
from openhqm.ingress.openapi_dead_letters import dead_letter_paths, dead_letter_schemas
from openhqm.ingress.openapi_finishing import finishing_paths
from openhqm.ingress.openapi_operations import TAGS, described
from openhqm.ingress.openapi_parts import Json, json_answer, object_of, ref
from openhqm.ingress.openapi_streams import stream_paths
from openhqm.ingress.preferences import MOST_PREFER
from openhqm.ingress.steps import ALL_SCHEMA, THEN_SCHEMA
from openhqm.policy.children import ALL, THEN
from openhqm.policy.forwarding import METHODS

_IDENTITY: Json = {"type": "string", "format": "uuid", "minLength": 36, "maxLength": 36}
_COUNT: Json = {"type": "integer", "minimum": 0}
_STATUS_CODE: Json = {"type": "integer", "minimum": 100, "maximum": 599}


SECURITY: Json = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key or a JSON Web Token."},
    "key": {
        "type": "apiKey",
        "in": "header",
        "name": "OpenHQM-Key",
        "description": "The same, where Authorization is for another reader.",
    },
    "certificate": {"type": "mutualTLS", "description": "A client certificate that the server knows by its name."},
}


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
                "description": "Every error is a problem document (RFC 9457). What v1 has, stays.",
                "license": {"name": "MIT", "identifier": "MIT"},
            },
            "servers": [{"url": "/", "description": "This server."}],
            "security": [{}, {"bearer": []}, {"key": []}, {"certificate": []}],  # auth.type says which are good
            "tags": TAGS,
            "paths": described(_paths(prefix), prefix),
            "components": {"schemas": _schemas(), "responses": _problems(), "securitySchemes": SECURITY},
        }
    )


_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}
_CANCEL = {
    "name": "OpenHQM-Cancel-On-Disconnect",
    "in": "header",
    "description": "`true`: cancel the request where the connection ends while it waits in the queue.",
    "schema": {"type": "string", "enum": ["true", "false"]},
}
_REFUSALS = {
    "400": ref("responses/malformed"),
    "413": ref("responses/too_large"),
    "415": ref("responses/not_json"),
    "422": ref("responses/invalid"),
    "429": ref("responses/limited"),
    "503": ref("responses/unavailable"),
}


def _paths(prefix: str) -> Json:
    one = [{"name": "correlation_id", "in": "path", "required": True, "schema": _IDENTITY}]
    wait = {"name": "wait", "in": "query", "schema": {"type": "integer", "minimum": 0, "maximum": 999_999_999}}
    preference = {"type": "string", "maxLength": MOST_PREFER}
    prefer = {"name": "Prefer", "in": "header", "schema": preference, "example": "wait=10"}
    asked = {"404": ref("responses/unknown"), "410": ref("responses/expired")}
    waited = {"422": ref("responses/invalid"), **asked}
    pending = json_answer("The request has not ended yet.", "status", retry_after=True)
    return {
        "/api/v1/submit": {
            "post": {
                "summary": "Submit a request",
                "parameters": [
                    prefer,
                    _IDEMPOTENCY_KEY,
                    _CANCEL,
                ],
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": ref("schemas/submission")}},
                },
                "responses": {
                    "202": json_answer(
                        "The request is stored, and will end exactly once.", "acceptance", retry_after=True
                    ),
                    "200": {
                        "description": "The response, in time for `Prefer: wait`; or events, if `Accept` asks for it.",
                        "content": {
                            "application/json": {"schema": ref("schemas/response")},
                            "text/event-stream": {"schema": {"type": "string"}},
                        },
                    },
                    **_REFUSALS,
                },
            }
        },
        "/api/v1/batch": {
            "post": {
                "summary": "Submit many requests",
                "parameters": [_IDEMPOTENCY_KEY],
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/json": {"schema": ref("schemas/batch")},
                        "application/x-ndjson": {"schema": {"type": "string"}},
                    },
                },
                "responses": {
                    "202": json_answer("What was accepted, and what was not and why.", "batch_outcome"),
                    **_REFUSALS,
                },
            }
        },
        "/hooks/{name}": {
            "post": {
                "summary": "Deliver a webhook",
                "parameters": [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}],
                "requestBody": {"required": True, "content": {"*/*": {"schema": {}}}},
                "security": [],
                "responses": {
                    "202": json_answer("The webhook is stored, and will be worked on.", "acceptance"),
                    "401": ref("responses/not_genuine"),
                    "429": ref("responses/limited"),
                    "404": ref("responses/unknown_hook"),
                    "413": ref("responses/too_large"),
                    "422": ref("responses/invalid"),
                    "503": ref("responses/unavailable"),
                },
            }
        },
        "/api/v1/status/{correlation_id}": {
            "get": {
                "summary": "The status of a request",
                "parameters": one,
                "responses": {"200": json_answer("The status.", "status"), **asked},
            }
        },
        "/api/v1/response/{correlation_id}": {
            "get": {
                "summary": "The response of a request",
                "parameters": [*one, wait, prefer],
                "responses": {"200": json_answer("The response.", "response"), "202": pending, **waited},
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
                    "200": json_answer("The request had not begun, and will not.", "status"),
                    "202": json_answer("The request had begun; its handler is told to stop.", "status"),
                    "409": ref("responses/ended"),
                    "503": ref("responses/unavailable"),
                    **asked,
                },
            }
        },
        **finishing_paths(one),
        **stream_paths(one, waited),
        **dead_letter_paths(),
        **{
            prefix + path: {"get": {"summary": summary, "responses": responses}}
            for path, summary, responses in (
                (
                    "/health",
                    "The health of the service",
                    {"200": json_answer("Healthy."), "503": json_answer("Degraded.")},
                ),
                (
                    "/health/live",
                    "Whether a restart is not needed",
                    {"200": json_answer("Yes."), "503": ref("responses/unavailable")},
                ),
                (
                    "/health/ready",
                    "Whether requests can be accepted",
                    {"200": json_answer("Yes."), "503": ref("responses/unavailable")},
                ),
                (
                    "/metrics",
                    "Metrics for Prometheus",
                    {
                        "200": {"description": "Metrics.", "content": {"text/plain": {"schema": {"type": "string"}}}},
                        "404": ref("responses/unknown"),
                    },
                ),
                ("/openapi.json", "This document", {"200": json_answer("OpenAPI 3.1.")}),
            )
        },
    }


def _schemas() -> Json:
    moment = {"type": "string", "format": "date-time"}
    statuses = ["PENDING", "PROCESSING", "COMPLETED", "FAILED", "TIMEOUT", "CANCELLED"]
    acceptance = {"correlation_id": _IDENTITY, "status": {"const": "PENDING"}, "submitted_at": moment}
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
                        "path": {"type": "string", "pattern": "^/", "maxLength": 12_289},
                        "query": {"type": ["string", "object", "null"]},
                        "callback_url": {"type": "string", "maxLength": 2048},
                        COALESCE: COALESCE_SCHEMA,
                        THEN: THEN_SCHEMA,
                        ALL: ALL_SCHEMA,
                        "reply_to": {
                            **object_of({"broker": {"type": "string"}, "topic": {"type": "string"}}),
                            "additionalProperties": False,
                        },
                    },
                },
            },
        },
        "batch": {
            **object_of({"requests": {"type": "array", "items": {}, "minItems": 1, "maxItems": MOST_REQUESTS}}),
            "additionalProperties": False,
        },
        "batch_outcome": object_of(
            {
                "accepted": {
                    "type": "array",
                    "items": object_of(
                        {"index": _COUNT, **acceptance},
                        {"replayed": {"const": True}},
                    ),
                },
                "rejected": {
                    "type": "array",
                    "items": object_of({"index": _COUNT, "problem": ref("schemas/problem")}),
                },
            }
        ),
        "acceptance": object_of(acceptance),
        "status": object_of(
            {
                "correlation_id": _IDENTITY,
                "status": {"enum": statuses},
                "submitted_at": moment,
                "updated_at": moment,
                "attempt": _COUNT,
            },
            {
                "next_attempt_at": moment,
                "expires_at": moment,
                "superseded_by": _IDENTITY,
                "steps": {
                    "type": "array",
                    "description": "Where the request consists of steps: each of them, in order.",
                    "items": object_of(
                        {
                            "correlation_id": _IDENTITY,
                            "stage": {"type": "integer", "minimum": 1},
                            "name": {"type": "string"},
                            "status": {"enum": statuses},
                        }
                    ),
                },
            },
        ),
        "response": object_of(
            {
                "correlation_id": _IDENTITY,
                "status": {"enum": statuses[2:]},
                "result": {},
                "status_code": _STATUS_CODE,
                "headers": {"type": "object", "additionalProperties": {"type": "string"}},
                "error": {"type": ["string", "null"]},
                "attempt": _COUNT,
                "processing_time_ms": _COUNT,
                "completed_at": moment,
            },
            {
                "expires_at": moment,
                "reason_class": {"type": "string", "description": "Why it did not complete, in one word."},
                "superseded_by": {**_IDENTITY, "description": "The request that has taken its place."},
            },
        ),
        **dead_letter_schemas(),
        "problem": object_of(
            {
                "type": {"type": "string"},
                "title": {"type": "string"},
                "status": {"type": "integer", "minimum": 400, "maximum": 599},
                "detail": {"type": "string"},
            },
            {
                "instance": {"type": "string"},
                "correlation_id": {"type": "string"},
                "field": {"type": "string"},
                "errors": {
                    "type": "array",
                    "items": object_of({"pointer": {"type": "string"}, "detail": {"type": "string"}}),
                    "description": "What the schema of the payload refuses: JSON Pointers into it (RFC 6901).",
                },
                "largest_message": _COUNT,
                "request_status": {"enum": statuses},
            },
        ),
    }


def _problems() -> Json:
    return {
        name: {
            "description": description,
            "content": {"application/problem+json": {"schema": ref("schemas/problem")}},
        }
        for name, description in (
            ("malformed", "The body is not JSON, or a header field is malformed."),
            ("unknown", "No request has this correlation id."),
            ("unknown_letter", "There is no dead letter with this number."),
            ("refused_letter", "The dead letter cannot be redriven now; the problem says why."),
            ("not_local", "The request is not one of a program on the same host."),
            ("ended", "The request has already ended."),
            ("expired", "The answer has expired."),
            ("too_large", "The body is too long, or the message that it makes is longer than the queue takes."),
            ("not_json", "The content is not application/json."),
            ("invalid", "A field is unknown or has the wrong type or range; the problem names it."),
            ("not_genuine", "The signature is missing, too old or another one."),
            ("not_told", "The token is missing, or is not that of this request."),
            ("unknown_hook", "There is no hook with this name."),
            ("limited", "The caller submits too often, or has sent too many wrong credentials: see `Retry-After`."),
            ("limited", "The caller submits too often: `Retry-After` says when to come again."),
            ("foreign_origin", "The request is that of a page whose origin may not call."),
            ("no_log", "This backend keeps no log of endings."),
            ("unavailable", "This could not be stored safely now. Repeat a submission under the same Idempotency-Key."),
        )
    }
