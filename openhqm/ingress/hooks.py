# -*- test-case-name: tests.ingress.test_hooks -*-
"""Webhooks of others: the raw body is accepted as a request once its signature holds, and once for each delivery."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from openhqm.config.hooks import Hook
from openhqm.delivery.documents import acceptance_document
from openhqm.errors import InvalidRequest
from openhqm.http1.messages import Answer, Fields
from openhqm.ingress.answers import HTTPProblem
from openhqm.ingress.door import Door
from openhqm.ingress.wrong_logins import WrongLogins
from openhqm.messages import IdempotencyClaim, Submission
from openhqm.policy.foreign import read_content
from openhqm.policy.hook_signatures import PRESETS, NotGenuine, verify
from openhqm.policy.proxying import end_to_end

MOST_ID = 255
_NOT_KEPT = frozenset((b"cookie", b"authorization", b"openhqm-key", b"host", b"content-length"))
_SIGNATURES = frozenset(row.signature for row in PRESETS.values())


class Hooks:
    """Answers ``POST /hooks/NAME`` for the ``hooks`` by their names."""

    def __init__(self, hooks: Mapping[str, Hook], door: Door, wrong: WrongLogins | None = None) -> None:
        self._wrong = wrong
        self._hooks = hooks
        self._door = door

    def tenant(self, name: str) -> str | None:
        """On whose behalf the requests of a hook are."""
        hook = self._hooks.get(name)
        return None if hook is None else hook.tenant

    async def accept(
        self, name: str, body: bytes, fields: Fields, connection: Any = None, query: bytes = b""
    ) -> Answer:
        """The 202. `HTTPProblem` 404 and 401; the errors of `Door.take`. ``fields`` have names in lower case.

        An address that has sent too many wrong signatures gets 429, and nothing is computed for it.
        """
        hook = self._hooks.get(name)
        if hook is None:
            raise HTTPProblem(404, "there is no such hook")
        wait = 0.0 if self._wrong is None else self._wrong.wait(connection)
        if self._wrong is not None and wait:
            return self._wrong.refusal(wait)

        def read(now: float) -> tuple[Submission, IdempotencyClaim]:
            claim = _claim(name, self._genuine(hook, fields, body, now, connection, query))
            return _submission(name, hook, body, fields), claim

        acceptance = await self._door.take(
            read, lambda: len(body) + sum(len(a) + len(b) for a, b in fields), hook.tenant
        )
        replayed: Fields = ((b"Idempotency-Replayed", b"true"),) if acceptance.replayed else ()
        return Answer(202, acceptance_document(acceptance, self._door.ahead()), fields=replayed)

    def _genuine(self, hook: Hook, fields: Fields, body: bytes, now: float, connection: Any, query: bytes) -> str:
        url = (hook.url or "").encode() + (b"?" + query if query else b"")

        def one(name: bytes) -> bytes | None:
            values = [value for each, value in fields if each == name]
            return values[0] if len(values) == 1 else None

        try:
            return verify(hook.preset or "", hook.secrets, one, body, now, hook.tolerance_seconds, url)
        except NotGenuine:
            if self._wrong is not None:
                self._wrong.note(connection)
            raise HTTPProblem(401, "the signature does not hold") from None


def _submission(name: str, hook: Hook, body: bytes, fields: Fields) -> Submission:
    payload, raw = read_content(body, "auto")
    metadata: dict[str, str] = {"hook": name}
    if hook.endpoint is not None:
        metadata["endpoint"] = hook.endpoint
    if hook.operation is not None:
        metadata["operation"] = hook.operation
    try:
        kept = [each for each in end_to_end(fields) if each[0] not in _NOT_KEPT and each[0] not in _SIGNATURES]
    except ValueError as error:
        raise InvalidRequest("headers", str(error)) from None
    headers = {each.decode("ascii").title(): value.decode("latin-1") for each, value in kept}
    return Submission(payload, headers, metadata, body=raw)


def _claim(name: str, id: str) -> IdempotencyClaim:
    """The id alone decides: a sender may tell more in a repetition, as how many deliveries are open."""
    if len(id) > MOST_ID or not (id.isascii() and id.isprintable()):
        id = blake2b(id.encode("utf-8", "surrogatepass")).hexdigest()
    return IdempotencyClaim(id, b"", scope=f"hook {name}")
