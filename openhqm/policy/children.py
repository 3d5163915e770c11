# -*- test-case-name: tests.policy.test_children -*-
"""Requests that consist of steps: which step begins next, and how the request ends with them.

The stores ask here, within the step that ends a child or after it, and do what is answered. Asked again about the same
states, the answer is the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import attrs
from msgspec.structs import replace

from openhqm.messages import ChildState, Reply, Status, Submission
from openhqm.policy.fields import to_json

THEN, ALL = "then", "all"
"""The metadata by which a request consists of steps."""
DIVIDING = frozenset((THEN, ALL))
MOST_CHILDREN = 100
MOST_COPIED_BYTES = 16 * 1024 * 1024
"""How many bytes the results of a stage may have in all, as often as they are copied."""
MOST_KEPT_BYTES = 2 * MOST_COPIED_BYTES
"""How many bytes of replies, as they are stored, are kept for the end of a stage: what goes beyond is never read."""
TOO_LARGE = "too_large"
"""The reason class of a request whose steps result in more than that."""


@attrs.frozen
class Next:
    """What is to be done: ``begin`` has the places of the steps that begin now.

    ``failed`` is the place of the step that did not complete, and so ends the request. ``completed``: all have.
    ``too_large`` is the stage whose steps result in more than is kept, which ends the request as well.
    """

    begin: Sequence[int] = ()
    failed: int | None = None
    completed: bool = False
    too_large: int | None = None


def what_is_next(children: Sequence[ChildState]) -> Next:
    """What follows from the states of the steps of a request that has not ended."""
    for place, child in enumerate(children):
        if child.status.ended and child.status is not Status.COMPLETED:
            return Next(failed=place)
    kept: Counter[int] = Counter()
    for child in children:
        kept[child.stage] += child.size
        if kept[child.stage] > MOST_KEPT_BYTES:
            return Next(too_large=child.stage)
    for place, child in enumerate(children):
        if child.status is not Status.COMPLETED:
            held = [index for index in places_of(children, child.stage) if not children[index].begun]
            return Next(begin=held)
        if place + 1 == len(children):
            return Next(completed=True)
    return Next()


def places_of(children: Sequence[ChildState], stage: int) -> Sequence[int]:
    """The places of the steps of one stage."""
    return [place for place, child in enumerate(children) if child.stage == stage]


def outcome(parent_id: str, children: Sequence[ChildState], stage: int, replies: Sequence[Reply], now: float) -> Reply:
    """What a stage results in, whose steps have completed with ``replies``, in their order."""
    if not any(children[place].joined for place in places_of(children, stage)):
        return replies[0]
    results = b"[" + b",".join(_result(reply) for reply in replies) + b"]"
    attempt = max(reply.attempt for reply in replies)
    return Reply(parent_id, Status.COMPLETED, now, results, attempt=attempt)


def is_too_large(reply: Reply, copies: int) -> bool:
    """Whether so many copies of ``reply`` have more bytes than there may be."""
    return copies * (len(reply.result or b"") + len(reply.body or b"")) > MOST_COPIED_BYTES


def bounded(submission: Submission, before: Reply | None, deadline: float | None, now: float) -> Submission:
    """The submission of a step that begins ``now``, behind ``before``: it ends by the deadline of its request."""
    timeout = time_left(submission.timeout, deadline, now)
    return replace(submission, parent_reply=before, timeout=timeout, not_before=None)


def time_left(timeout: float | None, deadline: float | None, now: float) -> float | None:
    """How many seconds a step with that ``timeout`` has, whose request has that ``deadline``; None: no limit."""
    if deadline is None:
        return timeout
    left = max(deadline - now, 0.001)
    return left if timeout is None else min(timeout, left)


def completed(parent_id: str, submitted_at: float, last: Reply, now: float) -> Reply:
    """The ending of a request whose last stage has resulted in ``last``."""
    return replace(last, correlation_id=parent_id, completed_at=now, processing_time_ms=_since(submitted_at, now))


def failed(
    parent_id: str, submitted_at: float, children: Sequence[ChildState], place: int, reply: Reply, now: float
) -> Reply:
    """The ending of a request whose step at ``place`` has ended with ``reply``, and did not complete."""
    return replace(
        reply,
        correlation_id=parent_id,
        completed_at=now,
        error=f"{describe(children, place)}: {reply.error or reply.status.value}",
        processing_time_ms=_since(submitted_at, now),
    )


def too_large(parent_id: str, submitted_at: float, children: Sequence[ChildState], stage: int, now: float) -> Reply:
    """The ending of a request where a stage has resulted in more than can be kept."""
    last = places_of(children, stage)[-1]
    return Reply(
        parent_id,
        Status.FAILED,
        now,
        status_code=502,
        error=f"{describe(children, last)}: what the steps up to it resulted in, in as many copies as the next ones"
        f" need, has more than {MOST_COPIED_BYTES} bytes",
        processing_time_ms=_since(submitted_at, now),
        reason_class=TOO_LARGE,
    )


def ended_with_parent(child_id: str, parent_id: str, status: Status, now: float, attempt: int) -> Reply:
    """The ending of a step whose request has ended with ``status``, and not by this step."""
    error = f"the request that it is a step of, {parent_id}, has ended: {status.value}"
    return Reply(child_id, Status.CANCELLED, now, error=error, status_code=409, attempt=attempt)


def about(children: Sequence[ChildState], place: int) -> dict[str, object]:
    """What the events of a request say of its step at ``place``."""
    child = children[place]
    return {"step": place + 1, "steps": len(children), "step_id": child.correlation_id, "step_name": child.name}


def describe(children: Sequence[ChildState], place: int) -> str:
    """A step as an error names it."""
    child = children[place]
    name = f"{child.name}, " if child.name else ""
    return f"step {place + 1} of {len(children)} ({name}{child.correlation_id})"


def _result(reply: Reply) -> bytes:
    """The result of a step as JSON: bytes that are not JSON as a string, where they are text."""
    if reply.result is not None:
        return reply.result
    if reply.body is None:
        return b"null"
    try:
        return to_json(reply.body.decode("utf-8"))
    except UnicodeDecodeError:
        return b"null"


def _since(submitted_at: float, now: float) -> int:
    return max(0, round((now - submitted_at) * 1000))
