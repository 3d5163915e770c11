# -*- test-case-name: tests.ingress.test_steps -*-
"""Reads ``metadata.then`` and ``metadata.all``: the steps that a request consists of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from msgspec.structs import replace

from openhqm.errors import InvalidRequest, NotPermitted, TransformFailed
from openhqm.ingress.submission import LONGEST_TIMEOUT, check_submission
from openhqm.messages import Child, Submission
from openhqm.policy.addressing import Addressing
from openhqm.policy.children import ALL, DIVIDING, MOST_CHILDREN, MOST_COPIED_BYTES, THEN
from openhqm.policy.fields import Document, to_json
from openhqm.policy.forwarding import IDEMPOTENCY_KEY, METHODS
from openhqm.policy.step_payloads import MOST_TEMPLATE_CHARACTERS, WHOLE, step_template
from openhqm.policy.tags import TAGS

TRANSFORM, TIMEOUT = "transform", "timeout"
OF_A_STEP = ("endpoint", "operation", "method", "path", "query")
"""What a step says of its target, in the words of the metadata of a request."""
OF_THE_WHOLE = (*DIVIDING, "callback_url", "reply_to", TAGS, TIMEOUT, "delay", "not_before", "priority")
"""Metadata that are about the request, and not about its steps."""
_MEMBERS = (*OF_A_STEP, TIMEOUT, TRANSFORM)
_MOST_NAME = 128

_STEP_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "endpoint": {"type": "string"},
        "operation": {"type": "string"},
        "method": {"enum": list(METHODS)},
        "path": {"type": "string", "pattern": "^/"},
        "query": {"type": ["string", "object", "null"]},
        TIMEOUT: {"type": "number", "exclusiveMinimum": 0, "maximum": int(LONGEST_TIMEOUT)},
        TRANSFORM: {"type": "string", "maxLength": MOST_TEMPLATE_CHARACTERS},
    },
    "additionalProperties": False,
}
ALL_SCHEMA: dict[str, Any] = {"type": "array", "items": _STEP_SCHEMA, "minItems": 1, "maxItems": MOST_CHILDREN}
_JOIN_SCHEMA = {"type": "object", "properties": {ALL: ALL_SCHEMA}, "required": [ALL], "additionalProperties": False}
THEN_SCHEMA: dict[str, Any] = {**ALL_SCHEMA, "items": {"oneOf": [_STEP_SCHEMA, _JOIN_SCHEMA]}}


@attrs.define
class StepBudget:
    """How many steps, and how many bytes of them, may still be made of what one call has sent.

    Each step has the headers and the metadata of its request, and those of the first stage its payload, or what their
    templates make of it. So a small call can ask for much.
    """

    steps: int = MOST_CHILDREN
    bytes: int = MOST_COPIED_BYTES

    def take(self, count: int) -> None:
        """`InvalidRequest` where there are not so many steps left."""
        if count > self.steps:
            raise InvalidRequest("metadata", f"has {count} steps, and {self.steps} are left of what one call may have")
        self.steps -= count

    def take_bytes(self, size: int, field: str) -> None:
        """`InvalidRequest` where ``size`` bytes are more than there are left."""
        if size > self.bytes:
            raise InvalidRequest(field, "copies payload, headers or metadata to more bytes than one call may have")
        self.bytes -= size


@attrs.frozen
class _Stage:
    """Steps that are worked on together: where each stands in the document, and what it says."""

    steps: Sequence[tuple[str, Mapping[str, Any]]]
    joined: bool


def divided(
    submission: Submission, addressing: Addressing, now: float, budget: StepBudget | None = None
) -> tuple[Submission, list[Child]]:
    """The request that ``submission`` asks for, which has no payload, and the steps that it consists of.

    ``budget`` is that of the call, where it has more submissions than this one. `InvalidRequest` that names the member,
    and the errors of `Addressing.addressed`.
    """
    if submission.coalescing is not None:
        reason = f"cannot be used together with {THEN} or {ALL}: give the key to a request of its own"
        raise InvalidRequest("metadata.coalesce", reason)
    stages = _stages(submission.metadata)
    count = sum(len(stage.steps) for stage in stages)
    if count > MOST_CHILDREN:
        raise InvalidRequest("metadata", f"must have at most {MOST_CHILDREN} steps in all, not {count}")
    budget = budget or StepBudget()
    budget.take(count)
    submission = replace(submission, headers=_of_steps(submission.headers))
    size = len(submission.payload) + len(submission.body or b"")
    if len(stages[0].steps) * size > MOST_COPIED_BYTES:
        raise InvalidRequest(f"metadata.{ALL}", f"copies the payload to more than {MOST_COPIED_BYTES} bytes in all")
    common = {
        name: value for name, value in submission.metadata.items() if name not in OF_THE_WHOLE and name not in OF_A_STEP
    }
    copied = sum(len(name) + len(value) for name, value in submission.headers.items()) + len(to_json(common))
    budget.take_bytes(count * copied, "metadata")
    children = []
    for number, stage in enumerate(stages, 1):
        for field, step in stage.steps:
            child = _child(submission, common, field, step, number, stage.joined, addressing, now)
            budget.take_bytes(len(child.submission.payload) + len(child.submission.body or b""), field)
            children.append(child)
    about = {TAGS: submission.metadata[TAGS]} if TAGS in submission.metadata else {}
    return replace(submission, payload=b"null", body=None, headers={}, metadata=about, share=None), children


def _of_steps(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Those that are handed to each step: its target would take two steps with one key for one request."""
    return {name: value for name, value in headers.items() if name.lower() != IDEMPOTENCY_KEY.lower()}


