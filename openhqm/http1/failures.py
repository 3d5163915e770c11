# -*- test-case-name: tests.http1.test_client,tests.http1.test_failures -*-
"""Why a call of a server failed: the errors of the client, and their descriptions for people."""

from __future__ import annotations

import builtins
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    ConnectionClosed,
    ConnectionRefusedError,
    DNSLookupError,
    NoRouteError,
    TimeoutError,
)
from twisted.python.failure import Failure

from openhqm.errors import OpenHQMError
from openhqm.http1.response_reader import TooLong
from openhqm.http1.rules import Refusal


class AnswerTooLong(Exception):
    """A response is longer than its limit. The connection was closed."""


class CallFailed(Exception):
    """The server was connected, and no complete and valid response came. It may have acted on the request.

    ``reasons`` has what broke the connection, where that says more.
    """

    def __init__(self, text: str, reason: BaseException | None = None) -> None:
        super().__init__(text)
        self.reasons = [] if reason is None else [Failure(reason)]


class NotConnected(Exception):
    """No connection to the server could be made, for the one of ``reasons``. Nothing of the request was sent."""

    def __init__(self, reason: Failure) -> None:
        super().__init__(reason.getErrorMessage())
        self.reasons = [reason]


def connecting_failure(failure: Failure) -> Failure:
    """The failure of a call whose connecting ended with ``failure``. Refused destinations and cancelling stay."""
    error = failure.value
    if isinstance(error, OpenHQMError) or (error is not None and was_cancelled(error)):
        return failure
    return Failure(NotConnected(failure))


def response_failure(refusal: Refusal) -> Failure:
    """The failure of a call whose response ended with ``refusal``."""
    if isinstance(refusal, TooLong):
        return Failure(AnswerTooLong(refusal.reason))
    return Failure(CallFailed(refusal.reason, refusal.__cause__))


_SAID: tuple[tuple[Any, str], ...] = (
    (ConnectionRefusedError | builtins.ConnectionRefusedError, "the connection was refused"),
    (DNSLookupError, "its name was not found"),
    (NoRouteError, "there is no route to it"),
    (ConnectionClosed | ConnectionError, "the connection was closed before the answer was complete"),
)
"""What an error means, in order. Callers are told of HTTP, and not of Python's classes."""


def describe_failure(error: BaseException) -> str:
    """A text for people about why a request failed."""
    error = root_cause(error)
    if isinstance(error, OpenHQMError | AnswerTooLong | CallFailed):
        return str(error)
    if of_tls(error):
        from openhqm.runtime.tls import describe_tls_error

        return describe_tls_error(error)
    if isinstance(error, TimeoutError | builtins.TimeoutError):
        return (error.args and str(error.args[0])) or "no connection could be made in time"
    said = next((text for kinds, text in _SAID if isinstance(error, kinds)), None)
    if said is not None:
        return said
    text = str(error).strip()
    if text and isinstance(error, ConnectError | OSError):
        return f"no connection could be made: {text}"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def of_tls(error: BaseException) -> bool:
    """Whether a request failed in the handshake of TLS, for its certificate, for example."""
    return type(root_cause(error)).__module__.partition(".")[0] in ("OpenSSL", "service_identity")


def was_cancelled(error: BaseException) -> bool:
    """Whether a request failed because it was cancelled."""
    return isinstance(root_cause(error), CancelledError | ConnectingCancelledError)


def root_cause(error: BaseException) -> BaseException:
    """The error inside `NotConnected`, `CallFailed` and Twisted's `ResponseFailed`; others as they are."""
    reasons = getattr(error, "reasons", None)
    return root_cause(reasons[0].value) if reasons else error
