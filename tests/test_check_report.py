"""What ``--check`` prints of a backend."""

from __future__ import annotations

import attrs

from openhqm.check_report import BROKER_WORDS, WORDS, describe, report
from openhqm.interfaces import BrokerTraits, QueueTraits
from openhqm.policy.channel_count import ChannelCount
from tests.test_backends import BackendsCase


class CheckReportTests(BackendsCase):
    """`report`"""

    def test_every_trait(self) -> None:
        """Each trait of a queue is a line that begins in words, with yes, no, the limit, or that there is none."""
        self.assertEqual(set(WORDS), {field.name for field in attrs.fields(QueueTraits)})
        traits = self.make("queue: {type: memory}").queue.traits
        limited = attrs.evolve(traits, largest_message=1048576)
        for given, lines in (
            (traits, ("a 202 survives a crash and a power cut: no", "(413 for a longer one): no limit")),
            (limited, ("(413 for a longer one): 1048576", "the end of its request are stored together: yes")),
        ):
            described = describe(given)
            self.assertEqual(len(described), len(WORDS))
            for line in lines:
                self.assertTrue(any(each.endswith(line) for each in described), described)

    def test_limited_by_a_note(self) -> None:
        """A queue with a warning, as one that Redis syncs every second, is not called durable without a word."""
        traits = attrs.evolve(self.make("queue: {type: memory}").queue.traits, durable=True)
        self.assertIn("a power cut: yes, but see the notes", describe(traits, noted=True)[0])
        self.assertTrue(describe(traits)[0].endswith("a power cut: yes"))

    def test_a_backend(self) -> None:
        """Version and type come first, the warnings last; where there is no broker, nothing is said of channels."""
        settings = self.settings("queue: {type: memory}")
        lines = report(settings, self.make("queue: {type: memory}"), ["jobs.old holds requests"])
        self.assertTrue(lines[0].endswith("the configuration is sound"))
        self.assertEqual(lines[1], "queue.type memory")
        self.assertEqual(lines[-1], "  note: jobs.old holds requests")
        self.assertEqual([line for line in lines if "channel" in line], [])

    def test_a_broker(self) -> None:
        """The arithmetic of the channels, and how many the broker has."""
        text = "queue: {type: rabbitmq, priorities: [normal]}\npartitioning: {enabled: true, partition_count: 4}"
        backend = self.make(text)
        assert backend.channels is not None
        arithmetic = str(backend.channels())
        (line,) = [line for line in report(self.settings(text), backend, ()) if line.startswith("  channels:")]
        self.assertEqual(line, f"  channels: {arithmetic}; the broker has no limit that matters")
        limited = attrs.evolve(backend, channels=lambda: ChannelCount(1, 3, False, 10))
        (line,) = [line for line in report(self.settings(text), limited, ()) if line.startswith("  channels:")]
        self.assertEqual(line, "  channels: 1 endpoint x 3 priorities = 3 channels; the broker has at most 10")

    def test_the_broker_itself(self) -> None:
        """Each trait of the broker is a line, too."""
        self.assertEqual(set(BROKER_WORDS), {field.name for field in attrs.fields(BrokerTraits)})
        text = "queue: {type: rabbitmq}"
        lines = [line for line in report(self.settings(text), self.make(text), ()) if line.startswith("  broker: ")]
        self.assertEqual(len(lines), len(BROKER_WORDS))
        self.assertIn("  broker: an acknowledgement is for: each", lines)
        self.assertIn("  broker: lease of a delivery, in seconds: no limit", lines)
