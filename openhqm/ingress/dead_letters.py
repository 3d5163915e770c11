# -*- test-case-name: tests.ingress.test_dead_letters -*-
"""The dead letters over HTTP, on any queue: each answer looks at a bounded part of them, and says where to go on."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from openhqm.delivery.dead_letter_documents import letter_document, summary
from openhqm.http1.messages import Answer
from openhqm.ingress.answers import HTTPProblem
from openhqm.ingress.dead_letter_queries import Cursor, Query
from openhqm.interfaces import IMessageQueue
from openhqm.messages import DeadLetter

PAGE = 100
MOST_PAGES = 20
"""One answer looks at this many pages: about 20 MiB at most, where none of them matches."""
CALL_SECONDS = 5.0
"""After this time one answer looks at no further page."""


class DeadLetters:
    """Lists and shows the dead letters of ``queue``. Others are served between two pages."""

    def __init__(self, queue: IMessageQueue, clock: IReactorTime) -> None:
        self._queue = queue
        self._clock = clock

    async def page(self, query: Query) -> Answer:
        """Those that match, the oldest first. ``cursor`` says where to go on; null: there are no more. `NotDurable`."""
        found, cursor = await self._find(query)
        return _json({"dead_letters": found, "cursor": _text(cursor)})

    async def show(self, number: str) -> Answer:
        """One, with its request and the last reply. `HTTPProblem` 404, `NotDurable`."""
        wanted = _number(number)
        return Answer(200, letter_document(wanted, await self._letter(wanted)))

    async def _letter(self, number: int) -> DeadLetter:
        for found, letter in await self._queue.dead_letters(number - 1, 1):
            if found == number:
                return letter
        raise _unknown(number)

    async def _find(self, query: Query) -> tuple[list[dict[str, Any]], Cursor | None]:
        """Summaries of those that match behind the cursor, and where to go on. No body is kept meanwhile."""
        found: list[dict[str, Any]] = []
        after, before = query.cursor.after, query.cursor.before
        due = self._clock.seconds() + CALL_SECONDS
        for _ in range(MOST_PAGES):
            page = await self._queue.dead_letters(after, PAGE)
            if not page:
                return found, None
            for after, letter in page:
                if query.filter.matches(letter) and query.cursor.reaches(letter):
                    found.append(summary(after, letter))
                    if len(found) == query.limit:
                        return found, Cursor(after, before)
            if self._clock.seconds() >= due:
                break
            await deferLater(self._clock, 0)
        return found, Cursor(after, before)


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
