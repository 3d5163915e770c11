"""What a process says of itself when it is ready."""

from __future__ import annotations

from openhqm.announcing import answers
from tests.config.test_config import ConfigCase


class AnswersTests(ConfigCase):
    """`answers`"""

    def test_named(self) -> None:
        """Each handler, and each endpoint with the server or the broker that it leads to."""
        for text, said in (
            ("worker: {handler: echo}", "echo"),
            ("worker: {handler: 'a:b', handlers: {c: 'd:e'}}", "a:b, d:e"),
            (
                "proxy: {enabled: true, default_endpoint: 'http://a.test:81/work'}",
                "default (http://a.test:81)",
            ),
            (
                "proxy: {sidecar: {enabled: true, upstream: 'http://localhost:8080'}}",
                "application (http://localhost:8080)",
            ),
            (
                "brokers: {p: {type: mqtt}}\n"
                "proxy: {enabled: true, endpoints: {lamp: {publish: {broker: p, topic: t}}}}",
                "lamp (broker p)",
            ),
            ("proxy: {enabled: true, caller_targets: {enabled: true}}", "callers"),
        ):
            self.assertEqual(answers(self.load(text)), f"answered by {said}")

    def test_no_secrets(self) -> None:
        """A path and a query may hold a secret, and are not shown."""
        said = answers(self.load("proxy: {enabled: true, default_endpoint: 'http://a.test/b?key=secret'}"))
        self.assertEqual(said, "answered by default (http://a.test)")
