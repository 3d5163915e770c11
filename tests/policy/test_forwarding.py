"""The HTTP request that is sent to a target, and what is kept of its response."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

from attrs import evolve
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import InvalidRequest, TransformFailed
from openhqm.ingress.submission import read_submission
from openhqm.messages import Request, Submission
from openhqm.policy.fields import Document, Field
from openhqm.policy.forwarding import Target, TargetRequest, query_text, reply_fields, target_request, target_url
from openhqm.policy.routing import CompiledRoute
from openhqm.policy.transforms import compile_transform
from tests import hypothesis_profile  # noqa: F401

EVERYTHING = Target("a", "http://a.test/base", forward=None)
NOTHING = Target("a", "http://a.test/base")


def made(
    target: Target, submission: Submission, route: CompiledRoute | None = None, **fields: dict[str, str]
) -> TargetRequest:
    document = Document(submission, "an-id")
    about, credentials = fields.get("about", {}), fields.get("credentials", {})
    return target_request(
        target, Request("an-id", 0, submission), route, document, about=about, credentials=credentials
    )


def lower(request: TargetRequest) -> dict[str, str]:
    return {name.lower(): value for name, value in request.headers.items()}


class MethodAndContentTests(SynchronousTestCase):
    def test_precedence_of_methods(self) -> None:
        """The request's own method comes first, then the route's, then the endpoint's."""
        route = CompiledRoute("r", method="PUT")
        self.assertEqual(made(EVERYTHING, Submission(b"1")).method, "POST")
        self.assertEqual(made(EVERYTHING, Submission(b"1"), route).method, "PUT")
        self.assertEqual(made(EVERYTHING, Submission(b"1", metadata={"method": "PATCH"}), route).method, "PATCH")

    def test_payload(self) -> None:
        """The payload is sent byte for byte, as application/json unless the caller sets another type."""
        request = made(EVERYTHING, Submission(b'{"n":  1.10}'))
        self.assertEqual((request.content, lower(request)), (b'{"n":  1.10}', {"content-type": "application/json"}))
        request = made(EVERYTHING, Submission(b"1", {"content-type": "application/x+json"}))
        self.assertEqual(request.headers, {"content-type": "application/x+json"})

    def test_without_content(self) -> None:
        """GET and HEAD have neither content nor Content-Type (RFC 9110, section 9.3.1)."""
        for method in ("GET", "HEAD"):
            typed = {"Content-Type": "application/json"}
            request = made(EVERYTHING, Submission(b"1", typed, metadata={"method": method}))
            self.assertEqual((request.content, request.headers), (None, {}))
        self.assertEqual(made(EVERYTHING, Submission(b"1", metadata={"method": "DELETE"})).content, b"1")

    def test_transform(self) -> None:
        """Transformed content has the transform's type, whatever type the caller set for the payload."""
        template = compile_transform("template", "Hello {{ payload.name | text }}")
        route = CompiledRoute("r", transform=template, headers={"X-Name": Field.parse("payload.name")})
        request = made(EVERYTHING, Submission(b'{"name":"Ann"}', {"Content-Type": "application/json"}), route)
        self.assertEqual(request.content, b"Hello Ann")
        self.assertEqual(lower(request), {"content-type": "text/plain; charset=utf-8", "x-name": "Ann"})

    def test_missing_field(self) -> None:
        """A template whose field is missing fails with the route and the field."""
        route = CompiledRoute("greet", transform=compile_transform("template", "{{ payload.name | text }}"))
        error = self.assertRaises(TransformFailed, made, EVERYTHING, Submission(b"{}"), route)
        self.assertIn("route greet", str(error))
        self.assertIn("payload.name", str(error))

    def test_bytes(self) -> None:
        """Content that came as bytes is sent unchanged, with the caller's type or none."""
        request = made(EVERYTHING, Submission(b"null", body=b"\x00\xff"), CompiledRoute("r"))
        self.assertEqual((request.content, lower(request)), (b"\x00\xff", {}))
        typed = Submission(b"null", {"Content-Type": "a/b", "Connection": "X-Hop", "X-Hop": "1"}, body=b"\x00")
        self.assertEqual(lower(made(NOTHING, typed)), {"content-type": "a/b"})
        self.assertEqual(lower(made(EVERYTHING, typed)), {"content-type": "a/b"})

    def test_relayed(self) -> None:
        """A request for the application behind the sidecar is sent as it came: method, target, fields and content."""
        for path, query, url in (
            ("/a;", None, "http://a.test/a;"),
            ("/a", "", "http://a.test/a?"),
            ("//a", "x=%", "http://a.test//a?x=%"),
            ("*", None, "http://a.test"),
        ):
            metadata = {"method": "get", "path": path, **({} if query is None else {"query": query})}
            came = Submission(b"null", {"Host": "shop.example", "X-Name": "Jos\xc3\xa9"}, metadata, body=b"")
            sent = made(Target("a", "http://a.test/", relays=True), came)
            self.assertEqual((sent.method, sent.url, sent.content), ("get", url, None))
            self.assertEqual(dict(sent.raw_headers()), {"Host": b"shop.example", "X-Name": b"Jos\xc3\xa9"})

    def test_relayed_content(self) -> None:
        """Content goes with any method. Without content, only the methods that should have some announce that."""
        for method, content in (("GET", None), ("BREW", None), ("POST", b""), ("PUT", b""), ("PATCH", b"")):
            for body, expected in ((b"", content), (b"x", b"x")):
                came = Submission(b"null", {}, {"method": method, "path": "/"}, body=body)
                self.assertEqual(made(evolve(NOTHING, relays=True), came).content, expected, (method, body))

    def test_not_relayed(self) -> None:
        """What looks like a relayed request, and is not for the application, goes by its endpoint's rules."""
        fields = {"Host": "shop.example", "X-Name": "a", "Authorization": "Basic eDp5"}
        came = Submission(b"null", fields, {"method": "get", "path": "/a"}, body=b"")
        sent = made(NOTHING, came)
        self.assertEqual((sent.method, sent.url, sent.headers), ("GET", "http://a.test/base/a", {}))


