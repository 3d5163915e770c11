"""Templates for single names: what is filled in, and what cannot be."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import TransformFailed
from openhqm.messages import Submission
from openhqm.policy.fields import Document
from openhqm.policy.text_templates import TextTemplate, one_level

REQUEST = Submission(
    b'{"id": "7", "n": 12345678901234567890}',
    {"X-Kind": "order"},
    {"topic": "sensors/9/value", "topic_levels": ["sensors", "9", "value"]},
)


def fill(text: str) -> str:
    return TextTemplate(text).fill(Document(REQUEST, "the-id"))


class TextTemplateTests(SynchronousTestCase):
    def test_filled(self) -> None:
        """Fields of the payload, headers, the id, the topic and its levels become plain text."""
        for text, expected in (
            ("plain", "plain"),
            ("lamps/{{ payload.id }}/set", "lamps/7/set"),
            ("{{id}}", "7"),
            ("{{ n }}", "12345678901234567890"),
            ("{{ headers.x-kind }}-{{ correlation_id }}", "order-the-id"),
            ("{{ topic }}", "sensors/9/value"),
            ("{{ topic[1] }}.{{ topic.2 }}", "9.value"),
            ("{{ metadata.topic }}", "sensors/9/value"),
        ):
            self.assertEqual(fill(text), expected, text)

    def test_missing(self) -> None:
        """What the request lacks, or what is no text, is said."""
        for text in ("{{ payload.no }}", "{{ topic[7] }}", "{{ topic.x }}"):
            self.assertRaises(TransformFailed, fill, text)

    def test_no_template(self) -> None:
        """A placeholder that could not be filled is refused when it is compiled."""
        for text in ("{{", "a }} b", "{{ }}", "{{ a b }}", "{{ f(x) }}", "{{ a | text }}", "{{ payload. }}", "{{{a}}}"):
            self.assertRaises(ValueError, TextTemplate, text)

    def test_one_level(self) -> None:
        """A value cannot lead to another topic."""
        self.assertEqual(one_level("ä-1.x"), "ä-1.x")
        for text in ("", "a/b", "+", "#", "a\nb", "\x00"):
            self.assertRaises(TransformFailed, one_level, text)
