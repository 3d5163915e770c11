# -*- test-case-name: tests.policy.test_outcome -*-
"""What a target's answer means for the request: done, to be tried again, or failed for good."""

from __future__ import annotations

import enum
from collections.abc import Collection
from datetime import UTC
from email.utils import parsedate_to_datetime

import attrs

RETRY_ON: frozenset[int] = frozenset((408, 425, 429, 500, 502, 503, 504))
LONGEST_RETRY_AFTER = 3600.0


class Verdict(enum.Enum):
    """The three things that an answer can mean."""

    DONE = "done"
    RETRY = "retry"
    FAILED = "failed"


@attrs.frozen
class Outcome:
    """A verdict, and the seconds that the target asked to be left alone for (0: it did not ask)."""

    verdict: Verdict
    not_before: float = 0.0


def judge(
    status: int, retry_on: Collection[int], retry_after: str | None, retry_word: str | None, now: float
) -> Outcome:
    """What an answer with ``status`` means.

    ``retry_word`` is the target's own word, the field ``OpenHQM-Retry``: ``never`` stands above everything.
    ``retry_after`` is the field of that name, in seconds or as a date (RFC 9110, section 10.2.3). A redirect is not
    followed, so it is no success.
    """
    if 200 <= status < 300:
        return Outcome(Verdict.DONE)
    if status not in retry_on or (retry_word or "").strip().lower() == "never":
        return Outcome(Verdict.FAILED)
    return Outcome(Verdict.RETRY, seconds_of(retry_after, now))


def seconds_of(retry_after: str | None, now: float) -> float:
    """The seconds of a ``Retry-After``, at most an hour; 0 where there is none, or none that can be read."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit():
        seconds = float(text) if len(text) < 10 else LONGEST_RETRY_AFTER
    else:
        try:
            at = parsedate_to_datetime(text)
            # The oldest of the three formats has no zone, and means GMT (RFC 9110, section 5.6.7).
            seconds = (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp() - now
        except (ValueError, TypeError, OverflowError, IndexError):
            return 0.0
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)
