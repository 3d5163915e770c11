"""The table of products is a value: configuration does with any table what it does with ours, and names no product."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

import openhqm.config
from openhqm.backends import PRODUCTS
from openhqm.config.loading import load
from openhqm.config.model import Settings, short_form
from openhqm.config.products import ForeignChannels, Kind, Product, Products, Reach
from openhqm.config.queue_rules import about_the_kind, record_keeper
from openhqm.config.validators import between, not_empty
from openhqm.errors import Complaint, ConfigurationError
from openhqm.messages import Priority


@attrs.frozen
class Shelf:
    """A file."""

    path: str = attrs.field(default="shelf", validator=not_empty)


@attrs.frozen
class Cloud:
    """A server with a secret address, or several."""

    url: str = attrs.field(default="cloud://here", repr=False, metadata=short_form("cloud_url"))
    zones: list[str] = attrs.field(factory=lambda: ["a"], metadata=short_form("cloud_zones"))
    seconds: float = attrs.field(default=1.5, validator=between(0.1, 60))


@attrs.frozen
class Pipe:
    """A broker."""

    url: str = attrs.field(default="pipe://here", metadata=short_form("pipe_url"))


def no_zone_b(settings: Settings) -> list[tuple[str, str]]:
    zones = settings.queue.of(Cloud).zones
    return [(settings.queue.key(Cloud, "zones"), "zone b is closed")] if "b" in zones else []


BRIDGE = """server: {enabled: false}
brokers: {p: {type: pipe}}
bridges: [{name: b, from: {broker: p, queue: q}}]"""
TABLE = Products(
    [
        Product("air", Kind.BACKEND, Reach.PROCESS),
        Product("shelf", Kind.BACKEND, Reach.FILE, Shelf, keeps_records=True),
        Product("cloud", Kind.BACKEND, Reach.SHARED, Cloud, no_zone_b, keeps_records=True, foreign_messages=True),
        Product("pipe", Kind.BROKER, Reach.SHARED, Pipe, foreign=ForeignChannels("queue")),
        Product("box", Kind.EITHER, Reach.SHARED),
    ],
    absent={"drum": ("drum_sticks",)},
)


class ProductsCase(SynchronousTestCase):
    """A file, an environment, and a table of products that are not ours."""

    def load(self, text: str = "", **environment: str) -> Settings:
        path = Path(self.mktemp())
        path.write_text(text)
        return load(str(path), {f"OPENHQM_{name}": value for name, value in environment.items()}, TABLE)

    def complaint(self, text: str = "", **environment: str) -> Complaint:
        error: Any = self.assertRaises(ConfigurationError, self.load, text, **environment)
        (found,) = error.complaints
        assert isinstance(found, Complaint)
        return found


class RecordTests(ProductsCase):
    """What can be said under ``queue`` and ``cache``"""

    def test_defaults(self) -> None:
        """The first product of the table is the default, and each has its own record with its own defaults."""
        settings = self.load()
        self.assertEqual((settings.queue.type, settings.cache.type), ("air", None))
        self.assertEqual((settings.queue.of(Shelf), settings.queue.of(Cloud)), (Shelf(), Cloud()))

    def test_other_types(self) -> None:
        """A type that is none is answered with those of the table; a result store is never a broker."""
        reason = self.complaint("queue: {type: sqlite}").reason
        for row in TABLE.rows:
            self.assertIn(row.name, reason)
        reason = self.complaint("cache: {type: pipe}").reason
        self.assertIn("air", reason)
        self.assertNotIn("box", reason)

    def test_connection(self) -> None:
        """Each record is read by its own rules, from the file and from the environment, under its own key."""
        text = "queue: {type: cloud, connection: {cloud: {seconds: 3, zones: [a, c]}, shelf: {path: x}}}"
        settings = self.load(text, QUEUE__CONNECTION__CLOUD__SECONDS="4.5")
        self.assertEqual(settings.queue.of(Cloud), Cloud(zones=["a", "c"], seconds=4.5))
        self.assertEqual(settings.queue.of(Shelf).path, "x")
        for text, key, words in (
            ("queue: {connection: {cloud: {seconds: 90}}}", "queue.connection.cloud.seconds", "from 0.1 to 60"),
            ("queue: {connection: {clod: {}}}", "queue.connection.clod", "did you mean cloud?"),
            ("queue: {connection: {shelf: {pth: x}}}", "queue.connection.shelf.pth", "did you mean path?"),
            ("queue: {connection: {redis: {url: x}}}", "queue.connection.redis", "unknown key"),
        ):
            complaint = self.complaint(text)
            self.assertEqual(complaint.key, key)
            self.assertIn(words, complaint.reason)

    def test_short_forms(self) -> None:
        """A short form stands for the field of its name, has its type, and its own key where it is wrong."""
        settings = self.load("queue: {type: cloud, cloud_url: 'cloud://short', connection: {cloud: {seconds: 2}}}")
        self.assertEqual(settings.queue.of(Cloud), Cloud(url="cloud://short", seconds=2))
        self.assertEqual(settings.queue.key(Cloud, "url"), "queue.cloud_url")
        self.assertEqual(settings.queue.key(Cloud, "seconds"), "queue.connection.cloud.seconds")
        long = "connection: {cloud: {url: 'cloud://long', seconds: 2}}"
        settings = self.load(f"queue: {{type: cloud, {long}}}", QUEUE__CLOUD_ZONES='["c"]', QUEUE__CLOUD_URL="")
        self.assertEqual(settings.queue.of(Cloud), Cloud(url="cloud://long", zones=["c"], seconds=2))
        self.assertEqual(self.complaint("queue: {cloud_zones: c}").key, "queue.cloud_zones")
        self.assertIn("did you mean cloud_url?", self.complaint("queue: {cloud_ulr: x}").reason)

    def test_from_a_file(self) -> None:
        """A short form and a field of a record may lie in a file, as every key may."""
        secret = Path(self.mktemp())
        secret.write_text("cloud://secret\n")
        secret.chmod(0o600)
        for text in (f"cloud_url_file: {secret}", f"connection: {{cloud: {{url_file: {secret}}}}}"):
            self.assertEqual(self.load(f"queue: {{type: cloud, {text}}}").queue.of(Cloud).url, "cloud://secret")

    def test_secrets(self) -> None:
        """What a record keeps out of its repr, the settings keep out of theirs, in the short form, too."""
        settings = self.load("queue: {type: cloud, cloud_url: s3cret, connection: {cloud: {url: s3cret}}}")
        self.assertNotIn("s3cret", repr(settings))
        self.assertNotIn("s3cret", repr(settings.queue.of(Cloud)))

    def test_the_store(self) -> None:
        """Beside a broker, a short form in ``cache`` is about the store alone, and wins over the one in ``queue``."""
        settings = self.load(
            "queue: {type: pipe, connection: {cloud: {url: 'cloud://queue'}}}\n"
            "cache: {type: cloud, cloud_url: 'cloud://store'}"
        )
        self.assertEqual(settings.store_of(Cloud).url, "cloud://store")
        self.assertEqual(settings.queue.of(Cloud).url, "cloud://queue")
        self.assertIn("unknown key", self.complaint("cache: {pipe_url: x}").reason)

    def test_absent(self) -> None:
        """What other builds have is refused as such, with the name of what asks for it; and may ask for nothing."""
        for text, key in (
            ("queue: {type: drum}", "queue.type"),
            ("queue: {drum_sticks: 2}", "queue.drum_sticks"),
            ("queue: {connection: {drum: x}}", "queue.connection.drum"),
        ):
            complaint = self.complaint(text)
            self.assertEqual(complaint.key, key)
            self.assertIn("not in this build", complaint.reason)
        self.load("queue: {drum_sticks: null, connection: {drum: {url: x}}}")

    def test_frozen(self) -> None:
        """Settings do not change, and two that say the same are equal."""
        settings = self.load("queue: {type: cloud}")
        for changed in (settings, settings.queue, settings.cache, settings.queue.connection):
            self.assertRaises(attrs.exceptions.FrozenInstanceError, setattr, changed, "type", "shelf")
        self.assertEqual(settings, self.load("queue: {type: cloud}"))
        self.assertNotEqual(settings, self.load())

    def test_no_such_record(self) -> None:
        """The record of a product that is not in the table is a mistake in our code, and is said so."""
        self.assertRaises(LookupError, self.load().queue.of, Complaint)


class RuleTests(ProductsCase):
    """What does not go together, by what the products are"""

    def test_own_checks(self) -> None:
        """The checks of a product are made where the queue is in it, and nowhere else."""
        self.assertEqual(self.complaint("queue: {type: cloud, cloud_zones: [b]}").key, "queue.cloud_zones")
        self.load("queue: {type: shelf, connection: {cloud: {zones: [b]}}}")

    def test_halves(self) -> None:
        """A listener or a worker alone needs a queue that outlives its process."""
        for half in ("server", "worker"):
            complaint = self.complaint(f"{half}: {{enabled: false}}")
            self.assertEqual(complaint.key, "queue.type")
            self.assertIn("air is seen by one process only", complaint.reason)
            for type in ("shelf", "cloud", "pipe", "box"):
                self.load(f"queue: {{type: {type}}}\n{half}: {{enabled: false}}")

    def test_processes(self) -> None:
        """Several processes need a queue that they share, and beside a broker a store that they share."""
        for type in ("air", "shelf"):
            complaint = self.complaint(f"queue: {{type: {type}}}\nserver: {{workers: 2}}")
            self.assertEqual(complaint.key, "server.workers")
            self.assertIn("2 processes need queue.type cloud or pipe or box", complaint.reason)
        self.load("queue: {type: cloud}\nserver: {workers: 2}")
        complaint = self.complaint("queue: {type: pipe}\nserver: {workers: 2}")
        self.assertEqual(complaint.key, "server.workers")
        self.assertIn("need cache.type cloud", complaint.reason)
        self.load("queue: {type: pipe}\nserver: {workers: 2}\ncache: {type: cloud}")

    def test_the_store_of_a_broker(self) -> None:
        """It keeps records across a crash, or it is refused; what is said of another store is refused, too."""
        complaint = self.complaint("queue: {type: pipe}\ncache: {type: air}")
        self.assertEqual(complaint.key, "cache.type")
        self.assertIn("say shelf or cloud", complaint.reason)
        for type in ("shelf", "cloud"):
            self.load(f"queue: {{type: pipe}}\ncache: {{type: {type}}}")
        complaint = self.complaint("queue: {type: pipe}\ncache: {cloud_url: x}")
        self.assertEqual((complaint.key, "cache.type: cloud" in complaint.reason), ("cache.cloud_url", True))

    def test_the_store_of_a_backend(self) -> None:
        """It is the backend itself: another one, or the same somewhere else, could not end a request in one step."""
        self.assertEqual(self.complaint("queue: {type: cloud}\ncache: {type: shelf}").key, "cache.type")
        self.assertEqual(self.complaint("queue: {type: cloud}\ncache: {cloud_url: x}").key, "cache.cloud_url")
        self.load("queue: {type: cloud, cloud_url: x}\ncache: {type: cloud, cloud_url: x}")

    def test_who_keeps_the_records(self) -> None:
        """The store that is named, or the default one; a process that only works has none unless it is shared."""
        for text, keeper in (
            ("", "shelf"),
            ("cache: {type: cloud}", "cloud"),
            ("worker: {enabled: false}", "shelf"),
            ("server: {enabled: false}", None),
            ("server: {enabled: false}\ncache: {type: shelf}", None),
            ("server: {enabled: false}\ncache: {type: cloud}", "cloud"),
            (BRIDGE, "shelf"),
        ):
            found = record_keeper(self.load(f"queue: {{type: pipe}}\n{text}"), TABLE)
            self.assertEqual(None if found is None else found.name, keeper, text)

    def test_foreign_messages(self) -> None:
        """How messages of other programs are read, and where replies to them go, is for products that they reach."""
        self.load("queue: {type: cloud, format: raw, response_queue: replies}")
        for type in ("air", "shelf", "box", "pipe"):
            self.assertEqual(self.complaint(f"queue: {{type: {type}, format: raw}}").key, "queue.format")
        for text in ("type: shelf", "type: cloud, request_queue: replies", "type: cloud, dead_letter_queue: replies"):
            complaint = self.complaint(f"queue: {{{text}, response_queue: replies}}")
            self.assertEqual(complaint.key, "queue.response_queue")

    def test_reports_of_workers(self) -> None:
        """Beside a store of one process, the response queue of a broker holds what workers report, and nothing else."""
        self.assertEqual(self.load("queue: {type: pipe, response_queue: replies}").queue.steps_queue, "replies")
        for text in (
            "response_queue: openhqm-requests",
            "response_queue: openhqm-requests.a",
            "response_queue: openhqm-dlq",
            "request_queue: openhqm-responses",
        ):
            self.assertEqual(self.complaint(f"queue: {{type: pipe, {text}}}").key, "queue.response_queue", text)
        shared = "queue: {type: pipe, response_queue: replies}\ncache: {type: cloud}"
        self.assertEqual(self.complaint(shared).key, "queue.response_queue")

    def test_accept(self) -> None:
        """Over a broker a 202 may wait for the ledger alone. Where there is none, that is refused."""
        for text in ("confirmed", "journaled", "null"):
            self.load(f"queue: {{type: pipe, accept: {text}}}")
        self.load("queue: {type: cloud, accept: confirmed}")
        for text in ("queue: {type: pipe, accept: maybe}", "queue: {type: cloud, accept: journaled}"):
            self.assertEqual(self.complaint(text).key, "queue.accept")

    def test_priorities(self) -> None:
        """A broker has a channel for each priority that is named; a backend keeps all of them, or is refused."""
        every = tuple(Priority)
        for text, expected in (
            ("", every),
            ("priorities: null", every),
            ("priorities: [low, normal, high]", every),
            ("priorities: [normal]", (Priority.NORMAL,)),
            ("priorities: [normal, high]", (Priority.HIGH, Priority.NORMAL)),
        ):
            settings = self.load(f"queue: {{type: pipe, {text}}}")
            self.assertEqual(settings.queue.channel_priorities, expected, text)
        for text in ("[]", "[urgent]", "[high, high]", "normal", "[high, 3]"):
            for type in ("pipe", "cloud"):
                key = self.complaint(f"queue: {{type: {type}, priorities: {text}}}").key
                self.assertTrue(key.startswith("queue.priorities"), key)
        self.load("queue: {type: cloud, priorities: [high, normal, low]}")
        complaint = self.complaint("queue: {type: cloud, priorities: [normal]}")
        self.assertEqual(complaint.key, "queue.priorities")
        self.assertIn("cloud keeps all three by itself", complaint.reason)

    def test_once_it_is_made(self) -> None:
        """A product of either kind is judged as what it turned out to be, and not before."""
        as_a_backend = self.load("queue: {type: box}\ncache: {type: cloud}")
        self.assertEqual(about_the_kind(as_a_backend, TABLE, Kind.BROKER), [])
        ((key, reason),) = about_the_kind(as_a_backend, TABLE, Kind.BACKEND)
        self.assertEqual((key, "must be left out" in reason), ("cache.type", True))
        as_a_broker = self.load("queue: {type: box}\nserver: {workers: 2}")
        self.assertEqual(about_the_kind(as_a_broker, TABLE, Kind.BACKEND), [])
        ((key, _),) = about_the_kind(as_a_broker, TABLE, Kind.BROKER)
        self.assertEqual(key, "server.workers")


class SourceTests(SynchronousTestCase):
    """The modules of ``openhqm.config``, as they are written"""

    def test_no_names(self) -> None:
        """None of them names a product, in code or in words; "custom" is also a way to show credentials."""
        names = {row.name for row in PRODUCTS.rows} | set(PRODUCTS.absent)
        self.assertTrue({"sqlite", "redis", "rabbitmq", "memory", "custom", "kafka"} <= names)
        for path in Path(openhqm.config.__file__).parent.glob("*.py"):
            text = path.read_text(encoding="utf-8")
            for name in names - {"memory", "custom"}:
                self.assertNotIn(name, text.lower(), path.name)
            literals = {node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)}
            self.assertNotIn("memory", literals, path.name)
            self.assertFalse("custom" in literals and path.name != "endpoints.py", path.name)
