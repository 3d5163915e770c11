"""The callback that a submission asks for."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import DestinationRefused, InvalidRequest
from openhqm.messages import Submission
from openhqm.policy.callbacks import CALLBACKS, Callbacks, Channel, refuse


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

    def test_reply_to(self) -> None:
        """A channel that is allowed makes one follow-up, in the queue of replies to its broker, beside the callback."""
        callbacks = Callbacks(check, {"plant": Channel("replies-plant", ["done", "answers/*"])})
        for topic in ("done", "answers/1", "answers/line-2/a_b.c"):
            (reply,) = callbacks.of(submission(reply_to={"broker": "plant", "topic": topic}))
            self.assertEqual((reply.endpoint, reply.tenant, reply.keeps_result), ("replies-plant", "acme", False))
            self.assertEqual(reply.metadata, {"reply_to": {"broker": "plant", "channel": topic, "document": True}})
        both = submission(reply_to={"broker": "plant", "topic": "done"}, callback_url="https://example.com/done")
        self.assertEqual([each.endpoint for each in callbacks.of(both)], [CALLBACKS, "replies-plant"])

    def test_reply_to_refused(self) -> None:
        """Any other channel is refused with one text, and so is each where none are allowed."""
        callbacks = Callbacks(check, {"plant": Channel("replies-plant", ["done", "answers/*"])})
        for address in (
            *("done", None, 1, [], {}, {"broker": "plant"}, {"broker": "plant", "topic": "done", "qos": 2}),
            *({"broker": broker, "topic": "done"} for broker in ("other", None, ["plant"], {}, "replies-plant")),
            *({"broker": "plant", "topic": topic} for topic in ("", "Done", "done/1", "answers/", "answer/1", None, 7)),
            *({"broker": "plant", "topic": f"answers/{end}"} for end in ("#", "+/a", "a b", "\n", "\x00", "x" * 201)),
            {"broker": "plant", "topic": "answers/*"},
        ):
            for of in (callbacks.of, refuse):
                error = self.assertRaises(InvalidRequest, of, submission(reply_to=address))
                self.assertEqual(error.field, "metadata.reply_to", address)
