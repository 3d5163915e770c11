"""The tags of a request: what is one, and what is not written down."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from openhqm.messages import Submission
from openhqm.policy.tags import MOST_TAG_CHARACTERS, MOST_TAGS, logged_tags, tags_in


class TagsTests(SynchronousTestCase):
    def test_found(self) -> None:
        """The tags are those that a caller may give; anything else under that name is none."""
        longest = "x" * MOST_TAG_CHARACTERS
        many = [str(number) for number in range(MOST_TAGS)]
        cases: tuple[tuple[Any, tuple[str, ...]], ...] = (
            (["a", "b"], ("a", "b")),
            (["a", "a"], ("a", "a")),
            ([longest], (longest,)),
            (many, tuple(many)),
            ([*many, "one more"], ()),
            ([longest + "x"], ()),
            ([""], ()),
            (["a", 1], ()),
            ("a", ()),
            ({"a": 1}, ()),
            (None, ()),
            ([], ()),
        )
        for given, found in cases:
            self.assertEqual(tags_in({"tags": given}), found, given)
        self.assertEqual(tags_in({}), ())

    def test_logged(self) -> None:
        """A request whose result no caller asks for is not written down, whatever its tags."""
        self.assertEqual(logged_tags(Submission(b"1", metadata={"tags": ["a"]})), ("a",))
        self.assertEqual(logged_tags(Submission(b"1")), ())
        self.assertIsNone(logged_tags(Submission(b"1", metadata={"tags": ["a"]}, keeps_result=False)))
