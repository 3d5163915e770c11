# -*- test-case-name: tests.policy.test_reason_classes -*-
"""The classes of reasons for which a request becomes a dead letter: a closed set, for programs and filters."""

from __future__ import annotations

import enum
import re

from openhqm.messages import DeadLetter


class ReasonClass(enum.StrEnum):
    """Why a request became a dead letter. ``reason_class`` of its reply holds the value."""

    REJECTED = "rejected"
    """The handler raised `Reject`."""
    FINAL_ANSWER = "final_answer"
    """The endpoint answered with a status that is not retried."""
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"
    """No attempt is left."""
    UNUSABLE_ANSWER = "unusable_answer"
    """The answer of the handler cannot be stored."""
    POISON = "poison"
    """The process ended during each attempt."""
    NOT_A_REQUEST = "not_a_request"
    """A broker delivered a message that is no request."""
    SCHEMA = "schema"
    """A broker delivered a message whose payload is not as its schema has it."""
    FOREIGN = "foreign"
    """A broker delivered a request whose id another store has given out."""
    OTHER = "other"
    """Any other reason: that of a backend or a worker of the user's own."""


_VALUES = frozenset(ReasonClass)
# How the reason of a letter begins that was stored before replies had their class, or by a worker of that time.
_BEGINNINGS = (
    (re.compile(r"rejected by the handler\Z"), ReasonClass.REJECTED),
    (re.compile(r"the answer is final\Z"), ReasonClass.FINAL_ANSWER),
    (re.compile(r"(?:\d+ attempts|the attempt) failed\Z"), ReasonClass.ATTEMPTS_EXHAUSTED),
    (re.compile(r"unusable answer\Z"), ReasonClass.UNUSABLE_ANSWER),
    (re.compile(r"poison\Z"), ReasonClass.POISON),
    (re.compile(r"not a request: "), ReasonClass.NOT_A_REQUEST),
    (re.compile(r"its id was not given out by this store\Z"), ReasonClass.FOREIGN),
)


def reason_class(letter: DeadLetter) -> ReasonClass:
    """The class of the dead letter's reason: that of its reply, or for older letters what their reason says."""
    named = letter.reply.reason_class
    if named is not None:
        return ReasonClass(named) if named in _VALUES else ReasonClass.OTHER
    return next((kind for pattern, kind in _BEGINNINGS if pattern.match(letter.reason)), ReasonClass.OTHER)