class FieldsTests(SynchronousTestCase):
    def test_precedence_of_fields(self) -> None:
        """The gateway's own fields come first, then credentials, the endpoint's, the route's, and the caller's."""
        about, credentials = {"X-A": "about"}, {"x-a": "credentials", "x-b": "credentials"}
        target = Target("a", "http://a.test", headers={"X-B": "endpoint", "X-C": "endpoint"}, forward=None)
        headers = {name: Field.parse("payload") for name in ("X-C", "X-D")}
        caller = dict.fromkeys(("X-A", "X-B", "X-C", "X-D", "X-E"), "caller")
        request = made(
            target,
            Submission(b'"route"', caller),
            CompiledRoute("r", headers=headers),
            about=about,
            credentials=credentials,
        )
        found = lower(request)
        del found["content-type"]
        self.assertEqual(
            found, {"x-a": "about", "x-b": "credentials", "x-c": "endpoint", "x-d": "route", "x-e": "caller"}
        )
        self.assertNotIn("credentials", repr(request))

    def test_idempotency_key(self) -> None:
        """The caller's own key is sent once, unless the endpoint strips it; no other source has one."""
        about, key = {"Idempotency-Key": "ours"}, {"IDEMPOTENCY-Key": "mine"}
        for target, headers, expected in (
            (Target("a", "http://a.test"), {}, "ours"),
            (Target("a", "http://a.test"), key, "mine"),
            (EVERYTHING, key, "mine"),
            (Target("a", "http://a.test", headers={"Idempotency-Key": "all the same"}), {}, "ours"),
            (Target("a", "http://a.test", headers={"Idempotency-Key": "all the same"}), key, "mine"),
            (Target("a", "http://a.test", strip=frozenset({"idempotency-key"})), key, "ours"),
        ):
            for route in (None, CompiledRoute("r", headers={"idempotency-key": Field.parse("payload")})):
                request = made(target, Submission(b'"route"', headers), route, about=about)
                found = [value for name, value in request.headers.items() if name.lower() == "idempotency-key"]
                self.assertEqual(found, [expected], (target, headers, route))

    def test_lists(self) -> None:
        """One list names the fields that are forwarded, another those that are not; both without regard to case."""
        caller = {"X-A": "1", "x-b": "2", "X-C": "3"}
        target = Target("a", "http://a.test", forward=frozenset({"x-a", "x-b"}), strip=frozenset({"x-b"}))
        found = lower(made(target, Submission(b"1", caller)))
        self.assertEqual(found, {"content-type": "application/json", "x-a": "1"})

    def test_trace(self) -> None:
        """The trace context is always forwarded, and an endpoint's headers do not replace it."""
        caller = {"traceparent": "00-a-b-01", "tracestate": "c=d"}
        target = Target("a", "http://a.test", headers={"Traceparent": "mine"})
        found = lower(made(target, Submission(b"1", caller)))
        self.assertEqual((found["traceparent"], found["tracestate"]), ("00-a-b-01", "c=d"))

    def test_connection(self) -> None:
        """Fields that ``Connection`` names are not forwarded (RFC 9110, section 7.6.1), in both directions."""
        found = lower(made(EVERYTHING, Submission(b"1", {"Connection": "close, X-Hop", "X-Hop": "1", "X-End": "2"})))
        self.assertEqual(found, {"content-type": "application/json", "x-end": "2"})
        answer = [(b"Connection", b"X-Hop, keep-alive"), (b"X-Hop", b"1"), (b"X-End", b"2")]
        self.assertEqual(reply_fields(answer), {"X-End": "2"})

    def test_underscore(self) -> None:
        """A field of a response with ``_`` in its name, which another program may take for a hyphen, is not kept."""
        self.assertEqual(reply_fields([(b"X_End", b"1"), (b"X-End", b"2")]), {"X-End": "2"})

    def test_length(self) -> None:
        """The announced length is kept of a response without a body, as one to HEAD is."""
        answer = [(b"Content-Length", b"5")]
        self.assertEqual((reply_fields(answer), reply_fields(answer, bodiless=True)), ({}, {"Content-Length": "5"}))

    @given(
        st.dictionaries(
            st.sampled_from(
                [
                    "Connection",
                    "Keep-Alive",
                    "Proxy-Connection",
                    "Proxy-Authorization",
                    "Proxy-Authenticate",
                    "TE",
                    "Trailer",
                    "Upgrade",
                    "Proxy",
                    "Transfer-Encoding",
                    "Content-Length",
                    "Expect",
                    "Cookie",
                    "Set-Cookie",
                    "Host",
                    "OpenHQM-Attempt",
                    "openhqm-deadline",
                    "OpenHQM_Attempt",
                    "X_Forwarded_For",
                    "X-Forwarded-For",
                    "X-Forwarded-Host",
                    "Forwarded",
                    "X-Real-IP",
                    "X-Fine",
                ]
            ).flatmap(lambda name: st.sampled_from((name, name.lower(), name.upper()))),
            st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20),
        )
    )
    def test_never_forwarded(self, headers: dict[str, str]) -> None:
        """Hop-by-hop fields, cookies, Host, the gateway's own names, and fields about the client are
        never forwarded.
        """
        found = lower(made(EVERYTHING, Submission(b"1", headers)))
        self.assertLessEqual(set(found), {"content-type", "x-fine"})


