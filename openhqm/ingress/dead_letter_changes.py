# -*- test-case-name: tests.ingress.test_dead_letters -*-
"""The parts of an order about dead letters: which are changed together, and what becomes of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import attrs
from twisted.python.failure import Failure

from openhqm.errors import MessageTooLarge, NotDurable, UnknownRequest, UnreadableMessage

GROUP_BYTES = 4 * 1024 * 1024
"""So many dead letters are changed together at most, and so much: each is read whole."""
NAMED = ("number", "correlation_id", "endpoint", "reason_class")
"""What an answer says of each, beside what became of it."""


@attrs.define
class Outcome:
    """What became of the dead letters of an order: which were changed, and which the queue refused."""

    done: list[dict[str, Any]] = attrs.field(factory=list)
    refused: list[dict[str, Any]] = attrs.field(factory=list)

    def add(self, letters: Sequence[dict[str, Any]], results: Sequence[Any]) -> int | None:
        """Note each result. The number of the first that could not be stored now; `NotDurable` where none could."""
        not_stored = []
        for letter, result in zip(letters, results, strict=True):
            entry = {name: letter[name] for name in NAMED}
            if not isinstance(result, Failure):
                self.done.append({**entry, **result})
            elif result.check(MessageTooLarge, UnreadableMessage):
                self.refused.append({**entry, "detail": result.getErrorMessage()})
            elif result.check(NotDurable):
                not_stored.append((letter["number"], result))
            elif not result.check(UnknownRequest):  # else it was redriven or dropped meanwhile
                result.raiseException()
        if not_stored and not self.done:
            not_stored[0][1].raiseException()
        return not_stored[0][0] if not_stored else None


def groups(found: Sequence[dict[str, Any]], most: int) -> Iterator[list[dict[str, Any]]]:
    """``found`` in groups of up to ``most`` that are of `GROUP_BYTES` at most together, or of one."""
    group: list[dict[str, Any]] = []
    size = 0
    for letter in found:
        if group and (len(group) == most or size + letter["bytes"] > GROUP_BYTES):
            yield group
            group, size = [], 0
        group.append(letter)
        size += letter["bytes"]
    if group:
        yield group
