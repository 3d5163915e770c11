"""Handlers: loaded, chosen, called, and held to JSON values."""

from __future__ import annotations

import json
import math
import sys
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import Reject
from openhqm.messages import Request, Submission
from openhqm.runtime.dotted import load_callable
from openhqm.workers.handlers import Handlers, Response, Work, echo
from openhqm.workers.results import result_text
from tests import hypothesis_profile  # noqa: F401

WHO: ContextVar[str] = ContextVar("WHO", default="none")


def work(payload: bytes = b"{}", clock: Clock | None = None, **submission: Any) -> Work:
    request = Request("7f9c", 0.0, Submission(payload, **submission))
    return Work(request, 2, 30.0, clock or Clock(), lambda detail: None)


async def wait_for(answer: Deferred[Any]) -> Any:
    return await answer


class WorkTests(SynchronousTestCase):
    """`Work`"""

    def test_attributes(self) -> None:
        """The payload parsed and as it came, headers in any case, the metadata, the attempt."""
        found = work(b'{"n": 12345678901234567890123 }', headers={"X-Name": "v"}, metadata={"tags": ["a"]})
        self.assertEqual(found.payload, {"n": 12345678901234567890123})
        self.assertEqual(found.payload_text, b'{"n": 12345678901234567890123 }')
        self.assertEqual((found.correlation_id, found.attempt, found.metadata), ("7f9c", 2, {"tags": ["a"]}))
        self.assertEqual([found.header("x-name"), found.header("other"), found.header("other", "d")], ["v", None, "d"])

    def test_operation(self) -> None:
        """``metadata.operation``, or else ``payload.operation``, where that is a string."""
        for payload, metadata, expected in (
            (b"{}", {"operation": "m"}, "m"),
            (b'{"operation": "p"}', {"operation": "m"}, "m"),
            (b' {"operation": "p"}', {}, "p"),
            (b'{"operation": 3}', {}, None),
            (b'["operation"]', {}, None),
            (b'"operation"', {}, None),
            (b"null", {}, None),
        ):
            self.assertEqual(work(payload, metadata=metadata).operation, expected, payload)

    def test_time(self) -> None:
        """`time_left` counts down to zero and no further; `deadline` is when the attempt times out."""
        clock = Clock()
        clock.advance(100)
        found = work(clock=clock)
        self.assertEqual((found.time_left, found.deadline), (30, 130))
        clock.advance(29)
        self.assertEqual(found.time_left, 1)
        clock.advance(5)
        self.assertEqual((found.time_left, found.deadline), (0, 130))

    def test_progress(self) -> None:
        """A progress event goes to the function that stores it."""
        reported: list[dict[str, Any]] = []
        Work(Request("7f9c", 0.0, Submission(b"1")), 1, 1.0, Clock(), reported.append).progress(done=1, of=3)
        self.assertEqual(reported, [{"done": 1, "of": 3}])


class LoadHandlerTests(SynchronousTestCase):
    """`load_callable`, for a handler"""

    def test_found(self) -> None:
        """A function of a module, or an attribute of an object in it, is loaded."""
        self.assertIs(load_callable("openhqm.workers.handlers:echo"), echo)
        self.assertIs(load_callable("json:decoder.JSONDecoder"), json.decoder.JSONDecoder)

    def test_not_found(self) -> None:
        """Each mistake is an error that quotes what the operator wrote."""
        for path, expected in (
            ("no_such_module_at_all:run", "no_such_module_at_all"),
            ("openhqm.no_such_module:run", "openhqm.no_such_module"),
            ("json:no_such_function", "no_such_function"),
            ("json:decoder.NoSuchClass.run", "decoder.NoSuchClass.run"),
            ("json:__doc__", "__doc__"),
            ("json:", "json"),
            (":run", "import"),
            ("..json:run", "..json"),
        ):
            error = self.assertRaises(ValueError, load_callable, path)
            self.assertIn(expected, str(error))

    def test_a_module_that_breaks(self) -> None:
        """For a module that raises while it is imported, the error names the exception."""
        directory = Path(self.mktemp())
        directory.mkdir()
        (directory / "openhqm_broken_handler.py").write_text("1 / 0\n")
        self.patch(sys, "path", [str(directory), *sys.path])
        error = self.assertRaises(ValueError, load_callable, "openhqm_broken_handler:run")
        self.assertIn("openhqm_broken_handler", str(error))
        self.assertIn("ZeroDivisionError", str(error))


