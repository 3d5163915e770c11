# -*- test-case-name: tests.ingress.test_openapi -*-
"""The event streams in the OpenAPI description: that of one request, and that of the endings of many."""

from __future__ import annotations

from openhqm.delivery.selection import MOST_IDS
from openhqm.ingress.openapi_parts import Json, ref
from openhqm.ingress.stream_query import EVENTS
from openhqm.policy.tags import MOST_TAG_CHARACTERS, MOST_TAGS

_EVENT: Json = {"type": "integer", "minimum": 0, "maximum": 10**15 - 1}
_STREAM: Json = {
    "description": "Server-Sent Events.",
    "content": {"text/event-stream": {"schema": {"type": "string"}}},
}
_TAG: Json = {"type": "string", "minLength": 1, "maxLength": MOST_TAG_CHARACTERS}


def stream_paths(one: list[Json], asked: Json) -> Json:
    """The paths. ``one`` is the parameter with the id of a request, ``asked`` are the problems of asking for one."""
    return {
        "/api/v1/events/{correlation_id}": {
            "get": {
                "summary": "The events of a request: those so far, and then live until it ends",
                "parameters": [*one, *_last_event_id(_EVENT)],
                "responses": {
                    "200": _STREAM,
                    "204": {"description": "The request has ended, and there are no more events."},
                    **asked,
                },
            }
        },
        "/api/v1/ws": {
            "get": {
                "summary": "Events and submissions over a WebSocket",
                "responses": {
                    "101": {"description": "It has begun."},
                    "400": ref("responses/malformed"),
                    "403": ref("responses/foreign_origin"),
                    "426": {"description": "The request asks for no WebSocket, or for another version than 13."},
                    "501": {"description": "The package wsproto is not installed."},
                    "503": ref("responses/unavailable"),
                },
            }
        },
        EVENTS: {
            "get": {
                "summary": "The endings of many requests, live",
                "parameters": [
                    _many("id", {"type": "string"}, MOST_IDS),
                    _many("tag", _TAG, MOST_TAGS),
                    *_last_event_id({"type": "string"}),
                ],
                "responses": {
                    "200": _STREAM,
                    "204": {"description": "All these requests have ended, and the client has their endings."},
                    "501": ref("responses/no_log"),
                    "503": ref("responses/unavailable"),
                    **asked,
                },
            }
        },
    }


def _last_event_id(schema: Json) -> tuple[Json, Json]:
    return (
        {"name": "Last-Event-ID", "in": "header", "schema": schema},
        {"name": "last_event_id", "in": "query", "schema": schema},
    )


def _many(name: str, schema: Json, most: int) -> Json:
    return {"name": name, "in": "query", "schema": {"type": "array", "items": schema, "maxItems": most}}
