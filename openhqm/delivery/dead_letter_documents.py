# -*- test-case-name: tests.ingress.test_dead_letters -*-
"""The JSON documents for dead letters: a line of a list, and one dead letter whole."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import msgspec
from msgspec.structs import replace

from openhqm.delivery.documents import response_document
from openhqm.messages import DeadLetter
from openhqm.policy.field_text import readable
from openhqm.policy.reason_classes import reason_class
from openhqm.runtime.times import rfc3339

MOST_CHARACTERS = 500


def letter_size(letter: DeadLetter) -> int:
    """How many bytes the bodies of a dead letter have together: those of the request, and of the last reply."""
    submission, reply = letter.request.submission, letter.reply
    return sum(len(part or b"") for part in (submission.payload, submission.body, reply.result, reply.body))


def moved(letter: DeadLetter, seconds: float) -> DeadLetter:
    """``letter`` with all its times later by so many seconds."""
    return (
        letter
        if not seconds
        else replace(
            letter,
            at=letter.at + seconds,
            first_attempt_at=_later(letter.first_attempt_at, seconds),
            last_attempt_at=_later(letter.last_attempt_at, seconds),
            request=replace(letter.request, submitted_at=letter.request.submitted_at + seconds),
            reply=replace(letter.reply, completed_at=letter.reply.completed_at + seconds),
        )
    )


def summary(number: int, letter: DeadLetter) -> dict[str, Any]:
    """What a list says of a dead letter. It is small, however large the request and its reply are."""
    request, reply = letter.request, letter.reply
    return {
        "number": number,
        "correlation_id": request.correlation_id,
        "endpoint": _short(request.submission.endpoint),
        "tenant": request.submission.tenant,
        "reason_class": reason_class(letter).value,
        "reason": _short(letter.reason),
        "status": reply.status.value,
        "status_code": reply.status_code,
        "error": _short(reply.error),
        "attempt": reply.attempt,
        "bytes": letter_size(letter),
        "submitted_at": rfc3339(request.submitted_at),
        "first_attempt_at": _moment(letter.first_attempt_at),
        "last_attempt_at": _moment(letter.last_attempt_at),
        "failed_at": rfc3339(letter.at),
    }


def letter_document(number: int, letter: DeadLetter) -> bytes:
    """A dead letter with its request and the last reply. Bytes that are not JSON are in base64, as ``body_base64``."""
    submission, reply = letter.request.submission, letter.reply
    request: dict[str, Any] = {
        "payload": msgspec.Raw(submission.payload),
        "headers": {name: readable(value) for name, value in submission.headers.items()},
        "metadata": dict(submission.metadata),
        "priority": submission.priority.value,
        "timeout": submission.timeout,
    }
    if submission.body is not None:
        request["body_base64"] = b64encode(submission.body).decode("ascii")
    document: dict[str, Any] = {
        **summary(number, letter),
        "endpoint": submission.endpoint,
        "reason": letter.reason,
        "error": reply.error,
        "request": request,
        "reply": msgspec.Raw(response_document(reply)),
    }
    if reply.body is not None:
        document["reply_body_base64"] = b64encode(reply.body).decode("ascii")
    return msgspec.json.encode(document)


def _later(moment: float | None, seconds: float) -> float | None:
    return None if moment is None else moment + seconds


def _moment(moment: float | None) -> str | None:
    return None if moment is None else rfc3339(moment)


def _short(text: str | None) -> str | None:
    return text if text is None or len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}..."
