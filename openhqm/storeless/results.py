# -*- test-case-name: tests.storeless.test_workers -*-
"""The result store of a process that has none: it only works, and no caller asks it for answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from twisted.internet.defer import Deferred, maybeDeferred
from zope.interface import implementer

from openhqm.errors import NotDurable
from openhqm.interfaces import IResultStore
from openhqm.messages import Event, IdempotencyClaim, Record, Reply


@implementer(IResultStore)
class NullResultStore:
    """Endings become durable elsewhere, and are counted there."""

    def __init__(self) -> None:
        self.on_ending: list[Callable[[int, str], None]] = []

    def start(self) -> None:
        """There is nothing to keep."""

    def stop(self) -> None:
        """There was nothing."""

    def find(self, correlation_id: str) -> Deferred[Record]:
        return maybeDeferred(_elsewhere)

    def history(self, correlation_id: str, after: int) -> Deferred[Sequence[Event]]:
        return maybeDeferred(_elsewhere)

    def watch(self, correlation_id: str, listener: Callable[[Event], None]) -> Callable[[], None]:
        return lambda: None

    def completion_token(self, correlation_id: str) -> None:
        """Callers and targets ask another process, whose secret is not known here."""

    def end(self, correlation_id: str, reply: Reply) -> Deferred[None]:
        return maybeDeferred(_elsewhere)

    def progress(self, correlation_id: str, detail: dict[str, Any]) -> Deferred[None]:
        return maybeDeferred(_elsewhere)

    def cancel(self, correlation_id: str) -> Deferred[Record]:
        return maybeDeferred(_elsewhere)

    def let_expire(self, claims: Sequence[IdempotencyClaim]) -> Deferred[None]:
        return maybeDeferred(_elsewhere)


def _elsewhere() -> NoReturn:
    raise NotDurable("this process has no store: ask the one that accepted the request")
