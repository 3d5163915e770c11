"""The callback that a submission asks for."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import DestinationRefused, InvalidRequest
from openhqm.messages import Submission
from openhqm.policy.callbacks import CALLBACKS, Callbacks, refuse


def check(url: str) -> None:
    if "internal" in url:
        raise DestinationRefused("it is internal")


def submission(**metadata: object) -> Submission:
    return Submission(b"1", metadata=metadata, tenant="acme")


class CallbacksTests(SynchronousTestCase):
    def test_follow_up(self) -> None:
        """A URL makes one follow-up, in the queue of callbacks and of the same tenant; without one there is none."""
        (callback,) = Callbacks(check).of(submission(callback_url="https://example.com/done", other=1))
        self.assertEqual(
            (callback.endpoint, callback.metadata, callback.tenant, callback.keeps_result),
            (CALLBACKS, {"callback_url": "https://example.com/done"}, "acme", False),
        )
        self.assertEqual(Callbacks(check).of(submission(other=1)), ())

    def test_refused(self) -> None:
        """A URL that must not be called is refused without the reason, and any where none are sent."""
        error = self.assertRaises(InvalidRequest, Callbacks(check).of, submission(callback_url="https://internal/"))
        self.assertEqual(str(error), "metadata.callback_url: the destination is not allowed")
        error = self.assertRaises(InvalidRequest, refuse, submission(callback_url="https://example.com/"))
        self.assertIn("callbacks.secrets", str(error))
        self.assertEqual(refuse(submission(other=1)), ())
