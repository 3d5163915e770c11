# -*- test-case-name: tests.ingress.test_dead_letters -*-
"""The dead letters over HTTP, on any queue: each answer looks at a bounded part of them, and says where to go on."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import attrs
import msgspec
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from openhqm.codec import request_size
from openhqm.delivery.dead_letter_documents import letter_document, moved, summary
from openhqm.delivery.documents import acceptance_document
from openhqm.errors import MessageTooLarge, NotDurable, UnknownRequest
from openhqm.http1.messages import Answer
from openhqm.ingress.answers import HTTPProblem
from openhqm.ingress.dead_letter_changes import NAMED, Outcome, groups
from openhqm.ingress.dead_letter_queries import Cursor, Order, Query
from openhqm.ingress.door import acceptance_fields
from openhqm.interfaces import IMessageQueue
from openhqm.messages import DeadLetter, Submission
from openhqm.policy.redrive import redriven
from openhqm.runtime.steady_time import never_ahead

PAGE = 100
MOST_PAGES = 20
"""One answer looks at this many pages: about 20 MiB at most, where none of them matches."""
CALL_SECONDS = 5.0
"""After this time one answer looks at no further page, and changes no further dead letter."""
MOST_AT_ONCE = 50
LEAST_PAUSE = 0.1
"""At a rate, groups follow each other after so many seconds or more, and are as small as that allows."""
STOPPING = "the process is stopping"


class DeadLetters:
    """Lists, shows, redrives and drops the dead letters of ``queue``. Others are served between two pages.

    To redrive a letter or to drop it is one step of the queue. A process that is killed has changed each of the letters
    as a whole, or not at all, and the same order finds the others. While ``is_closed`` says so, none is changed.
    ``ahead`` says how far the time of day, which queries and answers name, is ahead of the times in the queue, and
    ``is_worked`` whether there are workers where a submission would wait; else it is not redriven.
    """

    _log = Logger()

    def __init__(
        self,
        queue: IMessageQueue,
        clock: IReactorTime,
        is_closed: Callable[[], bool],
        ahead: Callable[[], float] = never_ahead,
        is_worked: Callable[[Submission], bool] = lambda submission: True,
    ) -> None:
        self._queue = queue
        self._clock = clock
        self._is_closed = is_closed
        self._ahead = ahead
        self._is_worked = is_worked

    async def page(self, query: Query) -> Answer:
        """Those that match, the oldest first. ``cursor`` says where to go on; null: there are no more. `NotDurable`."""
        found, cursor = await self._find(query)
        return _json({"dead_letters": found, "cursor": _text(cursor)})

    async def show(self, number: str) -> Answer:
        """One, with its request and the last reply. `HTTPProblem` 404, `NotDurable`."""
        try:
            letter = await self._letter(_number(number))
        except UnknownRequest:
            raise _unknown(number) from None
        return Answer(200, letter_document(int(number), letter))

    async def redrive_one(self, number: str) -> Answer:
        """Redrive one: the 202 of its new request. `HTTPProblem` 404, and 409 where it is refused; `NotDurable`."""
        self._check_open()
        wanted = _number(number)
        try:
            refusal = self._refusal(await self._letter(wanted))
            if refusal is not None:
                raise HTTPProblem(409, refusal)
            acceptance = await self._queue.redrive(wanted)
        except UnknownRequest:
            raise _unknown(number) from None
        self._log.info("dead letter {number} was redriven", number=number, correlation_id=acceptance.correlation_id)
        return Answer(202, acceptance_document(acceptance, self._ahead()), fields=acceptance_fields(acceptance))

    async def drop_one(self, number: str) -> Answer:
        """Remove one for good: 204. `HTTPProblem` 404, `NotDurable`."""
        self._check_open()
        try:
            await self._queue.drop_dead_letter(_number(number))
        except UnknownRequest:
            raise _unknown(number) from None
        self._log.info("dead letter {number} was dropped", number=number)
        return Answer(204)

    async def redrive(self, order: Order) -> Answer:
        """Redrive those that match, the oldest first, at the order's rate. What fails from now on is left out."""

        async def act(number: int) -> dict[str, Any]:
            return {"redriven_as": (await self._queue.redrive(number)).correlation_id}

        return await self._carry_out(order, act, "redriven", self._refusal)

    async def drop(self, order: Order) -> Answer:
        """Remove those that match for good, the oldest first."""

        async def act(number: int) -> dict[str, Any]:
            await self._queue.drop_dead_letter(number)
            return {}

        return await self._carry_out(order, act, "dropped")

    async def _carry_out(
        self,
        order: Order,
        act: Callable[[int], Coroutine[Any, Any, dict[str, Any]]],
        participle: str,
        refusal: Callable[[DeadLetter], str | None] = lambda letter: None,
    ) -> Answer:
        """Act on each that matches. ``cursor`` of the answer says where to go on, as for a list.

        `NotDurable` where none can be changed now. Where some were changed, the answer names these.
        """
        self._check_open()
        query = await self._begun(order.query)
        found, cursor = await self._find(query, refusal)
        outcome = Outcome()
        outcome.refused += [
            {name: letter[name] for name in (*NAMED, "detail")} for letter in found if "detail" in letter
        ]
        found = [letter for letter in found if "detail" not in letter]
        if order.dry_run:
            outcome.done += [{name: letter[name] for name in NAMED} for letter in found]
        else:
            first = await self._change(found, order.rate, act, outcome)
            if first is not None:
                cursor = Cursor(first - 1, query.cursor.last)
                outcome.refused = [letter for letter in outcome.refused if letter["number"] < first]
            if outcome.done:
                count = len(outcome.done)
                self._log.info("{count} dead letters were {participle}", count=count, participle=participle)
        return _json(
            {
                "dry_run": order.dry_run,
                "count": len(outcome.done),
                "dead_letters": outcome.done,
                "refused": outcome.refused,
                "cursor": _text(cursor),
            }
        )

    async def _change(
        self,
        found: Sequence[dict[str, Any]],
        rate: float | None,
        act: Callable[[int], Coroutine[Any, Any, dict[str, Any]]],
        outcome: Outcome,
    ) -> int | None:
        """Act on those that were found, a group at a time. The number of the first that is left; None: none is."""
        most = MOST_AT_ONCE if rate is None else max(1, min(MOST_AT_ONCE, int(rate * LEAST_PAUSE)))
        at = now = self._clock.seconds()
        due = now + CALL_SECONDS
        for group in groups(found, most):
            now = self._clock.seconds()
            if group[0] is not found[0] and (self._is_closed() or now >= due):
                return int(group[0]["number"])
            if rate is not None:
                # Before each group, so that the rate holds from one answer to the next. What was late is not made up
                # for by a burst.
                at = max(at + len(group) / rate, now)
                await deferLater(self._clock, at - now)
            # Asked for together, they share a commit or a round trip.
            changes = [Deferred.fromCoroutine(act(letter["number"])) for letter in group]
            results = await DeferredList(changes, consumeErrors=True)
            first = outcome.add(group, [result for _, result in results])
            if first is not None:
                return first
        return None

    def _check_open(self) -> None:
        if self._is_closed():
            raise NotDurable(STOPPING, retry_after=1)

    async def _begun(self, query: Query) -> Query:
        """``query``, and where it is the first of several, with the last dead letter as their end.

        What fails again meanwhile has a higher number, whatever clocks say: so they come to an end.
        """
        if query.cursor.last is not None:
            return query
        last = await self._queue.last_dead_letter()
        return attrs.evolve(query, cursor=Cursor(query.cursor.after, last))

    def _refusal(self, letter: DeadLetter) -> str | None:
        """Why a letter cannot be redriven now, or None."""
        submission = redriven(letter)
        if not self._is_worked(submission):
            return f"no workers are configured for where it would wait: endpoint {submission.endpoint or 'none'}" + (
                "" if submission.partition is None else f", partition {submission.partition}"
            )
        largest = self._queue.traits.largest_message
        if largest is not None:  # the new request is a little longer than the old one, whose id it names
            size = request_size(submission)
            if size > largest:
                return str(MessageTooLarge(size, largest))
        return None

    async def _letter(self, number: int) -> DeadLetter:
        for found, letter in await self._queue.dead_letters(number - 1, 1):
            if found == number:
                return moved(letter, self._ahead())
        raise UnknownRequest(f"dead letter {number}")

    async def _find(
        self, query: Query, refusal: Callable[[DeadLetter], str | None] = lambda letter: None
    ) -> tuple[list[dict[str, Any]], Cursor | None]:
        """Summaries of those that match behind the cursor, and where to go on. No body is kept meanwhile.

        Where ``refusal`` says why one is not to be changed, its summary has that as ``detail``.
        """
        found: list[dict[str, Any]] = []
        after, last = query.cursor.after, query.cursor.last
        due = self._clock.seconds() + CALL_SECONDS
        for _ in range(MOST_PAGES):
            page = await self._queue.dead_letters(after, PAGE)
            if not page:
                return found, None
            for after, stored in page:
                if last is not None and after > last:
                    return found, None
                letter = moved(stored, self._ahead())
                if query.filter.matches(letter):
                    detail = refusal(letter)
                    found.append({**summary(after, letter), **({} if detail is None else {"detail": detail})})
                    if len(found) == query.limit:
                        return found, Cursor(after, last)
            if self._clock.seconds() >= due:
                break
            await deferLater(self._clock, 0)
        return found, Cursor(after, last)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 20 and int(text) > 0):
        raise _unknown(text)
    return int(text)


def _unknown(number: object) -> HTTPProblem:
    return HTTPProblem(404, f"there is no dead letter {number!s:.20}: it was redriven or dropped, or never was")


def _text(cursor: Cursor | None) -> str | None:
    return None if cursor is None else str(cursor)


def _json(document: dict[str, Any]) -> Answer:
    return Answer(200, msgspec.json.encode(document))
