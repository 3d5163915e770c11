# -*- test-case-name: tests.ingress.test_proxied -*-
"""The asynchronous reverse proxy: requests wait in the queue, and the application's answers are served unchanged."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from openhqm.config.endpoints import APPLICATION
from openhqm.delivery.documents import acceptance_document
from openhqm.errors import InvalidRequest
from openhqm.http1.messages import Answer, FullRequest
from openhqm.ingress.answers import field, problem
from openhqm.ingress.door import Door, acceptance_fields
from openhqm.ingress.preferences import claim_of
from openhqm.messages import IdempotencyClaim, Reply, Submission
from openhqm.policy.callbacks import CALLBACK_URL
from openhqm.policy.field_text import field_bytes
from openhqm.policy.proxying import NO_PROXIES, end_to_end, forwarded_fields, with_via

# Cookies must not be stored. Prefer and X-Callback-Url are for the gateway.
_CALLBACK_URL = b"x-callback-url"
_NOT_STORED = frozenset((b"cookie", b"prefer", b"host", _CALLBACK_URL))
_SET_BY_GATEWAY = frozenset(("date", "server", "connection", "content-length"))


class Proxied:
    """Submits requests for the application to the queue, and answers for it.

    ``name`` is that of this process in ``Via``. ``trusts`` says whether the forwarding fields of a peer are kept.
    """

    def __init__(self, door: Door, name: bytes, trusts: Callable[[str | None], bool] = NO_PROXIES) -> None:
        self._door = door
        self._name = name
        self._trusts = trusts

    async def __call__(self, message: FullRequest, wait: float | None) -> Answer:
        """The application's answer where it comes within ``wait`` seconds; else a 202 that says where it will be.

        An ``Idempotency-Key`` is separate for each method and target. The errors of `Door.take`.
        """
        acceptance = await self._door.take(
            lambda now: (proxied_submission(message, self._name, self._trusts(message.peer)), _claim(message)),
            lambda: _received(message),
        )
        if wait is not None:
            record = await self._door.ended(acceptance, wait)
            if record is not None and record.reply is not None and self._door.can_send(record.reply):
                return passed_on(record.reply, message.head.method)
        return Answer(202, acceptance_document(acceptance, self._door.ahead()), fields=acceptance_fields(acceptance))


def proxied_submission(message: FullRequest, name: bytes, trusted: bool = False) -> Submission:
    """The submission for a request to the application. `InvalidRequest`.

    ``name`` is that of this process in ``Via``. Where the peer is ``trusted``, what it says about the client is kept.
    """
    head = message.head
    host = message.field(b"host")
    try:
        passed = forwarded_fields(
            end_to_end(head.headers), peer=message.peer, scheme=message.scheme, host=host, trusted=trusted
        )
    except ValueError as error:
        raise InvalidRequest("headers", str(error)) from None
    passed = with_via(passed, head.version, name)
    path, mark, query = head.target.decode("ascii").partition("?")
    metadata = {"endpoint": APPLICATION, "method": head.method.decode("ascii"), "path": path}
    if mark:  # /a and /a? are two targets
        metadata["query"] = query
    if sum(name == _CALLBACK_URL for name, _ in head.headers) > 1:
        raise InvalidRequest("X-Callback-Url", "stands twice: a request has one callback")
    callback = field(message.field, _CALLBACK_URL)
    if callback is not None:
        metadata[CALLBACK_URL] = callback
    kept = _joined([each for each in passed if each[0] not in _NOT_STORED])
    if host is not None:
        kept["Host"] = host.decode("latin-1")
    return Submission(b"null", kept, metadata, body=message.body)


def passed_on(reply: Reply, method: bytes) -> Answer:
    """The application's answer to a request with ``method``, unchanged; a problem document where it gave none."""
    if reply.result is None and reply.body is None:
        return problem(
            reply.status_code,
            reply.error or reply.status.value,
            correlation_id=reply.correlation_id,
            request_status=reply.status.value,
        )
    fields = tuple(
        (name.encode("ascii"), field_bytes(value))
        for name, value in reply.headers.items()
        if name.lower() not in _SET_BY_GATEWAY
    )
    body = reply.body if reply.body is not None else reply.result or b""
    if reply.status_code in (204, 304):  # RFC 9110, section 6.4.1: what followed would be taken for the next response
        body = b""
    return Answer(reply.status_code, body, fields=fields, passed_on=True, length=_length(reply, method, body))


def _length(reply: Reply, method: bytes, body: bytes) -> int | None:
    """The Content-Length to announce. Without a body it is what the application announced (RFC 9110, section 8.6)."""
    if method != b"HEAD" and reply.status_code != 304:
        return len(body)
    announced = next((value for name, value in reply.headers.items() if name.lower() == "content-length"), "")
    return int(announced) if announced.isascii() and announced.isdigit() and len(announced) <= 18 else None


def _claim(message: FullRequest) -> IdempotencyClaim | None:
    head = message.head
    scope = f"{head.method.decode('ascii')} {head.target.decode('ascii')}"
    return claim_of(field(message.field, b"idempotency-key"), scope, message.body)


def _received(message: FullRequest) -> int:
    """How many bytes of the request can be kept."""
    head = message.head
    return len(message.body) + len(head.target) + sum(len(name) + len(value) for name, value in head.headers)


def _joined(fields: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    """One value for each name. Several values are joined to a list (RFC 9110, section 5.3)."""
    joined: dict[str, str] = {}
    for name, value in fields:
        text = name.decode("ascii").title()
        joined[text] = f"{joined[text]}, {value.decode('latin-1')}" if text in joined else value.decode("latin-1")
    return joined
