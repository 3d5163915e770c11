"""Which requests to a sidecar wait in the queue: rules, preferences, and the gateway's own paths."""

from __future__ import annotations

import time

from twisted.trial.unittest import SynchronousTestCase

from openhqm.ingress.preferences import prefers_async
from openhqm.policy.own_paths import OwnPaths, check_prefix
from openhqm.policy.sidecar_rules import Queued, Rule, decide


class PathsTests(SynchronousTestCase):
    def test_own(self) -> None:
        """The gateway has its own paths; paths that only look like them are the application's."""
        is_own = OwnPaths()
        for path in (b"/api/v1/submit", b"/api/v1/", b"/health", b"/health/ready", b"/metrics", b"/openapi.json"):
            self.assertTrue(is_own(path), path)
            self.assertEqual(is_own.unprefixed(path), path)
        for path in (b"/", b"/api/v1", b"/api/v2/x", b"/healthy", b"/metrics/x", b"//api/v1/x", b"/%61pi/v1/x", b"*"):
            self.assertFalse(is_own(path), path)

    def test_prefix(self) -> None:
        """Under a prefix, the paths for operators are the application's without it. Those of the API do not move."""
        is_own = OwnPaths("/_openhqm")
        for path, route in (
            (b"/api/v1/submit", b"/api/v1/submit"),
            (b"/_openhqm/health", b"/health"),
            (b"/_openhqm/health/ready", b"/health/ready"),
            (b"/_openhqm/metrics", b"/metrics"),
            (b"/_openhqm/openapi.json", b"/openapi.json"),
        ):
            self.assertTrue(is_own(path), path)
            self.assertEqual(is_own.unprefixed(path), route)
        for path in (
            b"/health",
            b"/metrics",
            b"/openapi.json",
            b"/_openhqm",
            b"/_openhqm/",
            b"/_openhqm/api/v1/submit",
        ):
            self.assertFalse(is_own(path), path)
        for path in (b"/health", b"/_openhqm", b"/_openhqmx/health", b"/_openhqm/api/v1/submit"):
            self.assertIsNone(is_own.unprefixed(path), path)

    def test_prefixes(self) -> None:
        """A prefix is a path, and not one of the API's."""
        for good in (None, "/", "/_openhqm", "/a/b.c", "/apis"):
            check_prefix(good)
        for bad in ("", "a", "/a/", "//", "/a//b", "/a b", "/%61", "/..", "/a/./b", "/api", "/api/v1", "/api/v1/x"):
            self.assertRaises(ValueError, check_prefix, bad)

    def test_patterns(self) -> None:
        """One star stays within its segment, two stars do not."""
        for pattern, yes, no in (
            ("/a", ["/a"], ["/a/", "/ab", "/", "/A"]),
            ("/a/*", ["/a/", "/a/b"], ["/a", "/a/b/c"]),
            ("/a/**", ["/a/", "/a/b", "/a/b/c"], ["/a", "/ab"]),
            ("/**", ["/", "/a", "/a/b"], ["*"]),
            ("/*/x", ["/a/x", "//x"], ["/a/b/x", "/a/xy"]),
            ("/a*b*c", ["/abc", "/axbxc", "/abcbc", "/abbcc"], ["/ab", "/a/bc"]),
            ("/*.pdf", ["/a.pdf", "/.pdf.pdf"], ["/a.pdfx", "/apdf"]),
            ("/a+b(c)", ["/a+b(c)"], ["/aab(c)"]),
            ("/*/x/**", ["/a/x/", "/a/x/b/c"], ["/a/x", "/a/b/x/"]),
        ):
            rule = Rule(pattern)
            for path in yes:
                self.assertTrue(rule.matches("GET", path, ()), (pattern, path))
            for path in no:
                self.assertFalse(rule.matches("GET", path, ()), (pattern, path))

    def test_time(self) -> None:
        """No path makes matching slow."""
        rule = Rule("/" + "*a" * 40 + "*b")
        started = time.perf_counter()
        self.assertFalse(rule.matches("GET", "/" + "a" * 8000, ()))
        self.assertLess(time.perf_counter() - started, 0.5)


class DecideTests(SynchronousTestCase):
    def test_rules(self) -> None:
        """The first rule that matches decides: by path, method, header, and its value."""
        rules = [
            Rule("/a", ("POST", "PUT"), wait=5.0),
            Rule("/a/**", header="X-Async"),
            Rule("/b", header="x-async", value="yes", wait=1.0),
            Rule("/b", ("GET",), wait=2.0),
        ]
        for method, path, fields, expected in (
            (b"POST", b"/a", [], Queued(5.0)),
            (b"GET", b"/a", [], None),
            (b"GET", b"/a/b", [(b"x-async", b"")], Queued(None)),
            (b"GET", b"/a/b", [], None),
            (b"GET", b"/b", [(b"x-async", b"no"), (b"x-async", b"yes")], Queued(1.0)),
            (b"GET", b"/b", [(b"x-async", b"no")], Queued(2.0)),
            (b"POST", b"/b", [(b"x-async", b"Yes")], None),
        ):
            self.assertEqual(decide(rules, method, path, fields, False), expected, (method, path, fields))

    def test_prefers_async(self) -> None:
        """A client that prefers respond-async gets it, whatever the rules say."""
        self.assertEqual(decide([], b"GET", b"/", [], True), Queued(None))
        self.assertEqual(decide([Rule("/**", wait=5.0)], b"GET", b"/", [], True), Queued(None))

    def test_preference(self) -> None:
        """``Prefer`` is parsed by RFC 7240: a list, in any case, with parameters; not within a quoted value."""
        for value in (
            "respond-async",
            "Respond-Async",
            "wait=5, respond-async",
            "respond-async;x=y",
            "a=b,respond-async ",
        ):
            self.assertTrue(prefers_async(value), value)
        for value in (None, "", "wait=5", "respond-asynchronously", 'a="x, respond-async"', "respond-async," * 1000):
            self.assertFalse(prefers_async(value), value)