class HandlersTests(SynchronousTestCase):
    """`Handlers`"""

    def run_with(self, given_work: Work, default: Any = None, **by_operation: Any) -> Deferred[Any]:
        return Handlers(default, by_operation).run(given_work)

    def test_choice(self) -> None:
        """The handler of the operation is called, else the default one."""
        resize = work(metadata={"operation": "resize"})
        answers = {
            "own": self.run_with(resize, lambda _: "default", resize=lambda _: "own"),
            "default": self.run_with(
                work(metadata={"operation": "other"}), lambda _: "default", resize=lambda _: "own"
            ),
        }
        for expected, answer in answers.items():
            self.assertEqual(self.successResultOf(answer), expected)
        self.assertEqual(self.successResultOf(self.run_with(work(), lambda _: "only")), "only")
        echoed = self.successResultOf(self.run_with(work(b'{"b": 1.50}'), echo))
        self.assertEqual(result_text(echoed), b'{"b": 1.50}')

    def test_no_handler(self) -> None:
        """Without any handler a request is rejected: nothing completes it with its own payload."""
        failure = self.failureResultOf(self.run_with(work()), Reject)
        self.assertIn("no handler", str(failure.value))

    def test_no_choice(self) -> None:
        """An unknown operation is rejected by name, and no other handler runs."""
        called: list[Work] = []
        for unknown in (work(metadata={"operation": "shred"}), work()):
            failure = self.failureResultOf(self.run_with(unknown, resize=called.append), Reject)
            self.assertIn(repr(unknown.operation), failure.getErrorMessage())
        self.assertEqual(called, [])

    def test_context(self) -> None:
        """What a handler sets in its context is not seen by the next one."""
        seen: list[str] = []

        def handle(work: Work) -> None:
            seen.append(WHO.get())
            WHO.set("an earlier request")

        for _ in range(2):
            self.successResultOf(Handlers(handle, {}).run(work()))
        self.assertEqual(seen, ["none"] * 2)

    def test_kinds_of_answers(self) -> None:
        """A value, a Deferred and a coroutine are valid answers."""
        gate: Deferred[str] = Deferred()
        later = self.run_with(work(), lambda _: wait_for(gate))
        self.assertNoResult(later)
        gate.callback("later")
        self.assertEqual(self.successResultOf(later), "later")
        for answer in ("now", succeed("now"), wait_for(succeed("now"))):
            self.assertEqual(self.successResultOf(self.run_with(work(), lambda _, answer=answer: answer)), "now")

    def test_failures(self) -> None:
        """An exception of a plain function or of a coroutine is the failure."""

        def plain(_: Work) -> None:
            raise KeyError

        async def coroutine(_: Work) -> None:
            raise KeyError

        for handler in (plain, coroutine):
            self.failureResultOf(self.run_with(work(), handler), KeyError)


class ResultTests(SynchronousTestCase):
    """`result_text` and `Response`"""

    @given(
        st.recursive(
            st.none() | st.booleans() | st.text() | st.integers() | st.floats(-1e300, 1e300),
            lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
            max_leaves=10,
        )
    )
    def test_json(self, value: Any) -> None:
        """Every JSON value, integers of any size included, is read back the same."""
        self.assertEqual(json.loads(result_text(value)), value)

    def test_wider_than_json(self) -> None:
        """Tuples are arrays, and the usual keys become names, as the standard library has it."""
        for value in ((1, (2, 3)), {1: "a"}, {"a": (None, True)}, [2**200, -(2**200)], {"a": [2**64, 1.5, "é", None]}):
            self.assertEqual(json.loads(result_text(value)), json.loads(json.dumps(value)))

    def test_not_json(self) -> None:
        """A value that JSON cannot carry is a `ValueError`, at any depth; never another error."""
        circle: list[Any] = []
        circle.append(circle)
        deep: list[Any] = []
        for _ in range(100_000):
            deep = [deep]
        for odd in (object(), math.nan, math.inf, -math.inf, "\ud800", print, ValueError, 1j, circle, deep):
            for value in (odd, [odd], {"a": {"b": [odd]}}, [None, "null", odd], [2**70, odd], (odd, 2**70)):
                error = self.assertRaises(ValueError, result_text, value)
                self.assertTrue(str(error))

    def test_status_codes(self) -> None:
        """The status of a response is a final HTTP status (RFC 9110, section 15)."""
        for status in (200, 201, 404, 599):
            self.assertEqual(Response("x", status_code=status).status_code, status)
        for status in (0, 100, 199, 600, -1, "200", 204.0, True, None, [], 10**30):
            self.assertRaises(ValueError, Response, "x", status_code=status)