def _stages(metadata: Mapping[str, Any]) -> list[_Stage]:
    if ALL in metadata:
        for name in OF_A_STEP:
            if name in metadata:
                raise InvalidRequest(f"metadata.{name}", f"is for each step of metadata.{ALL} to say")
        stages = [_Stage(_steps(metadata[ALL], f"metadata.{ALL}"), joined=True)]
    else:
        first = {name: metadata[name] for name in OF_A_STEP if name in metadata}
        stages = [_Stage([("metadata", first)], joined=False)]
    if THEN in metadata:
        field = f"metadata.{THEN}"
        for index, each in enumerate(_list(metadata[THEN], field)):
            if isinstance(each, dict) and ALL in each:
                _check_members(each, (ALL,), f"{field}.{index}")
                stages.append(_Stage(_steps(each[ALL], f"{field}.{index}.{ALL}"), joined=True))
            else:
                stages.append(_Stage([(f"{field}.{index}", _step(each, f"{field}.{index}"))], joined=False))
    return stages


def _steps(value: Any, field: str) -> list[tuple[str, Mapping[str, Any]]]:
    return [(f"{field}.{index}", _step(each, f"{field}.{index}")) for index, each in enumerate(_list(value, field))]


def _list(value: Any, field: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise InvalidRequest(field, "must be a list with at least one step")
    if len(value) > MOST_CHILDREN:
        raise InvalidRequest(field, f"must have at most {MOST_CHILDREN} steps, not {len(value)}")
    return value


def _step(value: Any, field: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InvalidRequest(field, "must be an object")
    _check_members(value, _MEMBERS, field)
    return value


def _check_members(value: Mapping[str, Any], members: Sequence[str], field: str) -> None:
    for name in value:
        if name not in members:
            raise InvalidRequest(field, f"has an unknown member; it has {', '.join(members)}")


def _child(
    submission: Submission,
    common: Mapping[str, Any],
    field: str,
    step: Mapping[str, Any],
    stage: int,
    joined: bool,
    addressing: Addressing,
    now: float,
) -> Child:
    target = {name: step[name] for name in OF_A_STEP if name in step}
    own = Submission(
        submission.payload,
        submission.headers,
        {**common, **target},
        submission.priority,
        step.get(TIMEOUT),
        body=submission.body,
        tenant=submission.tenant,
    )
    try:
        check_submission(replace(own, timeout=None, metadata={**own.metadata, **_timeout(step)}), now)
        if stage > 1:
            own = replace(own, payload=b"null", body=None, transform=_template(step.get(TRANSFORM, WHOLE), field))
        elif TRANSFORM in step:
            own = replace(own, payload=_filled(own, _template(step[TRANSFORM], field), field), body=None)
        own = addressing.addressed(own, complete=stage == 1)
    except NotPermitted as error:
        raise NotPermitted(_within(error.field, field), error.reason) from None
    except InvalidRequest as error:
        raise InvalidRequest(_within(error.field, field), error.reason) from None
    name = str(step.get("endpoint") or step.get("operation") or "")[:_MOST_NAME]
    return Child(own, stage, name, joined)


def _timeout(step: Mapping[str, Any]) -> Mapping[str, Any]:
    """The time of a step, where `check_submission` looks for it."""
    return {TIMEOUT: step[TIMEOUT]} if TIMEOUT in step else {}


def _within(named: str, field: str) -> str:
    """A field of a submission, where the step stands that it is of."""
    root, _, rest = named.partition(".")
    return f"{field}.{rest}" if root == "metadata" and rest and not named.startswith(field) else named


def _template(text: Any, field: str) -> str:
    if not isinstance(text, str):
        raise InvalidRequest(f"{field}.{TRANSFORM}", "must be a string, which is a template")
    try:
        step_template(text)
    except ValueError as error:
        raise InvalidRequest(f"{field}.{TRANSFORM}", str(error)) from None
    return text


def _filled(submission: Submission, text: str, field: str) -> bytes:
    try:
        return step_template(text).apply(Document(submission))
    except TransformFailed as error:
        raise InvalidRequest(f"{field}.{TRANSFORM}", error.reason) from None