class UrlTests(SynchronousTestCase):
    def test_parts(self) -> None:
        """The path is appended to the endpoint's, and the queries follow one another."""
        for base, path, query, mapped, expected in (
            ("http://a.test", None, None, {}, "http://a.test/"),
            ("http://a.test/", "/x", None, {}, "http://a.test/x"),
            ("http://a.test/base/", "/x%20y", None, {}, "http://a.test/base/x%20y"),
            ("http://a.test/base", None, "q=1", {}, "http://a.test/base?q=1"),
            ("http://a.test/base?k=0", "/x", {"q": [1, True, "a b"]}, {"m": "ü&"}, None),
            ("http://a.test", "//evil.test/x", None, {}, "http://a.test//evil.test/x"),
        ):
            url = target_url(base, path, query, mapped)
            self.assertEqual(url, expected or "http://a.test/base/x?k=0&q=1&q=true&q=a+b&m=%C3%BC%26")

    def test_invalid_query(self) -> None:
        """An invalid query is refused, and its parameter named."""
        for query in (1, [1], {"a": {}}, {"a": None}, {"a": [[1]]}):
            self.assertRaises(ValueError, query_text, query)
        self.assertEqual((query_text(None), query_text("")), ("", ""))

    @given(
        st.text(st.sampled_from("/.%2eE5cCfF3bB;\\@:?#a "), max_size=12).map("/".__add__),
        st.one_of(
            st.none(),
            st.text(st.sampled_from("&=a%20#?/@ü"), max_size=8),
            st.dictionaries(st.text(max_size=4), st.text(max_size=4)),
        ),
    )
    @example("/..;/admin", None)
    @example("/%2e%2E%3Bx/admin", None)
    @example("//evil.test", None)
    def test_same_host_and_path(self, path: str, query: Any) -> None:
        """For any submission, the URL stays on the endpoint's host and below its path, as servers parse it."""
        body = json.dumps({"payload": 1, "metadata": {"path": path, "query": query}}).encode()
        try:
            metadata = read_submission(body, 0).metadata
        except InvalidRequest:
            return
        url = target_url("https://a.test:8443/base/deep", metadata["path"], metadata["query"], {})
        parts = urlsplit(url)
        self.assertTrue(url.isascii() and url.isprintable() and " " not in url, url)
        self.assertEqual((parts.scheme, parts.netloc, parts.fragment), ("https", "a.test:8443", ""))
        self.assertTrue(parts.path.startswith("/base/deep/"))
        depth = 0
        for segment in parts.path.lower().replace("%2e", ".").replace("%2f", "/").replace("%5c", "/").split("/")[3:]:
            name = segment.replace("%3b", ";").partition(";")[0]
            depth += -1 if name == ".." else 1
            self.assertGreaterEqual(depth, 0, url)
        if isinstance(query, dict):
            self.assertEqual(
                parse_qs(parts.query, keep_blank_values=True), {name: [text] for name, text in query.items()}
            )


class ReplyFieldsTests(SynchronousTestCase):
    def test_kept(self) -> None:
        """All fields are kept but cookies and hop-by-hop fields. A repeated field becomes a list."""
        found = reply_fields(
            [
                (b"Content-Type", b"text/plain"),
                (b"Vary", b"a"),
                (b"vary", b"b"),
                (b"Set-Cookie", b"s=1"),
                (b"Transfer-Encoding", b"chunked"),
                (b"Content-Length", b"5"),
            ]
        )
        self.assertEqual(found, {"Content-Type": "text/plain", "Vary": "a, b"})

    def test_bytes(self) -> None:
        """Bytes beyond ASCII are kept, and can be restored (RFC 9110, section 5.5)."""
        name = 'attachment; filename="straße.txt"'.encode()
        found = reply_fields([(b"Content-Disposition", name)])
        self.assertEqual(found["Content-Disposition"].encode("latin-1"), name)

    def test_invalid_fields(self) -> None:
        """An invalid field is left out, and the response keeps the others."""
        fields = [(b"X-A", b"a\x00b"), (b"X B", b"1"), (b"X-C", b"a\x1b[2J"), (b"X-D", b"a\tb")]
        self.assertEqual(reply_fields(fields), {"X-D": "a\tb"})
