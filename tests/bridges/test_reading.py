"""A foreign message as a request: each format, each bad input, and where the reply goes."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import Any

from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from openhqm.bridges.formats import Formats
from openhqm.bridges.held_claims import HELD_SECONDS
from openhqm.bridges.reading import Reader, Reading
from openhqm.codec import encode_request
from openhqm.config.bridges import Bridge, Replay, ReplyChannel, Source
from openhqm.errors import InvalidRequest, MalformedJSON, OpenHQMError, TransformFailed, UnreadableMessage
from openhqm.ingress.submission import check_submission, read_submission
from openhqm.interfaces import Message, Properties
from openhqm.messages import Priority, Request, Submission
from openhqm.policy.addressing import Addressing, Partitioning
from openhqm.policy.fields import Field
from openhqm.policy.queue_names import BACKLOG, partition_of

FORMATS = Formats(read_submission, check_submission)
REFUSALS = (UnreadableMessage, InvalidRequest, MalformedJSON, TransformFailed)


def source(format: str = "auto") -> Source:
    return Source("plant", topics=["#"], format=format)


def reader(format: str = "auto", addressing: Addressing | None = None, **bridge: Any) -> Reader:
    made = Bridge(name="b", from_=source(format), **bridge)
    return Reader(made, addressing or Addressing(), FORMATS, lambda name: "is ours" if name == "own" else None, 10_000)


def message(body: bytes = b"1", headers: dict[str, str] | None = None, **about: Any) -> Message:
    return Message(body, headers or {}, None, Properties(**{"topic": "sensors/7/value", **about}))


def read(body: bytes = b"1", format: str = "auto", headers: dict[str, str] | None = None, **about: Any) -> Reading:
    return reader(format).read(message(body, headers, **about), 100.0)


class FormatTests(SynchronousTestCase):
    def refused(self, body: bytes, format: str = "auto", **more: Any) -> str:
        """Why a message is no request."""
        with self.assertRaises(OpenHQMError) as caught:
            read(body, format, **more)
        self.assertIsInstance(caught.exception, REFUSALS)
        return str(caught.exception)

    def test_auto(self) -> None:
        """JSON is the payload, byte for byte; anything else is the body, with its type."""
        self.assertEqual(read(b' {"a": 1.50}').submission.payload, b'{"a": 1.50}')
        for body in (b"\xff\x00", b"NaN", b"{no", b"", b'{"a": 1} x', b"[" * 100):
            found = read(body, content_type="x/y").submission
            self.assertEqual((found.payload, found.body, found.headers), (b"null", body, {"Content-Type": "x/y"}))

    def test_keyed(self) -> None:
        """A key is the partition key, unless the bridge or the message names another; a tombstone is null."""
        keyed = replace(message(position="3/17"), key="k")
        metadata = reader().read(keyed, 100.0).submission.metadata
        self.assertEqual((metadata["key"], metadata["partition_key"], metadata["position"]), ("k", "k", "3/17"))
        named = reader(partition_key="{{ topic[1] }}").read(keyed, 100.0).submission.metadata
        self.assertEqual((named["key"], named["partition_key"]), ("k", "7"))
        for format in ("auto", "json", "text", "bytes"):
            found = read(b"", format, tombstone=True).submission
            self.assertEqual((found.payload, found.body, found.metadata["tombstone"]), (b"null", None, True))

    def test_named(self) -> None:
        """A format that is named is demanded."""
        self.assertEqual(read("ä".encode(), "text").submission.payload, '"ä"'.encode())
        self.assertEqual(read(b'{"a":1}', "bytes").submission.body, b'{"a":1}')
        self.assertIn("not JSON", self.refused(b"NaN", "json"))
        self.assertIn("not UTF-8", self.refused(b"\xff", "text"))
        for body in (b"[]", b"{}", b"\xff", b'{"payload":1,"other":2}', b'{"payload":1,"metadata":[]}'):
            self.refused(body, "envelope")
        self.refused(b"{}", "cloudevents")

    def test_specified(self) -> None:
        """The message of the specification (3.2.2): its id, its priority and its payload are used."""
        document = {
            "correlation_id": "their-id",
            "timestamp": "2026-11-27T00:00:00Z",
            "payload": {"a": 1},
            "metadata": {"retry_count": 3, "priority": "high"},
        }
        for format in ("auto", "envelope"):
            found = read(json.dumps(document).encode(), format)
            self.assertEqual(found.submission.payload, b'{"a": 1}')
            self.assertIs(found.submission.priority, Priority.HIGH)
            metadata = found.submission.metadata
            self.assertEqual((metadata["correlation_id"], metadata["retry_count"]), ("their-id", 3))
            self.assertEqual(metadata["timestamp"], "2026-11-27T00:00:00Z")
            assert found.claim is not None
            self.assertEqual((found.claim.key, found.certain), ("their-id", True))
        self.assertIn("priority", self.refused(json.dumps({**document, "metadata": {"priority": "x"}}).encode()))
        self.assertIsNone(read(b'{"payload": 1}').claim)  # JSON like any other

    def test_coalesced(self) -> None:
        """A key of a message is apart from those of other tenants and endpoints, as that of a caller is."""
        document = {"correlation_id": "a", "payload": 1, "metadata": {"coalesce": {"key": "k", "window": 1}}}
        found = set()
        for tenant in (None, "acme", "globex"):
            coalescing = reader(tenant=tenant).read(message(json.dumps(document).encode()), 100.0).submission.coalescing
            assert coalescing is not None
            self.assertEqual(coalescing.key, "k")
            found.add(coalescing.scope)
        self.assertEqual(len(found), 3)

    def test_envelope(self) -> None:
        """Our own envelope decides nothing that only the gateway decides."""
        parent = Submission(b"1", {"X-A": "b"}, priority=Priority.LOW, endpoint="e", partition=3, tenant="t")
        found = read(encode_request(Request("", 1.0, parent))).submission
        self.assertEqual((found.payload, found.priority, found.headers), (b"1", Priority.LOW, {"X-A": "b"}))
        self.assertEqual((found.endpoint, found.partition, found.tenant), (None, None, None))

    def test_cloud_events(self) -> None:
        """The attributes of an event are header fields, and its source and id say which one it is."""
        headers = {"specversion": "1.0", "id": "7", "source": "/s", "type": "t"}
        found = read(b"2", headers=headers)
        self.assertEqual((found.submission.payload, found.submission.headers["ce-id"]), (b"2", "7"))
        assert found.claim is not None
        self.assertEqual((found.claim.key, found.certain), ("/s 7", True))
        prefixed = {f"cloudEvents:{name}": value for name, value in headers.items()}
        self.assertEqual(read(b"2", headers=prefixed).submission.headers["ce-id"], "7")
        self.assertIn("cannot be a header", self.refused(b"2", headers={**prefixed, "a b": "c"}))
        event = json.dumps({**headers, "data": {"a": 1}}).encode()
        for format, content_type in (("auto", "application/cloudevents+json; charset=utf-8"), ("cloudevents", None)):
            self.assertEqual(read(event, format, content_type=content_type).submission.payload, b'{"a": 1}')
        picture = read(b"\xff", headers={**headers, "datacontenttype": "image/png"}).submission
        self.assertEqual((picture.body, picture.headers["Content-Type"]), (b"\xff", "image/png"))

    def test_headers(self) -> None:
        """What cannot be a header is refused, and never repaired."""
        self.assertEqual(read(headers={"X-A": "ä"}).submission.headers, {"X-A": "ä"})
        for name, value in (("a b", "1"), ("", "1"), ("X", "a\r\nb"), ("X", "\x00"), ("ä", "1"), ("X", "x" * 9000)):
            self.assertIn("cannot be a header", self.refused(b"1", headers={name: value}))
        self.assertIn("more than 100", self.refused(b"1", headers={f"X{number}": "" for number in range(101)}))

    def test_sizes(self) -> None:
        """Messages and topics have a bound."""
        self.assertIn("10000 bytes", self.refused(b'"%b"' % (b"x" * 10_000)))
        for topic in ("x" * 65_535, "/" * 1000, "ä" * 1025):
            self.assertIn("its topic", self.refused(b"1", topic=topic))
        self.assertEqual(read(topic="//").submission.metadata["topic_levels"], ["", "", ""])


class PlaceTests(SynchronousTestCase):
    def test_metadata(self) -> None:
        """Routes and templates find the bridge, the topic and its levels, and the flags of the message."""
        found = read(retained=True, duplicate=True).submission.metadata
        self.assertEqual(
            found,
            {
                "bridge": "b",
                "topic": "sensors/7/value",
                "topic_levels": ["sensors", "7", "value"],
                "retained": True,
                "duplicate": True,
            },
        )

    def test_where_it_goes(self) -> None:
        """The bridge's endpoint stands above what the message says; path and key come from templates."""
        addressing = Addressing(endpoints=("e", "f"), default="f")
        made = reader(
            addressing=addressing,
            endpoint="e",
            path="/devices/{{ topic[1] }}/{{ payload.a }}",
            partition_key="{{ topic[1] }}",
            priority="high",
            timeout=5.0,
        )
        found = made.read(message(b'{"a": "x/y z"}'), 0.0).submission
        self.assertEqual((found.endpoint, found.priority, found.timeout), ("e", Priority.HIGH, 5.0))
        self.assertEqual(found.metadata["path"], "/devices/7/x%2Fy%20z")
        self.assertEqual(found.metadata["partition_key"], "7")
        for body in (b"{}", b'{"a": ".."}', b'{"a": "x/../y"}'):
            with self.assertRaises(REFUSALS):  # type: ignore[arg-type]
                made.read(message(body), 0.0)

    def test_order(self) -> None:
        """All messages of a bridge are one sequence, or none: what the message says of a key decides neither."""
        addressing = Addressing(partitioning=Partitioning(Field.parse("metadata.partition_key"), 16))
        keyed = [replace(message(), key=f"k{number}") for number in range(20)]
        for order, count in ((None, 16), ("strict", 1)):
            made = reader(addressing=addressing, order=order)
            partitions = {made.read(each, 0.0).submission.partition for each in keyed}
            self.assertNotIn(None, partitions)
            self.assertEqual(len(partitions), count)
        made = reader(addressing=addressing, order="none")
        self.assertEqual({made.read(each, 0.0).submission.partition for each in keyed}, {None})

    def test_away(self) -> None:
        """What comes while its endpoint is away waits apart, unless it has a place in a partition to keep."""
        partitioning = Partitioning(Field.parse("metadata.partition_key"), 16)
        addressing = Addressing(endpoints=("e", "f"), default="f", partitioning=partitioning)
        away = {"e": True, None: False}

        def partition(key: str | None = None, **bridge: Any) -> int | None:
            settings = Bridge(name="b", from_=source(), **bridge)
            made = Reader(settings, addressing, FORMATS, lambda name: None, 10_000, away.__getitem__)
            return made.read(replace(message(), key=key), 0.0).submission.partition

        rate = Replay(5.0)
        self.assertEqual(partition(endpoint="e", replay=rate), BACKLOG)
        self.assertEqual(partition("k", endpoint="e", order="none", replay=rate), BACKLOG)
        self.assertEqual(partition("k", endpoint="e", replay=rate), partition_of("k", 16))
        self.assertIsNone(partition(endpoint="e"))
        self.assertIsNone(partition(endpoint="f", replay=rate))

    def test_nowhere(self) -> None:
        """A message for which there is no endpoint is no request."""
        with self.assertRaises(InvalidRequest):
            reader(addressing=Addressing(endpoints=("e",))).read(message(), 0.0)

    def test_own_queues(self) -> None:
        """No message can put a request where replies wait."""
        specified = {"correlation_id": "i", "payload": 1, "metadata": {"endpoint": "replies-plant"}}
        made = reader(addressing=Addressing(endpoints=("e",), hidden=("replies-plant",), default="e"))
        with self.assertRaises(InvalidRequest):
            made.read(message(json.dumps(specified).encode()), 0.0)

    def test_identity(self) -> None:
        """A message's own id recognises it until it is acknowledged; what tells deliveries apart, for a minute."""
        self.assertIsNone(read().claim)
        self.assertIsNone(read(message_id="").claim)
        first, again, other = read(message_id="7"), read(message_id="7"), read(b"2", message_id="7")
        assert first.claim is not None and other.claim is not None
        self.assertEqual((first.claim, first.claim.scope, first.certain), (again.claim, "bridge b", True))
        self.assertNotEqual(first.claim.fingerprint, other.claim.fingerprint)
        brief, reused = read(identity="7"), read(b"2", identity="7")
        assert brief.claim is not None and reused.claim is not None
        self.assertNotEqual(brief.claim.key, reused.claim.key)  # else it would be a request without a claim
        self.assertEqual((first.claim.lifetime, brief.claim.lifetime, brief.certain), (HELD_SECONDS, 60.0, False))
        for identity in ("x" * 70_000, "\x00"):
            claim = read(message_id=identity).claim
            assert claim is not None
            self.assertLessEqual(len(claim.key), 255)
            self.assertTrue(claim.key.isprintable())

    def test_fault(self) -> None:
        """What the product has delivered and cannot be read is no request."""
        with self.assertRaises(UnreadableMessage):
            read(fault="a field is repeated")

    def test_letter(self) -> None:
        """The dead letter of a message has its bytes, and what it had besides."""
        made = reader().letter(message(b"\xff", {"a b": "c"}), "why", 9.0)
        submission = made.request.submission
        self.assertEqual((submission.body, submission.headers, made.at), (b"\xff", {}, 9.0))
        self.assertEqual(submission.metadata, {"bridge": "b", "topic": "sensors/7/value", "fields": {"a b": "c"}})


