"""CloudEvents in messages; the examples are those of the specification and its bindings (1.0.2)."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import MalformedJSON, UnreadableMessage
from openhqm.policy.cloud_events import PREFIXES, binary, structured

EVENT = {"specversion": "1.0", "type": "com.example", "source": "/sensors/tn-1/alerts", "id": "C234-1234-1234"}


class BinaryTests(SynchronousTestCase):
    def test_prefixes(self) -> None:
        """MQTT has no prefix, AMQP ``cloudEvents:`` or ``cloudEvents_``, Kafka ``ce_``; HTTP ``ce-``."""
        for prefix in PREFIXES:
            headers = {f"{prefix}{name}": value for name, value in EVENT.items()}
            event = binary(b"<a/>", headers, "text/xml")
            assert event is not None
            self.assertEqual((event.source, event.id, event.data), ("/sensors/tn-1/alerts", "C234-1234-1234", b"<a/>"))
            self.assertEqual(event.content_type, "text/xml")
            self.assertEqual(event.headers, {f"ce-{name}": value for name, value in EVENT.items()})

    def test_others(self) -> None:
        """Headers that are no attributes stay; with no prefix, all are attributes."""
        event = binary(b"", {**{f"ce_{name}": value for name, value in EVENT.items()}, "X-A": "b"}, None)
        assert event is not None
        self.assertEqual(event.others, {"X-A": "b"})
        extended = binary(b"", {**EVENT, "device": "7"}, None)
        assert extended is not None
        self.assertEqual(extended.headers["ce-device"], "7")

    def test_encoded(self) -> None:
        """A value is percent-encoded for a header (HTTP binding, section 3.1.3.2)."""
        event = binary(b"", {**EVENT, "subject": 'Euro € "x" 50%'}, None)
        assert event is not None
        self.assertEqual(event.headers["ce-subject"], "Euro%20%E2%82%AC%20%22x%22%2050%25")

    def test_no_event(self) -> None:
        """Without one of the required attributes it is a message like any other."""
        for name in EVENT:
            self.assertIsNone(binary(b"", {key: value for key, value in EVENT.items() if key != name}, None))


class StructuredTests(SynchronousTestCase):
    def test_data(self) -> None:
        """The data are JSON in the bytes in which they came, or Base64."""
        event = structured(json.dumps({**EVENT, "data": {"a": 1.50}}).encode().replace(b"1.5", b"1.50"))
        self.assertEqual((event.data, event.content_type), (b'{"a": 1.50}', "application/json"))
        encoded = {**EVENT, "datacontenttype": "image/png", "data_base64": "/wA="}
        event = structured(json.dumps(encoded).encode())
        self.assertEqual((event.data, event.content_type), (b"\xff\x00", "image/png"))
        self.assertNotIn("ce-datacontenttype", event.headers)

    def test_refused(self) -> None:
        """What is no event is not taken for one."""
        for wrong in ({"data": 1}, {**EVENT, "id": ""}, {**EVENT, "x": {}}, {**EVENT, "data_base64": "?"}):
            self.assertRaises(UnreadableMessage, structured, json.dumps(wrong).encode())
        self.assertRaises(MalformedJSON, structured, b"[]")
