# -*- test-case-name: tests.rabbitmq.test_foreign,tests.redis.test_foreign -*-
"""The answers that messages wait for which were published: told apart by their correlation."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from openhqm.interfaces import Message


class Answers:
    """Those that wait, and their answers. What is asked under one correlation twice is answered to the later one."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, Deferred[Message]] = {}

    def expect(self, correlation: bytes) -> Deferred[Message]:
        """Fires with the answer. Cancel it to give it up."""

        def forget(answer: Deferred[Message]) -> None:
            if self._waiting.get(correlation) is answer:
                del self._waiting[correlation]

        answer = self._waiting[correlation] = Deferred(forget)
        return answer

    def received(self, message: Message) -> None:
        """A message has come to where the answers go. One without a question, or too late for it, is passed over."""
        correlation = None if message.properties is None else message.properties.correlation
        answer = None if correlation is None else self._waiting.pop(correlation, None)
        if answer is not None:
            answer.callback(message)


def is_given_up(failure: Failure) -> None:
    """Trap the failure of an answer that was cancelled."""
    failure.trap(CancelledError)
