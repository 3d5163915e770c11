"""What the settings of a subscription mean for what is promised: `openhqm.pubsub.subscriptions.judge`."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from openhqm.pubsub.subscriptions import Wanted, judge, seconds_of

TOPIC = "projects/p/topics/a"
SOUND: dict[str, Any] = {
    "topic": TOPIC,
    "expirationPolicy": {},
    "enableMessageOrdering": True,
    "messageRetentionDuration": "604800s",
}


class JudgeTests(SynchronousTestCase):
    def judge(self, own: bool = True, dead_letters: str | None = None, **found: Any) -> tuple[str | None, list[str]]:
        fault, warnings = judge("a", {**SOUND, **found}, Wanted(60.0, dead_letters=dead_letters, own=own), TOPIC)
        return fault, list(warnings)

    def test_sound(self) -> None:
        """One as we make it is sound."""
        self.assertEqual(self.judge(), (None, []))

    def test_faults(self) -> None:
        """What can bring nothing, or not all, is a fault; a filter and no order are the business of its owner."""
        for found, ours_alone in (
            ({"topic": "_deleted-topic_"}, False),
            ({"detached": True}, False),
            ({"pushConfig": {"pushEndpoint": "https://a"}}, False),
            ({"bigqueryConfig": {"table": "a"}}, False),
            ({"topic": "projects/p/topics/b"}, True),
            ({"filter": "a"}, True),
            ({"enableMessageOrdering": False}, True),
        ):
            self.assertIsNotNone(self.judge(**found)[0], found)
            self.assertEqual(self.judge(own=False, **found)[0] is None, ours_alone, found)

    def test_warnings(self) -> None:
        """What may lose messages later is a warning, with the way out."""
        policy = {"deadLetterTopic": "projects/p/topics/d", "maxDeliveryAttempts": 5}
        for found, reason in (
            ({"expirationPolicy": {"ttl": "86400s"}}, "expires after 1 days"),
            ({"expirationPolicy": None}, "expires after 31 days"),
            ({"messageRetentionDuration": "3600s"}, "messageRetentionDuration"),
            ({"deadLetterPolicy": policy}, "after 5 deliveries"),
            ({"dead_letters": "dead"}, "counts no deliveries"),
            ({"enableExactlyOnceDelivery": True}, "exactly-once"),
        ):
            fault, (warning,) = self.judge(**found)  # type: ignore[arg-type]
            self.assertIsNone(fault)
            self.assertIn(reason, warning)

    def test_durations(self) -> None:
        """Seconds as the service writes them; 0 for none."""
        self.assertEqual([seconds_of(each) for each in ("600s", "1.5s", "", None, "x")], [600.0, 1.5, 0.0, 0.0, 0.0])
