# -*- test-case-name: tests.ingress.test_openapi -*-
"""The routes for targets that finish a request later, in the OpenAPI description."""

from __future__ import annotations

from openhqm.ingress.openapi_parts import Json, object_of, ref
from openhqm.policy.finishing import COMPLETION


def finishing_paths(one: list[Json]) -> Json:
    """Their paths. ``one`` is the parameter with the id."""
    given = {"name": COMPLETION, "in": "header", "required": True, "schema": {"type": "string", "maxLength": 64}}
    completion = {
        **object_of(
            {},
            {
                "result": {"description": "Any JSON value, carried byte for byte."},
                "status_code": {"type": "integer", "minimum": 200, "maximum": 299, "default": 200},
                "headers": {
                    "type": "object",
                    "additionalProperties": {"type": "string", "maxLength": 8192},
                    "maxProperties": 100,
                },
            },
        ),
        "additionalProperties": False,
    }
    return {
        f"/api/v1/{path}/{{correlation_id}}": {
            "post": {
                "summary": summary,
                "parameters": [*one, given],
                "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
                "security": [],
                "responses": {
                    "204": {"description": done},
                    "400": ref("responses/malformed"),
                    "403": ref("responses/not_told"),
                    "404": ref("responses/unknown"),
                    "409": ref("responses/ended"),
                    "410": ref("responses/expired"),
                    "413": ref("responses/too_large"),
                    "415": ref("responses/not_json"),
                    "422": ref("responses/invalid"),
                    "503": ref("responses/unavailable"),
                },
            }
        }
        for path, summary, schema, done in (
            ("complete", "Finish a request as its target", completion, "The request has ended as COMPLETED."),
            ("progress", "Report the progress of a request as its target", {"type": "object"}, "It is stored."),
        )
    }
