# -*- test-case-name: tests.ingress.test_admission -*-
"""Who may send a body, decided by the head of a request before the body is read or asked for.

A short body has come with its head, mostly, and is cheaper to read than to refuse: the routes decide about those.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from openhqm.http1.admission import HeadRefused
from openhqm.http1.messages import Answer
from openhqm.http1.rules import Head
from openhqm.ingress.access import Access, role_for
from openhqm.ingress.hooks import Hooks
from openhqm.ingress.rate_limiting import Admitted, RateLimiter
from openhqm.policy.cors import Cors
from openhqm.policy.own_paths import OwnPaths

SHORT_BYTES = 64 * 1024
_SUBMISSIONS = (b"/api/v1/submit", b"/api/v1/batch")
_HOOKS = b"/hooks/"


class Admission:
    """Refuses a request whose body is not short, is chunked, or waits for ``100 Continue``, as its route would."""

    def __init__(
        self,
        own_paths: OwnPaths,
        access: Access | None,
        cors: Cors | None,
        limiter: RateLimiter | None,
        hooks: Hooks,
    ) -> None:
        self._own_paths = own_paths
        self._access = access
        self._cors = cors
        self._limiter = limiter
        self._hooks = hooks

    def __call__(self, head: Head, connection: Any) -> Admitted | None:
        """What was counted for the request; None: nothing. `HeadRefused`."""
        if head.length is not None and head.length <= SHORT_BYTES and not head.expects_continue:
            return None
        path = head.target.partition(b"?")[0]
        caller = None
        if self._access is not None:
            role = role_for(head.method, self._own_paths.unprefixed(path) or b"")
            refusal, caller = self._access.check(role, head.target, head.credentials, connection)
            if refusal is not None:
                raise self._refused(head, refusal)
        if self._limiter is None or head.method != b"POST":
            return None
        is_hook = path.startswith(_HOOKS)
        if path not in _SUBMISSIONS and not is_hook:
            return None
        tenant = self._hooks.tenant(path[len(_HOOKS) :].decode("ascii", "replace")) if is_hook else None
        size = head.length or 0
        refused, told = self._limiter.take(caller, connection, 1, size, tenant)
        if refused is not None:
            raise self._refused(head, refused.answer())
        return Admitted(size, told)

    def _refused(self, head: Head, answer: Answer) -> HeadRefused:
        if self._cors is not None:
            answer = replace(answer, fields=(*answer.fields, *self._cors.fields(head.field(b"origin"))))
        return HeadRefused(answer.status, "refused for its head", answer)
