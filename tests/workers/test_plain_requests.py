"""Requests of which most is made once: they are the same as those that are made one by one."""

from __future__ import annotations

from itertools import product
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from openhqm.messages import Request, Submission
from openhqm.policy.fields import Document
from openhqm.policy.forwarding import Target, is_plain, target_request
from openhqm.policy.routing import CompiledRoute
from openhqm.workers.plain_requests import PlainRequests

PLAIN = Target("a", "http://a.test/b?c=d", headers={"X-A": "100%", "OpenHQM-Attempt": "none"})
ABOUT = {"OpenHQM-Attempt": "2", "Idempotency-Key": "an-id"}


class PlainTests(SynchronousTestCase):
    def test_same(self) -> None:
        """For each method, kind of content and credentials: one by one, or from what was made before."""
        contents = ({"payload": b'{"a": 1}'}, {"payload": b"null", "body": b"\x00"}, {"payload": b"null", "body": b""})
        headers = {"X-A": "100%", "OpenHQM-Attempt": "none"}
        for method in ("POST", "GET", "HEAD", "DELETE"):
            target = Target("a", "http://a.test/b?c=d", method, headers)
            requests = PlainRequests(target)
            for content, secret, number in product(contents, ("x", "y%"), range(2)):
                request = Request(f"id-{number}", 1.0, Submission(**content))  # type: ignore[arg-type]
                about = {"OpenHQM-Attempt": str(number), "Idempotency-Key": f"id-{number}"}
                credentials = {"Authorization": f"Bearer {secret}"}
                self.assertTrue(is_plain(request.submission, target, None))
                plain = requests.of(request, about, credentials)
                assert plain is not None
                made = target_request(
                    target, request, None, Document(request.submission), about=about, credentials=credentials
                )
                self.assertEqual(
                    [(name.decode(), value) for name, value in plain.fields(about)], list(made.raw_headers())
                )
                self.assertEqual(
                    (plain.method, plain.url.decode(), plain.content(request.submission)),
                    (made.method, made.url, made.content),
                )

    def test_not_plain(self) -> None:
        """Whatever shapes a request of its own is looked at for each."""
        shaping: Any = ({"metadata": {"method": "PUT"}}, {"metadata": {"path": "/x"}}, {"metadata": {"query": "a=b"}})
        for each in (*shaping, {"headers": {"X-B": "c"}}):
            self.assertFalse(is_plain(Submission(b"1", **each), PLAIN, None))
        self.assertFalse(is_plain(Submission(b"1"), PLAIN, CompiledRoute("r")))
        self.assertFalse(is_plain(Submission(b"1"), Target("a", None), None))
        self.assertFalse(is_plain(Submission(b"1"), Target("a", "http://a.test", relays=True), None))

    def test_cannot_be_sent(self) -> None:
        """A target whose fields cannot be sent has none: each request then says so itself."""
        request = Request("id", 1.0, Submission(b"1"))
        for headers in ({"X-Ö": "1"}, {"X-A": "a\nb"}, {"Host": "b.test"}):
            requests = PlainRequests(Target("a", "http://a.test", headers=headers))
            for _ in range(2):
                self.assertIsNone(requests.of(request, ABOUT, {}))
