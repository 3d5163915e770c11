# -*- test-case-name: tests.sqs.test_errors -*-
"""What boto3 raises and SQS answers, in our words.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/CommonErrors.html
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from openhqm.errors import Complaint, ConfigurationError, NotDurable, how_to_install
from openhqm.interfaces import ChannelMissing
from openhqm.pulled.product import Unreachable

MISSING = frozenset({"QueueDoesNotExist", "NonExistentQueue"})
THROTTLED = frozenset(
    {
        "RequestThrottled",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "OverLimit",
        "SlowDown",
        "KmsThrottled",
    }
)
LEASE_LOST = frozenset({"ReceiptHandleIsInvalid", "MessageNotInflight"})
CREDENTIALS = {
    "ExpiredToken": "its credentials have expired",
    "ExpiredTokenException": "its credentials have expired",
    "InvalidClientTokenId": "AWS does not know its access key",
    "UnrecognizedClientException": "AWS does not know its access key",
    "InvalidAccessKeyId": "AWS does not know its access key",
    "SignatureDoesNotMatch": "its secret access key is not the one of its access key",
    "InvalidSignatureException": "its secret access key is not the one of its access key",
    "InvalidSecurity": "AWS does not accept its credentials",
    "MissingAuthenticationToken": "it sends no credentials",
}
"""Credentials are read again after each of these: they may have been exchanged."""
CLOCK = frozenset({"RequestExpired", "RequestTimeTooSkewed", "SignatureDoesNotMatch", "InvalidSignatureException"})
DENIED = frozenset({"AccessDenied", "AccessDeniedException"})
CLOCK_SECONDS = 240.0
"""AWS refuses a signature whose time is more than five minutes from its own."""
LONGEST_REASON = 300


class Throttled(Unreachable):
    """SQS asks for fewer requests."""


class ConnectionClosed(Unreachable):
    """The connection ended before the answer."""


class CredentialsRefused(Unreachable):
    """AWS does not accept the credentials, or there are none."""


class LeaseLost(NotDurable):
    """The receipt is not the latest one, or its lease has ended: the message is delivered again, or gone."""


def check_installed(key: str = "queue.type") -> None:
    """`ConfigurationError` about ``key`` where boto3 is not installed."""
    try:
        import boto3  # noqa: F401
    except ImportError as error:
        reason = f"sqs needs more than is installed ({error}): {how_to_install('sqs')}"
        raise ConfigurationError([Complaint(key, reason)]) from None


def translate(error: BaseException, channel: str | None = None, now: float | None = None) -> NotDurable:
    """What a call of boto3 has raised. ``channel`` is what it was about; ``now`` is our time, in Unix seconds."""
    if isinstance(error, NotDurable):
        return error
    from botocore import exceptions

    if isinstance(error, exceptions.ClientError):
        return _answered(error.response, channel, time.time() if now is None else now)
    if isinstance(error, exceptions.NoRegionError):
        return CredentialsRefused("SQS needs a region: set region, or AWS_REGION")
    if isinstance(error, exceptions.InvalidRegionError):
        return CredentialsRefused(f"SQS: {error}")
    if isinstance(error, exceptions.ConnectionClosedError):
        return ConnectionClosed("SQS: the connection was closed", maybe_done=True)
    if isinstance(error, exceptions.EndpointConnectionError | exceptions.ConnectTimeoutError):
        return Unreachable(f"SQS cannot be reached: {_cause(error)}")
    if isinstance(error, exceptions.HTTPClientError):
        return Unreachable(f"SQS: {_cause(error)}", maybe_done=True)
    by_credentials = (
        exceptions.NoCredentialsError,
        exceptions.PartialCredentialsError,
        exceptions.CredentialRetrievalError,
        exceptions.TokenRetrievalError,
        exceptions.ProfileNotFound,
    )
    if isinstance(error, by_credentials):
        # A program that boto3 runs for credentials may have said anything.
        return CredentialsRefused(f"SQS: {str(error)[:LONGEST_REASON]} (boto3 looks for credentials in its own chain)")
    return NotDurable(f"SQS: {type(error).__name__}: {str(error)[:LONGEST_REASON]}", maybe_done=True)


def entry_error(found: Mapping[str, Any], channel: str) -> NotDurable:
    """What the answer to a batch says of an entry that failed."""
    code = _short(found.get("Code"))
    if code in LEASE_LOST or _about_receipts(found):
        return LeaseLost("the lease is over")
    if code in MISSING:
        return ChannelMissing(channel)
    if code in THROTTLED:
        return Throttled("SQS is throttling")
    return NotDurable(f"SQS: {code}: {found.get('Message') or 'no reason'}", maybe_done=not found.get("SenderFault"))


def skew(date: str | None, now: float) -> float | None:
    """How many seconds our clock is ahead of a ``Date`` header; None where that cannot be told."""
    try:
        return None if date is None else now - parsedate_to_datetime(date).timestamp()
    except ValueError:
        return None


def clock_warning(ahead: float) -> str:
    """That our clock differs by so much."""
    return f"the clock of this machine is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} that of AWS"


def _answered(response: Mapping[str, Any], channel: str | None, now: float) -> NotDurable:
    error = response.get("Error", {})
    code, message = _short(error.get("Code")), error.get("Message") or ""
    about = response.get("ResponseMetadata", {})
    if code in MISSING:
        return ChannelMissing(channel or "of that name")
    if code in LEASE_LOST or _about_receipts({"Code": code, "Message": message}):
        return LeaseLost("the lease is over")
    status = about.get("HTTPStatusCode", 0)
    if code in THROTTLED or status == 429:
        return Throttled(f"SQS is throttling ({code})")
    if code in CLOCK:
        ahead = skew((about.get("HTTPHeaders") or {}).get("date"), now)
        if ahead is not None and abs(ahead) > CLOCK_SECONDS:
            return CredentialsRefused(f"SQS refuses the signature: {clock_warning(ahead)}")
    if code in CREDENTIALS:
        return CredentialsRefused(f"SQS refuses this process: {CREDENTIALS[code]} ({code})")
    if code in DENIED:
        return NotDurable(f"SQS: the IAM policy does not allow that: {message}")
    if status >= 500:
        return Unreachable(f"SQS: {code or status}: {message}", maybe_done=True)
    return NotDurable(f"SQS: {code}: {message}")


def _short(code: Any) -> str:
    """The code without the name space that older answers have: AWS.SimpleQueueService.NonExistentQueue."""
    return str(code or "").rpartition("#")[2].rpartition(".")[2]


def _about_receipts(found: Mapping[str, Any]) -> bool:
    message = str(found.get("Message") or "").lower()
    return _short(found.get("Code")) == "InvalidParameterValue" and "receipt" in message


def _cause(error: Any) -> str:
    url = str(error.kwargs.get("endpoint_url") or "").partition("?")[0]
    said = str(error.kwargs.get("error") or "").rpartition(": ")[2] or str(error)
    return f"{url}: {said}" if url and url not in said else said
