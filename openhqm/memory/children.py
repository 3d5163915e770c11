# -*- test-case-name: tests.queue.test_contracts -*-
"""Requests that consist of steps, in memory: each ending of a step is followed by the next one in the same call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from msgspec.structs import replace
from twisted.internet.interfaces import IReactorTime

from openhqm.messages import Child, ChildState, Reply, Request, Status, Submission
from openhqm.policy import children as policy
from openhqm.policy.ids import CorrelationIds

_BEGUN = Submission(b"null")  # its payload is in its message, and not kept here as well


@attrs.define
class _Step:
    key: int
    child: Child
    state: ChildState
    reply: Reply | None = None

    @property
    def size(self) -> int:
        """How many bytes of its reply are kept."""
        return 0 if self.reply is None else len(self.reply.result or b"") + len(self.reply.body or b"")


@attrs.define
class Steps:
    """The steps of the request ``key``."""

    key: int
    request: Request
    steps: list[_Step]
    ended: bool = False

    @property
    def states(self) -> list[ChildState]:
        """What is known of each, in order."""
        return [step.state for step in self.steps]

    @property
    def with_sizes(self) -> list[ChildState]:
        """The same, with the sizes of the replies that are kept."""
        return [step.state if step.reply is None else replace(step.state, size=step.size) for step in self.steps]


class Children:
    """``begin`` is called with a step that waits from a time on; ``end`` ends a request unless it has ended.

    ``note`` adds an event to the history of a request.
    """

    def __init__(
        self,
        clock: IReactorTime,
        ids: CorrelationIds,
        begin: Callable[[int, Submission, float], None],
        end: Callable[[int, Reply], bool],
        note: Callable[[int, str, dict[str, Any]], None],
    ) -> None:
        self._clock = clock
        self._ids = ids
        self._begin = begin
        self._end = end
        self._note = note
        self._of: dict[int, Steps] = {}
        self._place: dict[int, tuple[Steps, int]] = {}

    def add(self, key: int, request: Request, children: list[tuple[int, Child]]) -> None:
        """The request consists of ``children``, each with its key. Those of the first stage begin."""
        steps = Steps(key, request, [])
        for place, (child_key, child) in enumerate(children):
            state = ChildState(self._ids.issue(child_key), child.stage, child.name, joined=child.joined)
            steps.steps.append(_Step(child_key, child, state))
            self._place[child_key] = steps, place
        self._of[key] = steps
        self._go_on(steps)

    def states(self, key: int) -> tuple[ChildState, ...]:
        """The steps of a request."""
        steps = self._of.get(key)
        return () if steps is None else tuple(steps.states)

    def forget(self, key: int) -> None:
        """The record of the request is gone."""
        self._place.pop(key, None)
        self._of.pop(key, None)

    def happened(self, key: int, type: str, detail: dict[str, Any]) -> None:
        """An attempt at a step begins, or is to be repeated."""
        steps, place = self._place.get(key, (None, 0))
        if steps is not None and not steps.ended:
            step = steps.steps[place]
            step.state = replace(step.state, status=Status.PROCESSING)
            self._note(steps.key, type, {**policy.about(steps.states, place), **detail})

    def ended(self, key: int, reply: Reply) -> None:
        """A request has ended: what follows where it is a step, or consists of some."""
        if key in self._of:
            self._end_all(self._of[key], reply.status)
        steps, place = self._place.get(key, (None, 0))
        if steps is None:
            return
        step = steps.steps[place]
        step.state, step.reply = replace(step.state, status=reply.status), reply
        if not steps.ended:
            detail = {**policy.about(steps.states, place), "step_status": reply.status.value}
            self._note(steps.key, "progress", detail)
            self._go_on(steps)

    def _end_all(self, steps: Steps, status: Status) -> None:
        steps.ended = True
        now, id = self._clock.seconds(), steps.request.correlation_id
        for step in steps.steps:
            if not step.state.status.ended:
                self._end(step.key, policy.ended_with_parent(step.state.correlation_id, id, status, now, 0))

    def _go_on(self, steps: Steps) -> None:
        request, states, now = steps.request, steps.states, self._clock.seconds()
        following = policy.what_is_next(steps.with_sizes)
        id, at = request.correlation_id, request.submitted_at
        if following.failed is not None:
            reply = steps.steps[following.failed].reply
            assert reply is not None, "it has ended"
            self._end(steps.key, policy.failed(id, at, states, following.failed, reply, now))
        elif following.too_large is not None:
            self._end(steps.key, policy.too_large(id, at, states, following.too_large, now))
        elif following.completed:
            self._completed(steps, states[-1].stage, 1, now)
        elif following.begin:
            stage = states[following.begin[0]].stage
            before = self._completed(steps, stage - 1, len(following.begin), now) if stage > 1 else None
            if stage == 1 or before is not None:
                for place in following.begin:
                    self._let_begin(steps, place, before, now)

    def _completed(self, steps: Steps, stage: int, copies: int, now: float) -> Reply | None:
        """What a stage has resulted in, which is the ending where it is the last; None where that is too much."""
        states, request = steps.states, steps.request
        of_stage = [steps.steps[place] for place in policy.places_of(states, stage)]
        replies = [step.reply for step in of_stage if step.reply is not None]
        reply = policy.outcome(request.correlation_id, states, stage, replies, now)
        id, at = request.correlation_id, request.submitted_at
        if policy.is_too_large(reply, copies):
            self._end(steps.key, policy.too_large(id, at, states, stage, now))
            return None
        for step in of_stage:
            step.reply = None
        if stage == states[-1].stage:
            self._end(steps.key, policy.completed(id, at, reply, now))
        return reply

    def _let_begin(self, steps: Steps, place: int, before: Reply | None, now: float) -> None:
        step = steps.steps[place]
        step.state = replace(step.state, begun=True)
        request, submission = steps.request, step.child.submission
        step.child = replace(step.child, submission=_BEGUN)
        due = max(request.submission.not_before or now, now) if before is None else now
        self._begin(step.key, policy.bounded(submission, before, request.deadline, now), due)
