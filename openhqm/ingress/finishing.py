# -*- test-case-name: tests.ingress.test_finishing -*-
"""Ends a request that its target finishes later, and reports its progress, for the holder of its token."""

from __future__ import annotations

import hmac

import msgspec

from openhqm.errors import InvalidRequest
from openhqm.http1.messages import Answer
from openhqm.ingress.answers import HTTPProblem, field
from openhqm.ingress.door import Door, HeaderField
from openhqm.ingress.preferences import check_encoding, check_json_type
from openhqm.ingress.submission import read_headers
from openhqm.messages import Reply, Status
from openhqm.policy.finishing import COMPLETION
from openhqm.policy.json_text import members, parse_object

_MEMBERS = ("result", "status_code", "headers")
_NO_TOKEN = f"this needs the token that the target of the request was given: {COMPLETION}"
_FIELD = COMPLETION.lower().encode()
_NO_CONTENT = Answer(204)


async def complete(door: Door, correlation_id: str, body: bytes, fields: HeaderField) -> Answer:
    """End the request as COMPLETED, with the ``result`` in ``body``: 204, once that is durable.

    `HTTPProblem` 403 where the token is not that of this request, `InvalidRequest`, `MalformedJSON`, `AlreadyEnded`,
    `UnknownRequest`, `ExpiredRequest`, `NotDurable`.
    """
    _check(door, correlation_id, fields)
    found = members(body)
    for name in found:
        if name not in _MEMBERS:
            raise InvalidRequest(name, f"unknown field; a completion has {', '.join(_MEMBERS)}")
    status_code = _status_code(found.get("status_code", b"200"))
    headers = read_headers(found["headers"]) if "headers" in found else {}
    attempt = (await door.store.find(correlation_id)).attempt
    result = found.get("result", b"null")
    reply = Reply(
        correlation_id.lower(),
        Status.COMPLETED,
        door.now,
        None if result == b"null" else result,
        status_code=status_code,
        headers=headers,
        attempt=attempt,
    )
    await door.store.end(correlation_id, reply)
    return _NO_CONTENT


async def progress(door: Door, correlation_id: str, body: bytes, fields: HeaderField) -> Answer:
    """Add the object in ``body`` to the history of the request: 204. The errors of `complete`; 422 past its limits."""
    _check(door, correlation_id, fields)
    members(body)
    detail = parse_object(body, "the body")
    attempt = (await door.store.find(correlation_id)).attempt
    try:
        await door.store.progress(correlation_id, {**detail, "attempt": attempt})
    except ValueError as error:
        raise InvalidRequest("progress", str(error)) from None
    return _NO_CONTENT


def _check(door: Door, correlation_id: str, fields: HeaderField) -> None:
    """The token decides before anything is looked up: a wrong one learns nothing of the id."""
    check_json_type(field(fields, b"content-type"))
    check_encoding(field(fields, b"content-encoding"))
    given, token = field(fields, _FIELD), door.store.completion_token(correlation_id)
    if given is None or token is None or not hmac.compare_digest(given.encode(), token.encode()):
        raise HTTPProblem(403, _NO_TOKEN)


def _status_code(text: bytes) -> int:
    try:
        code: int = msgspec.json.decode(text, type=int)
    except (msgspec.DecodeError, msgspec.ValidationError):
        code = 0
    if not 200 <= code < 300:
        raise InvalidRequest("status_code", "must be a whole number from 200 to 299")
    return code
