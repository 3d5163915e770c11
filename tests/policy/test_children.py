"""Which step begins next, and how a request ends with its steps."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openhqm.messages import ChildState, Reply, Status, Submission
from openhqm.policy.children import (
    MOST_COPIED_BYTES,
    bounded,
    completed,
    describe,
    failed,
    is_too_large,
    outcome,
    places_of,
    time_left,
    what_is_next,
)
from tests import hypothesis_profile  # noqa: F401

ENDED = (Status.FAILED, Status.TIMEOUT, Status.CANCELLED)


@st.composite
def states(draw: st.DrawFn) -> list[ChildState]:
    """Any states of the steps of a few stages."""
    found = []
    for stage in range(1, draw(st.integers(1, 4)) + 1):
        for _ in range(draw(st.integers(1, 3))):
            status = draw(st.sampled_from(Status))
            begun = status is not Status.PENDING or draw(st.booleans())
            found.append(ChildState(str(len(found)), stage, "", status, begun=begun))
    return found


class DecisionTests(SynchronousTestCase):
    @given(states())
    def test_one_thing_follows(self, children: list[ChildState]) -> None:
        """A step that did not complete ends the request, and so do all completed ones; else some may begin."""
        following = what_is_next(children)
        not_completed = [place for place, each in enumerate(children) if each.status in ENDED]
        self.assertEqual(following.failed, min(not_completed, default=None))
        self.assertEqual(following.completed, all(each.status is Status.COMPLETED for each in children))
        if following.begin:
            self.assertIsNone(following.failed)
            (stage,) = {children[place].stage for place in following.begin}
            self.assertTrue(all(each.status is Status.COMPLETED for each in children if each.stage < stage))
            self.assertFalse(any(children[place].begun for place in following.begin))

    @given(st.lists(st.integers(1, 3), min_size=1, max_size=5), st.randoms(use_true_random=False))
    def test_it_comes_to_an_end(self, sizes: list[int], random: object) -> None:
        """Where each step that has begun completes, in any order, each begins once, and the request is completed."""
        children = [
            ChildState(f"{stage} {place}", stage, "") for stage, size in enumerate(sizes, 1) for place in range(size)
        ]
        begun: list[int] = []
        while not (following := what_is_next(children)).completed:
            for place in following.begin:
                begun.append(place)
                children[place] = ChildState("", children[place].stage, "", begun=True)
            running = [place for place, each in enumerate(children) if each.begun and not each.status.ended]
            place = random.choice(running)  # type: ignore[attr-defined]
            children[place] = ChildState("", children[place].stage, "", Status.COMPLETED, begun=True)
        self.assertEqual(sorted(begun), list(range(len(children))))


class ReplyTests(SynchronousTestCase):
    def reply(self, result: bytes | None = b"1", **fields: object) -> Reply:
        return Reply("child", Status.COMPLETED, 5.0, result, **fields)  # type: ignore[arg-type]

    def test_outcome_of_one(self) -> None:
        """A stage of one step results in that one's reply, whatever it is."""
        reply = self.reply(None, body=b"\xff", status_code=201, headers={"a": "b"})
        self.assertIs(outcome("parent", [ChildState("1", 1, "")], 1, [reply], 9.0), reply)

    def test_outcome_of_a_join(self) -> None:
        """A join results in the list of its results; what is no JSON is a string, and what is no text null."""
        children = [ChildState(str(place), 1, "", joined=True) for place in range(4)]
        replies = [
            self.reply(b'{"n":  1e400}'),
            self.reply(None),
            self.reply(None, body='say "ü"'.encode()),
            self.reply(None, body=b"\xff"),
        ]
        made = outcome("parent", children, 1, replies, 9.0)
        self.assertEqual(made.result, '[{"n":  1e400},null,"say \\"ü\\"",null]'.encode())
        self.assertEqual((made.correlation_id, made.status, made.completed_at), ("parent", Status.COMPLETED, 9.0))

    def test_completed(self) -> None:
        """The request has the last reply, under its own id, and the time that all of it took."""
        made = completed("parent", 3.0, self.reply(status_code=201, attempt=2), 9.5)
        self.assertEqual((made.correlation_id, made.completed_at, made.processing_time_ms), ("parent", 9.5, 6500))
        self.assertEqual((made.result, made.status_code, made.attempt), (b"1", 201, 2))

    def test_failed(self) -> None:
        """The error names the step: its number, its name where it has one, and its id."""
        children = [ChildState("a", 1, "orders"), ChildState("b", 2, "")]
        self.assertEqual(describe(children, 1), "step 2 of 2 (b)")
        reply = Reply("a", Status.TIMEOUT, 5.0, error="no answer", status_code=504)
        made = failed("parent", 3.0, children, 0, reply, 9.0)
        self.assertEqual(made.error, "step 1 of 2 (orders, a): no answer")
        self.assertEqual((made.status, made.status_code), (Status.TIMEOUT, 504))

    def test_too_large(self) -> None:
        """What is copied has a bound, as often as it is copied."""
        reply = self.reply(b'"%b"' % (b"a" * (MOST_COPIED_BYTES // 2 - 2)))
        self.assertEqual([is_too_large(reply, copies) for copies in (1, 2, 3)], [False, False, True])

    def test_places(self) -> None:
        """The steps of a stage stand beside each other."""
        children = [ChildState("", stage, "") for stage in (1, 2, 2, 3)]
        self.assertEqual([list(places_of(children, stage)) for stage in (1, 2, 3)], [[0], [1, 2], [3]])


class DeadlineTests(SynchronousTestCase):
    def test_time_left(self) -> None:
        """A step has the least of its own time and what is left of its request's, and never none at all."""
        for timeout, deadline, expected in (
            (None, None, None),
            (5.0, None, 5.0),
            (None, 107.0, 7.0),
            (5.0, 107.0, 5.0),
            (9.0, 107.0, 7.0),
            (None, 99.0, 0.001),
        ):
            self.assertEqual(time_left(timeout, deadline, 100.0), expected)

    def test_bounded(self) -> None:
        """A step that begins has the reply before it, that time, and no delay."""
        reply = Reply("child", Status.COMPLETED, 5.0)
        made = bounded(Submission(b"null", not_before=500.0), reply, 107.0, 100.0)
        self.assertEqual((made.parent_reply, made.timeout, made.not_before), (reply, 7.0, None))
