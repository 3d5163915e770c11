"""``metadata.coalesce`` at the door: what may be asked for, and what the callers of each request are told."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import InvalidRequest, Reject
from openhqm.ingress.submission import read_submission
from openhqm.messages import Coalescing
from openhqm.policy.addressing import Addressing, Partitioning
from openhqm.policy.callbacks import Callbacks
from openhqm.policy.fields import Field
from tests.ingress.test_fast_path import InMemoryServer

NOW = 1_770_460_200.0
SOUND = {"key": "index", "window": 2, "max_wait": 30}
DAY = 86400


def read(coalesce: Any, **metadata: Any) -> Any:
    document = {"payload": 1, "metadata": {"coalesce": coalesce, **metadata}}
    return read_submission(json.dumps(document).encode(), NOW)


class ReadTests(SynchronousTestCase):
    def test_sound(self) -> None:
        """Key, window and most wait are read, and the metadata keeps what the caller wrote."""
        found = read(SOUND)
        self.assertEqual(found.coalescing, Coalescing("index", 2.0, 30.0))
        self.assertEqual(found.metadata, {"coalesce": SOUND})
        self.assertEqual(read({"key": "a", "window": 0.5}).coalescing, Coalescing("a", 0.5, 5.0))
        self.assertEqual(read({"key": "a", "window": DAY}).coalescing, Coalescing("a", DAY, DAY))
        self.assertEqual(read({"key": "é" * 255, "window": 1}, timeout=2).coalescing.key, "é" * 255)

    def test_refused(self) -> None:
        """Each other value is 422, and the member is named."""
        for value, field in (
            (None, ""),
            ("index", ""),
            ([], ""),
            ({}, ".key"),
            ({**SOUND, "more": 1}, ""),
            ({**SOUND, "key": ""}, ".key"),
            ({**SOUND, "key": 7}, ".key"),
            ({**SOUND, "key": "k" * 256}, ".key"),
            ({**SOUND, "key": "k" * 60_000}, ".key"),
            ({"key": "k"}, ".window"),
            ({**SOUND, "window": 0}, ".window"),
            ({**SOUND, "window": -1}, ".window"),
            ({**SOUND, "window": True}, ".window"),
            ({**SOUND, "window": "2"}, ".window"),
            ({**SOUND, "window": DAY + 1}, ".window"),
            ({**SOUND, "window": 2**62}, ".window"),
            ({**SOUND, "max_wait": 1}, ".max_wait"),
            ({**SOUND, "max_wait": None}, ".max_wait"),
            ({**SOUND, "max_wait": DAY + 1}, ".max_wait"),
        ):
            error: Any = self.assertRaises(InvalidRequest, read, value)
            self.assertEqual(error.field, f"metadata.coalesce{field}", value)

    def test_long_key(self) -> None:
        """A key of 64 KiB is 422, for all metadata together have no more than that."""
        error: Any = self.assertRaises(InvalidRequest, read, {**SOUND, "key": "k" * 65_536})
        self.assertEqual(error.field, "metadata")

    def test_contradictions(self) -> None:
        """It has a delay of its own, which must be over before the deadline."""
        for metadata, field in (
            ({"delay": 1}, "metadata.coalesce"),
            ({"not_before": "2026-02-07T11:00:00Z"}, "metadata.coalesce"),
            ({"timeout": 2}, "metadata.timeout"),
        ):
            error: Any = self.assertRaises(InvalidRequest, read, SOUND, **metadata)
            self.assertEqual(error.field, field)


class CoalescingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = InMemoryServer(True)

    def submit(self, key: str = "index", payload: int = 1, tenant: str | None = None, **metadata: Any) -> str:
        body = json.dumps({"payload": payload, "metadata": {"coalesce": {"key": key, "window": 2}, **metadata}})
        fields = {b"content-type": b"application/json"}
        accepted = Deferred.fromCoroutine(self.server.door.accept(body.encode(), fields.get, tenant))
        self.server.bench.backend.turn()
        return str(self.successResultOf(accepted).correlation_id)

    def get(self, path: str) -> Any:
        return json.loads(self.server.ask("GET", path).partition(b"\r\n\r\n")[2])

    def works(self) -> list[bytes]:
        self.server.bench.backend.pass_time(3)
        return [work.payload_text for work in self.server.handler.works]

    def test_documents(self) -> None:
        """Response, status and event of a superseded request name the one that has taken its place."""
        first, second = self.submit(), self.submit(payload=2)
        response, status = self.get(f"/api/v1/response/{first}"), self.get(f"/api/v1/status/{first}")
        self.assertEqual((response["status"], response["superseded_by"]), ("CANCELLED", second))
        self.assertEqual((response["reason_class"], response["status_code"]), ("superseded", 409))
        self.assertEqual((status["status"], status["superseded_by"]), ("CANCELLED", second))
        events = self.server.ask("GET", f"/api/v1/events/{first}")
        self.assertIn(b"event: cancelled", events)
        self.assertIn(b'"superseded_by":"%b"' % second.encode(), events)
        self.assertNotIn("superseded_by", self.get(f"/api/v1/status/{second}"))
        self.assertEqual(self.works(), [b"2"])

    def test_callers_of_their_own(self) -> None:
        """The keys of tenants and of endpoints are apart: none takes the place of another one's request."""
        self.server.door.addressing = Addressing(endpoints=frozenset({"mails", "pages"}))
        ids = [
            self.submit(tenant="acme", endpoint="mails"),
            self.submit(tenant="other", endpoint="mails"),
            self.submit(tenant="acme", endpoint="pages"),
        ]
        self.assertEqual([self.get(f"/api/v1/status/{id}")["status"] for id in ids], ["PENDING"] * 3)
        again = self.submit(tenant="acme", endpoint="mails")
        superseded = [self.get(f"/api/v1/status/{id}").get("superseded_by") for id in ids]
        self.assertEqual(superseded, [again, None, None])

    def test_batch(self) -> None:
        """The lines of a batch take the places of those before them, and of what was submitted alone."""
        first = self.submit()
        line = json.dumps({"payload": 2, "metadata": {"coalesce": {"key": "index", "window": 2}}})
        body = f"{line}\n{line}".encode()
        answer = self.server.ask("POST", "/api/v1/batch", body, content_type="application/x-ndjson")
        second, third = (each["correlation_id"] for each in json.loads(answer.partition(b"\r\n\r\n")[2])["accepted"])
        self.assertEqual(self.get(f"/api/v1/status/{first}")["superseded_by"], second)
        self.assertEqual(self.get(f"/api/v1/status/{second}")["superseded_by"], third)
        self.assertEqual(self.works(), [b"2"])

    def test_combined(self) -> None:
        """What else may be asked for works as for any request; what contradicts it is 422, with the way out."""
        self.server.door.addressing = Addressing(
            endpoints=frozenset({"mails"}),
            default="mails",
            partitioning=Partitioning(Field.parse("metadata.partition_key"), 4),
            follow_ups=Callbacks(lambda url: None).of,
        )
        one_step = [{"endpoint": "mails"}]
        for metadata, field, cure in (
            ({"priority": "high"}, None, ""),
            ({"timeout": 60}, None, ""),
            ({"tags": ["a"], "operation": "index", "own": {"a": 1}}, None, ""),
            ({"endpoint": "mails"}, None, ""),
            ({"partition_key": "a"}, None, ""),
            ({"callback_url": "https://example.com/"}, None, ""),
            ({"delay": 1}, "metadata.coalesce", "its window delays it"),
            ({"not_before": "1970-01-12T13:47:00Z"}, "metadata.coalesce", "its window delays it"),
            ({"timeout": 2}, "metadata.timeout", "ends before the request may begin"),
            ({"then": one_step}, "metadata.coalesce", "a request of its own"),
            ({"all": one_step}, "metadata.coalesce", "a request of its own"),
        ):
            key = json.dumps(metadata)
            if field is not None:
                body = json.dumps({"payload": 1, "metadata": {"coalesce": SOUND, **metadata}}).encode()
                for path, content in (("submit", body), ("batch", b'{"requests":[%b]}' % body)):
                    answer = self.server.ask("POST", f"/api/v1/{path}", content, content_type="application/json")
                    problem = json.loads(answer.partition(b"\r\n\r\n")[2])
                    problem = problem["rejected"][0]["problem"] if path == "batch" else problem
                    self.assertEqual((problem["status"], problem["field"]), (422, field), metadata)
                    self.assertIn(cure, problem["detail"])
                continue
            first, second = (self.submit(key, number, **metadata) for number in (1, 2))
            shown = self.get(f"/api/v1/status/{first}")
            self.assertEqual((shown["status"], shown["superseded_by"]), ("CANCELLED", second), metadata)
            self.assertEqual(self.get(f"/api/v1/status/{second}")["status"], "PENDING", metadata)

    def test_repeated(self) -> None:
        """A repeat under an idempotency key has the id that it had, and takes no place."""
        body = json.dumps({"payload": 1, "metadata": {"coalesce": SOUND}}).encode()
        fields = {"content_type": "application/json", "idempotency_key": "k"}
        answer = self.server.ask("POST", "/api/v1/submit", body, **fields)
        first, newest = json.loads(answer.partition(b"\r\n\r\n")[2])["correlation_id"], self.submit()
        again = self.server.ask("POST", "/api/v1/submit", body, **fields)
        self.assertIn(b"Idempotency-Replayed: true", again)
        self.assertEqual(json.loads(again.partition(b"\r\n\r\n")[2])["correlation_id"], first)
        self.assertEqual(self.get(f"/api/v1/status/{first}")["superseded_by"], newest)
        self.assertEqual(self.get(f"/api/v1/status/{newest}")["status"], "PENDING")

    def test_redriven(self) -> None:
        """A dead letter that is redriven takes no place: its work was begun."""
        first = self.submit()
        self.server.bench.backend.pass_time(3)
        self.server.handler.answers[0].errback(Reject("no"))
        self.server.bench.backend.turn()
        second = self.submit(payload=2)
        self.server.ask("POST", "/api/v1/dead-letters/1/redrive", content_type="application/json")
        self.assertEqual(self.get(f"/api/v1/status/{first}")["status"], "FAILED")
        self.assertEqual(self.get(f"/api/v1/status/{second}")["status"], "PENDING")
