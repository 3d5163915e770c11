# -*- test-case-name: tests.ingress.test_openapi -*-
"""The name, the group and the description of each operation in the OpenAPI description.

Programs that generate clients name their methods after ``operationId``: once given, such a name stays.
"""

from __future__ import annotations

from openhqm.ingress.openapi_parts import Json

TAGS: list[Json] = [
    {"name": "requests", "description": "Submit requests, and get their answers."},
    {"name": "dead letters", "description": "What could not be done. For programs on the same host."},
    {"name": "operating", "description": "For operators, load balancers and monitoring."},
]
_REQUESTS, _LETTERS, _OPERATING = (tag["name"] for tag in TAGS)
_LETTER = "/api/v1/dead-letters"

_OPERATIONS: dict[tuple[str, str], tuple[str, str, str]] = {
    ("/api/v1/submit", "post"): (
        "submit",
        _REQUESTS,
        "The 202 comes once the request is stored durably. With `Prefer: wait=N` the response comes instead where the "
        "request ends in time. A repetition under the same `Idempotency-Key` is the same request.",
    ),
    ("/api/v1/batch", "post"): (
        "submitBatch",
        _REQUESTS,
        "The 202 comes once every request in `accepted` is stored durably. Under an `Idempotency-Key` a batch can be "
        "repeated: each request is known by its place in it.",
    ),
    ("/hooks/{name}", "post"): (
        "deliverHook",
        _REQUESTS,
        "The signature of the sender is its credential. A delivery that is repeated is the same request.",
    ),
    ("/api/v1/status/{correlation_id}", "get"): (
        "getStatus",
        _REQUESTS,
        "Every instance that shares the result store answers, from the 202 until the expiry.",
    ),
    ("/api/v1/response/{correlation_id}", "get"): (
        "getResponse",
        _REQUESTS,
        "With `?wait=N` or `Prefer: wait=N` the answer is given as soon as the request ends, or after N seconds.",
    ),
    ("/api/v1/response/{correlation_id}/body", "get"): (
        "getResponseBody",
        _REQUESTS,
        "The handler's status code, content type and content, byte for byte.",
    ),
    ("/api/v1/cancel/{correlation_id}", "post"): (
        "cancel",
        _REQUESTS,
        "The request ends with CANCELLED now, whether or not its handler has begun.",
    ),
    ("/api/v1/complete/{correlation_id}", "post"): (
        "complete",
        _REQUESTS,
        "For a target that has answered 202 with `OpenHQM-Finish: later`. Its token is the credential, and good once.",
    ),
    ("/api/v1/progress/{correlation_id}", "post"): (
        "reportProgress",
        _REQUESTS,
        "For a target, with the token that it was given: the object becomes a `progress` event of the request.",
    ),
    ("/api/v1/ws", "get"): (
        "openWebSocket",
        _REQUESTS,
        "WebSocket (RFC 6455), which OpenAPI cannot describe: subscribe to requests, to tags or to everything, and "
        "submit. Each message is a JSON object.",
    ),
    ("/api/v1/events/{correlation_id}", "get"): (
        "getEvents",
        _REQUESTS,
        "Server-Sent Events (HTML standard, section 9.2), numbered from 1 without a gap. `Last-Event-ID` resumes.",
    ),
    ("/api/v1/events", "get"): (
        "getEndings",
        _REQUESTS,
        "Server-Sent Events: the endings of the requests with an `id`, with a `tag`, or of all, as they happen. The id "
        "of an event is a cursor for `Last-Event-ID`; one that does not hold any more gives the event `reset`.",
    ),
    (_LETTER, "get"): ("listDeadLetters", _LETTERS, "A page, and the cursor of the next one."),
    (_LETTER, "delete"): ("dropDeadLetters", _LETTERS, "Needs a filter or `all`. `dry_run` changes nothing."),
    (_LETTER + "/redrive", "post"): ("redriveDeadLetters", _LETTERS, "`dry_run` changes nothing."),
    (_LETTER + "/{number}/redrive", "post"): (
        "redriveDeadLetter",
        _LETTERS,
        "The new request has a correlation id of its own.",
    ),
    (_LETTER + "/{number}", "get"): ("getDeadLetter", _LETTERS, "The numbers are those of the list."),
    (_LETTER + "/{number}", "delete"): ("dropDeadLetter", _LETTERS, "The request cannot be redriven after that."),
    ("/health", "get"): ("getHealth", _OPERATING, "The state of each part."),
    ("/health/live", "get"): ("getLiveness", _OPERATING, "503 where only a restart helps."),
    ("/health/ready", "get"): ("getReadiness", _OPERATING, "503 where a 202 could not be kept, and while draining."),
    ("/metrics", "get"): ("getMetrics", _OPERATING, "In the text format of Prometheus. 404 where they are disabled."),
    ("/openapi.json", "get"): ("getDescription", _OPERATING, "OpenAPI 3.1."),
}


def described(paths: Json, prefix: str) -> Json:
    """``paths`` with the name, group and description of each operation; ``prefix`` is that of the operators' paths."""
    complete: Json = {}
    for path, methods in paths.items():
        complete[path] = {}
        for method, operation in methods.items():
            key = (path, method)
            name, tag, description = _OPERATIONS[key if key in _OPERATIONS else (path.removeprefix(prefix), method)]
            complete[path][method] = {
                "operationId": name,
                "tags": [tag],
                "description": description,
                **operation,
            }
    return complete