class ReplyTests(SynchronousTestCase):
    def follow_up(self, made: Reader, **about: Any) -> Any:
        (follow_up,) = made.read(message(**about), 0.0).follow_ups
        self.assertEqual(follow_up.endpoint, "replies-plant")
        return follow_up.metadata["reply_to"]

    def test_own_address(self) -> None:
        """A reply goes where the message says, with its correlation; without an address there is none."""
        self.assertEqual(read().follow_ups, ())
        self.assertFalse(read().submission.keeps_result)
        self.assertTrue(read(reply_to="answers/1").submission.keeps_result)
        address = self.follow_up(reader(), reply_to="answers/1", correlation=b"\x00\xff")
        self.assertEqual((address["broker"], address["channel"]), ("plant", "answers/1"))
        self.assertEqual(b64decode(address["correlation"]), b"\x00\xff")
        self.assertEqual(reader(reply="none").read(message(reply_to="answers/1"), 0.0).follow_ups, ())

    def test_configured(self) -> None:
        """A configured channel stands above it."""
        made = reader(reply=ReplyChannel("replies/{{ topic[1] }}"))
        self.assertEqual(self.follow_up(made, reply_to="answers/1")["channel"], "replies/7")
        with self.assertRaises(TransformFailed):
            made.read(message(topic="sensors//value"), 0.0)

    def test_refused(self) -> None:
        """A reply that a bridge would read again is refused, before there is a request."""
        with self.assertRaises(UnreadableMessage):
            read(reply_to="own")
