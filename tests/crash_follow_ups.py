"""For the crash tests: every tenth submission has a follow-up, which nothing in the HTTP interface asks for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from twisted.internet.defer import Deferred

from openhqm.messages import Child, IdempotencyClaim, Submission

EVERY = 10


def install() -> None:
    """From now on the queues of this process accept such submissions with a follow-up."""
    from openhqm.brokered.queue import BrokeredQueue
    from openhqm.redis.queue import RedisQueue
    from openhqm.sqlite.queue import SqliteQueue

    for kind in (SqliteQueue, RedisQueue, BrokeredQueue):
        _wrap(kind)


def _wrap(kind: Any) -> None:
    accept = kind.accept

    def accept_with_follow_up(
        self: Any,
        submission: Submission,
        claim: IdempotencyClaim | None,
        follow_ups: Sequence[Submission] = (),
        children: Sequence[Child] = (),
    ) -> Deferred[Any]:
        number = msgspec.json.decode(submission.payload).get("n")
        if number is not None and number % EVERY == 0:
            follow_ups = [Submission(b'{"follows":%d}' % number)]
        accepted: Deferred[Any] = accept(self, submission, claim, follow_ups, children)
        return accepted

    kind.accept = accept_with_follow_up


def wrong(payloads: Iterable[dict[str, int]], ended: set[int]) -> str | None:
    """What is wrong with the follow-ups among the payloads of everything stored, or None.

    ``ended`` are the submissions that have ended: each tenth has one follow-up, and no other has any.
    """
    found = Counter(payload["follows"] for payload in payloads if "follows" in payload)
    missing = [number for number in ended if number % EVERY == 0 and not found[number]]
    twice = [number for number, count in found.items() if count > 1]
    strange = [number for number in found if number % EVERY]
    for what, numbers in (("no follow-up", missing), ("two follow-ups", twice), ("a follow-up", strange)):
        if numbers:
            return f"submission {numbers[0]} has {what}"
    return None
