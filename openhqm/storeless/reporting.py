# -*- test-case-name: tests.storeless.test_reporting,tests.storeless.test_workers -*-
"""Publishing the steps of a worker without a store, in messages that the broker takes."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
from msgspec.structs import replace
from twisted.logger import Logger

from openhqm.codec import encode_step
from openhqm.errors import NotDurable
from openhqm.interfaces import ChannelMissing, IBroker, Message
from openhqm.messages import Status
from openhqm.policy.steps import Step
from openhqm.runtime.deferreds import deferred

TOO_LARGE = "unusable answer"
TOO_LARGE_STATUS = 502
CUT_BYTES = 100
"""More than it takes to say how many bytes were cut off."""


class Reporter:
    """Reports steps in the channels of a broker."""

    _log = Logger()

    def __init__(self, broker: IBroker) -> None:
        self._broker = broker
        self._failure: str | None = None

    @property
    def warnings(self) -> Sequence[str]:
        """Why no step can be reported now."""
        return [] if self._failure is None else [self._failure]

    @deferred
    async def report(self, step: Step, channel: str) -> None:
        """Fires once the broker has the step. `NotDurable`: it has not, or that cannot be told."""
        body = encode_within(step, self._broker.traits.largest_message)
        (outcome,) = await self._broker.publish(channel, [Message(body, key=step.correlation_id)])
        if outcome is None:
            self._failure = None
            return
        reason = outcome.reason
        if isinstance(outcome, ChannelMissing):
            reason += ": the process that accepts requests makes it. Is it running?"
        if self._failure is None:
            self._log.error("steps cannot be reported, so no request is begun or ended: {reason}", reason=reason)
        self._failure = f"steps cannot be reported in {channel}: {reason}"
        raise NotDurable(reason)


def encode_within(step: Step, most: int | None) -> bytes:
    """The step in at most so many bytes, as far as that can be done.

    A reply that does not fit is left out, and its request ends as a dead letter. Of a message that is no request, the
    end is left out.
    """
    body = encode_step(step)
    if most is None or len(body) <= most:
        return body
    if step.reply is not None:
        return encode_step(_without_answer(step, len(body), most))
    if step.letter is not None:
        return encode_step(_cut(step, len(body) - most))
    return body


def _without_answer(step: Step, size: int, most: int) -> Step:
    reply = step.reply
    assert reply is not None
    error = f"the reply takes {size} bytes, and the broker takes no message of more than {most}"
    reply = replace(
        reply,
        status=Status.FAILED if reply.status is Status.COMPLETED else reply.status,
        result=None,
        body=None,
        headers={},
        status_code=TOO_LARGE_STATUS,
        error=error if reply.error is None else f"{reply.error} ({error})",
    )
    return attrs.evolve(step, reply=reply, reason=step.reason or TOO_LARGE)


def _cut(step: Step, excess: int) -> Step:
    letter = step.letter
    assert letter is not None
    submission = letter.request.submission
    body = submission.body or b""
    kept = max(0, len(body) - excess * 3 // 4 - CUT_BYTES)  # 3 bytes are 4 letters of base64
    request = replace(letter.request, submission=replace(submission, body=body[:kept]))
    reason = f"{letter.reason}; the first {kept} of its {len(body)} bytes are kept"
    return attrs.evolve(step, letter=replace(letter, request=request, reason=reason))
