# -*- test-case-name: tests.ingress.test_batch -*-
"""Many submissions in one request: each is accepted or refused for itself, and the answer says which."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b

import msgspec

from openhqm.delivery.documents import acceptance_document
from openhqm.errors import InvalidRequest, MalformedJSON, NotDurable, OpenHQMError
from openhqm.http1.messages import Answer
from openhqm.ingress.answers import field, problem, problem_for
from openhqm.ingress.door import Door, HeaderField, carried
from openhqm.ingress.preferences import check_encoding, check_json_type, claim_of
from openhqm.ingress.steps import StepBudget
from openhqm.ingress.submission import read_submission
from openhqm.messages import Acceptance, IdempotencyClaim, Submission
from openhqm.policy.json_text import members

BATCH = "/api/v1/batch"
MOST_REQUESTS = 1000
MOST_STEPS = 1000
MOST_STEP_BYTES = 64 * 1024 * 1024
"""What the requests of a batch that consist of steps may have of these, all together."""
NDJSON = ("application/x-ndjson", "application/ndjson", "application/jsonl")
_MEMBER = "requests"
MOST_LINES = 10 * MOST_REQUESTS
"""Of NDJSON, with those that are empty."""
_NONE = msgspec.Raw()
# A list that is far too long would become millions of objects before it is counted. This stops at the first too many.
_Requests = msgspec.defstruct(
    "_Requests",
    [(f"request{number}", msgspec.Raw, _NONE) for number in range(MOST_REQUESTS)],
    array_like=True,
    forbid_unknown_fields=True,
)
_LIST = msgspec.json.Decoder(_Requests)
_RAW = msgspec.json.Encoder()


def read_batch(body: bytes, content_type: str | None) -> list[bytes]:
    """The submissions in ``body``, each as it came: the lines of NDJSON, or the list ``requests`` of a JSON object.

    `HTTPProblem` 415, `MalformedJSON`, `InvalidRequest`.
    """
    if (content_type or "").partition(";")[0].strip().lower() in NDJSON:
        if body.count(b"\n") > MOST_LINES:
            raise InvalidRequest(_MEMBER, f"must have at most {MOST_LINES} lines, with those that are empty")
        found = [line for line in body.split(b"\n") if line.strip()]
    else:
        check_json_type(content_type)
        found = _read_list(body)
    if not found:
        raise InvalidRequest(_MEMBER, "must have at least one request")
    if len(found) > MOST_REQUESTS:
        raise InvalidRequest(_MEMBER, f"must have at most {MOST_REQUESTS} requests, not {len(found)}")
    return found


def _read_list(body: bytes) -> list[bytes]:
    outer = members(body)
    for name in outer:
        if name != _MEMBER:
            raise InvalidRequest(name, f"unknown field; a batch has {_MEMBER}")
    if _MEMBER not in outer:
        raise InvalidRequest(_MEMBER, "is missing")
    try:
        found = msgspec.structs.astuple(_LIST.decode(outer[_MEMBER]))
    except msgspec.ValidationError:
        is_list = outer[_MEMBER].lstrip()[:1] == b"["
        reason = f"must have at most {MOST_REQUESTS} requests" if is_list else "must be a list"
        raise InvalidRequest(_MEMBER, reason) from None
    except msgspec.DecodeError as error:
        raise MalformedJSON(str(error)) from None
    return [bytes(each) for each in found if each is not _NONE]


async def submit_batch(
    door: Door,
    body: bytes,
    fields: HeaderField,
    limit: Callable[[int], object] = lambda count: None,
    tenant: str | None = None,
) -> Answer:
    """Have each submission accepted that can be, all of them at once: 202, where at least one is.

    ``limit`` is told how many there are, and raises where its caller may not send so many now.
    With an ``Idempotency-Key``, each is known by that and its place in the batch, so that the batch can be repeated.
    `HTTPProblem`, `MalformedJSON` or `InvalidRequest` where it is no batch, `NotDurable` where nothing can be stored.
    """
    check_encoding(field(fields, b"content-encoding"))
    found = read_batch(body, field(fields, b"content-type"))
    limit(len(found))
    whole, trace = claim_of(field(fields, b"idempotency-key"), BATCH, b""), carried(fields)

    def read(index: int, text: bytes, now: float) -> tuple[Submission, IdempotencyClaim | None]:
        return read_submission(text, now, trace), None if whole is None else _claim(whole.key, index, text)

    ahead, budget = door.ahead(), StepBudget(MOST_STEPS, MOST_STEP_BYTES)
    accepted, rejected, failure = [], [], None
    for index, outcome in enumerate(await door.take_each(found, read, budget, tenant)):
        if isinstance(outcome, Acceptance):
            accepted.append(_accepted(index, outcome, ahead))
            continue
        error = outcome.value
        if not isinstance(error, OpenHQMError):  # a bug of ours
            outcome.raiseException()
        failure = error if isinstance(error, NotDurable) else failure
        rejected.append({"index": index, "problem": msgspec.Raw(problem_for(error, BATCH).body)})
    if not accepted:
        if failure is not None:
            raise failure
        return problem(422, f"none of the {len(found)} requests is one", instance=BATCH, rejected=rejected)
    return Answer(202, b'{"accepted":[%b],"rejected":%b}' % (b",".join(accepted), _RAW.encode(rejected)))


def _accepted(index: int, acceptance: Acceptance, ahead: float) -> bytes:
    document = acceptance_document(acceptance, ahead)
    if acceptance.replayed:
        document = b'%b,"replayed":true}' % document[:-1]
    return b'{"index":%d,%b' % (index, document[1:])


def _claim(key: str, index: int, text: bytes) -> IdempotencyClaim:
    return IdempotencyClaim(f"{key} {index}", blake2b(text, digest_size=16).digest(), scope=BATCH)
