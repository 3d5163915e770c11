"""What boto3 raises and SQS answers, in our words: which are a missing queue, a lost lease, throttling, credentials."""

from __future__ import annotations

from typing import Any

from botocore import exceptions
from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import NotDurable
from openhqm.interfaces import ChannelMissing
from openhqm.pulled.product import Unreachable
from openhqm.sqs.errors import CredentialsRefused, LeaseLost, Throttled, entry_error, skew, translate

NOW = 1_795_776_000.0
DATE = "Fri, 27 Nov 2026 10:40:00 GMT"


def answer(code: str, message: str = "", status: int = 400, **headers: str) -> exceptions.ClientError:
    """An error as SQS answers it."""
    about: Any = {"HTTPStatusCode": status, "HTTPHeaders": headers}
    return exceptions.ClientError(
        {"Error": {"Code": code, "Message": message}, "ResponseMetadata": about}, "SendMessage"
    )


class ErrorsTests(SynchronousTestCase):
    """`translate`, `entry_error`"""

    def test_answers(self) -> None:
        """Codes in the form of either protocol, and of ElasticMQ."""
        for error, kind, text in (
            (answer("AWS.SimpleQueueService.NonExistentQueue"), ChannelMissing, "orders"),
            (answer("com.amazonaws.sqs#QueueDoesNotExist"), ChannelMissing, "orders"),
            (answer("ReceiptHandleIsInvalid"), LeaseLost, "lease"),
            (answer("InvalidParameterValue", "Value x for parameter ReceiptHandle is invalid"), LeaseLost, "lease"),
            (answer("InvalidParameterValue", "Value 0 for MaxNumberOfMessages"), NotDurable, "MaxNumber"),
            (answer("RequestThrottled"), Throttled, "throttling"),
            (answer("KmsThrottled"), Throttled, "throttling"),
            (answer("AnyThing", status=429), Throttled, "throttling"),
            (answer("ExpiredToken"), CredentialsRefused, "have expired"),
            (answer("InvalidClientTokenId"), CredentialsRefused, "access key"),
            (answer("AccessDenied", "sqs:SendMessage on orders", 403), NotDurable, "IAM policy"),
            (answer("InternalError", status=500), Unreachable, "InternalError"),
        ):
            found = translate(error, "orders", NOW)
            self.assertIs(type(found), kind, error)
            self.assertIn(text, found.reason)

    def test_what_is_retried(self) -> None:
        """What the IAM policy refuses does not make the product unreachable."""
        self.assertNotIsInstance(translate(answer("AccessDenied")), Unreachable)

    def test_clock(self) -> None:
        """A signature that is refused because our clock is ten minutes wrong says so."""
        ahead = NOW + (skew(DATE, NOW) or 0.0) * -1 + 600
        found = translate(answer("SignatureDoesNotMatch", date=DATE), None, ahead)
        self.assertIn("600 s ahead of", found.reason)
        found = translate(answer("SignatureDoesNotMatch", date=DATE), None, ahead - 600)
        self.assertIn("secret access key", found.reason)
        self.assertIsNone(skew("no date", NOW))
        self.assertIsNone(skew(None, NOW))

    def test_raised(self) -> None:
        """What boto3 raises before there is an answer."""
        url = "https://sqs.nowhere-1.amazonaws.com/"
        for error, kind, text in (
            (exceptions.EndpointConnectionError(endpoint_url=url, error="Name not known"), Unreachable, "nowhere-1"),
            (exceptions.ConnectTimeoutError(endpoint_url=url, error="timed out"), Unreachable, "nowhere-1"),
            (exceptions.ReadTimeoutError(endpoint_url=url, error="timed out"), Unreachable, "nowhere-1"),
            (exceptions.NoRegionError(), CredentialsRefused, "AWS_REGION"),
            (exceptions.NoCredentialsError(), CredentialsRefused, "chain"),
            (exceptions.InvalidRegionError(region_name="x y"), CredentialsRefused, "x y"),
            (ValueError("odd"), NotDurable, "odd"),
            (LeaseLost("the lease is over"), LeaseLost, "over"),
        ):
            found = translate(error)
            self.assertIs(type(found), kind, error)
            self.assertIn(text, found.reason)
        said = translate(exceptions.CredentialRetrievalError(provider="custom-process", error_msg="x" * 10_000)).reason
        self.assertLess(len(said), 500)
        self.assertTrue(translate(exceptions.ReadTimeoutError(endpoint_url=url, error="")).maybe_done)
        self.assertFalse(translate(exceptions.EndpointConnectionError(endpoint_url=url, error="")).maybe_done)

    def test_entries(self) -> None:
        """An entry of a batch that failed by our fault was not done; by the service's, that is not known."""
        found = entry_error({"Code": "InvalidMessageContents", "Message": "x", "SenderFault": True}, "orders")
        self.assertEqual((found.maybe_done, "x" in found.reason), (False, True))
        self.assertTrue(entry_error({"Code": "InternalError", "SenderFault": False}, "orders").maybe_done)
        self.assertIsInstance(entry_error({"Code": "ReceiptHandleIsInvalid"}, "orders"), LeaseLost)
        self.assertIsInstance(entry_error({"Code": "RequestThrottled"}, "orders"), Throttled)
        self.assertIsInstance(entry_error({"Code": "QueueDoesNotExist"}, "orders"), ChannelMissing)
