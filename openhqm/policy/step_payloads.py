# -*- test-case-name: tests.policy.test_step_payloads -*-
"""What a step is sent: its template, filled from what the steps before it have resulted in.

Callers write these templates. A template has no calls and no loops, and what is filled into it is bounded.
"""

from __future__ import annotations

from functools import lru_cache

from msgspec.structs import replace

from openhqm.errors import Reject, TransformFailed
from openhqm.messages import Reply, Request, Submission
from openhqm.policy.children import MOST_COPIED_BYTES
from openhqm.policy.fields import Document
from openhqm.policy.templates import JSON, Template

WHOLE = "{{ payload }}"
"""The template of a step that names none: all of the result."""
MOST_TEMPLATE_CHARACTERS = 8192
_TYPE = "content-type"


@lru_cache(maxsize=256)
def step_template(text: str) -> Template:
    """The template of a step, compiled. `ValueError` where it is none, or does not become JSON."""
    if len(text) > MOST_TEMPLATE_CHARACTERS:
        raise ValueError(f"must have at most {MOST_TEMPLATE_CHARACTERS} characters")
    # Else each of many opening brackets would be looked for to the end of the text.
    if any("}}" not in piece for piece in text.split("{{")[1:]):
        raise ValueError("a {{ has no matching }}")
    template = Template(text, MOST_COPIED_BYTES)
    if template.content_type != JSON:
        raise ValueError("must be JSON once it is filled")
    return template


def with_payload(request: Request) -> Request:
    """The request as its handler gets it: for a step, with the payload that its template makes. `Reject`."""
    submission = request.submission
    if submission.transform is None or submission.parent_reply is None:
        return request
    try:
        filled = _filled(submission, submission.transform, submission.parent_reply, request.correlation_id)
    except (TransformFailed, ValueError) as error:
        raise Reject(f"the payload of this step cannot be made: {error}") from None
    return replace(request, submission=filled)


def _filled(submission: Submission, text: str, reply: Reply, correlation_id: str) -> Submission:
    payload = reply.result if reply.result is not None else b"null"
    before = replace(submission, payload=payload, transform=None, parent_reply=None)
    if text == WHOLE and reply.result is None and reply.body is not None:
        # Content that is not JSON goes on as it came, with its type.
        headers = {name: value for name, value in submission.headers.items() if name.lower() != _TYPE}
        headers.update({name: value for name, value in reply.headers.items() if name.lower() == _TYPE})
        return replace(before, body=reply.body, headers=headers)
    return replace(before, payload=step_template(text).apply(Document(before, correlation_id)))
