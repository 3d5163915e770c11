"""The table of products, and the backends that are made from it."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from openhqm.backends import PRODUCTS, TABLE, make_backend, make_foreign_brokers
from openhqm.brokered.queue import BrokeredQueue
from openhqm.config.loading import load
from openhqm.config.model import Settings
from openhqm.config.products import Kind, Reach
from openhqm.custom.settings import CustomSettings
from openhqm.errors import CannotStart, ConfigurationError
from openhqm.interfaces import IForeignBroker, IMessageQueue, IResultStore
from openhqm.memory.queue import MemoryQueue
from openhqm.memory.results import MemoryResults
from openhqm.messages import Reply, Status, Submission
from openhqm.policy.channel_count import ChannelCount
from openhqm.queue.backend import Backend
from openhqm.redis.queue import RedisQueue
from openhqm.redis.results import RedisResults
from openhqm.sqlite.queue import SqliteQueue
from openhqm.sqlite.results import SqliteResults
from openhqm.storeless.results import NullResultStore
from openhqm.testing import FORMS, FakeBroker


def run_commit(commit: Any) -> Deferred[None]:
    """Commit at once."""
    commit()
    return succeed(None)


CONNECTION = "Endpoint=sb://a.servicebus.windows.net/;SharedAccessKeyName=a;SharedAccessKey=b"
HUBS = f"{{azure_eventhubs: {{connection_string: '{CONNECTION}'}}}}"
NEEDS = {
    "azure_eventhubs": f", connection: {HUBS}",
    "gcp_pubsub": ", connection: {gcp_pubsub: {project_id: a-project}}",
}
"""What has no default."""


class BackendsCase(SynchronousTestCase):
    """Settings, and the backend that is made from them."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000)

    def settings(self, text: str) -> Settings:
        path = Path(self.mktemp())
        path.write_text(text)
        environment = {"OPENHQM_QUEUE__CONNECTION__SQLITE": json.dumps({"path": self.mktemp()})}
        return load(str(path), environment, PRODUCTS)

    def make(self, text: str) -> Backend:
        return make_backend(self.settings(text), self.clock, run_commit)

    def refused(self, text: str) -> tuple[str, str]:
        """The one key that is wrong, and the reason."""
        error: Any = self.assertRaises(ConfigurationError, self.make, text)
        (complaint,) = error.complaints
        return complaint.key, complaint.reason

    def done(self, waiting: Deferred[Any]) -> Any:
        """The result, once everything has run that wanted to run at once."""
        for _ in range(4):
            self.clock.advance(0)
        return self.successResultOf(waiting)


class TableTests(BackendsCase):
    """Each row, and each combination"""

    def test_whole_backends(self) -> None:
        """Each makes its own queue and its own results, and nothing is opened by that."""
        for type, queue, store in (
            ("sqlite", SqliteQueue, SqliteResults),
            ("memory", MemoryQueue, MemoryResults),
            ("redis", RedisQueue, RedisResults),
        ):
            backend = self.make(f"queue: {{type: {type}}}")
            self.assertIsInstance(backend.queue, queue)
            self.assertIsInstance(backend.store, store)
            self.assertIsNone(backend.channels)

    def test_brokers(self) -> None:
        """Over each broker stands one queue, and beside it the store that is named, the default one, or none."""
        brokers = [row.name for row in TABLE if row.kind is Kind.BROKER]
        self.assertIn("rabbitmq", brokers)
        for broker in brokers:
            for text, store in (
                ("", SqliteResults),
                ("cache: {type: sqlite}", SqliteResults),
                ("cache: {type: redis}", RedisResults),
                ("worker: {enabled: false}", SqliteResults),
                ("server: {enabled: false}", NullResultStore),
                ("server: {enabled: false}\ncache: {type: redis}", RedisResults),
            ):
                counts = broker in ("rabbitmq", "sqs")  # workers without a store report where redeliveries are counted
                queue = f"{{type: {broker}{NEEDS.get(broker, '')}}}"
                if store is NullResultStore and not counts:
                    error = self.assertRaises(ConfigurationError, self.make, f"queue: {queue}\n{text}")
                    self.assertIn("say cache.type: redis", str(error))
                    continue
                backend = self.make(f"queue: {queue}\n{text}")
                self.assertIsInstance(backend.queue, BrokeredQueue)
                self.assertIsInstance(backend.store, store, text)
                assert backend.channels is not None
                one = broker in ("sqs", "azure_eventhubs")  # one channel for requests, and not three
                channels = (1 if one else 3) + (counts and store is not RedisResults)
                self.assertEqual(backend.channels().total, channels, text)

    def test_the_seams(self) -> None:
        """What is made is a queue and its results, whatever it is made of."""
        for type in ("sqlite", "memory", "redis", "rabbitmq", "mqtt", "kafka"):
            backend = self.make(f"queue: {{type: {type}}}")
            self.assertTrue(IMessageQueue.providedBy(backend.queue), type)
            self.assertTrue(IResultStore.providedBy(backend.store), type)

    def test_what_keeps_records(self) -> None:
        """Whatever can stand beside a broker is made as that, outlives a process, and is a backend of its own."""
        keepers = [row for row in TABLE if row.keeps_records]
        self.assertEqual([row.name for row in keepers], ["sqlite", "redis"])
        for row in TABLE:
            self.assertEqual(row.make_store is not None, row.keeps_records, row.name)
        for row in keepers:
            self.assertIs(row.kind, Kind.BACKEND)
            self.assertIsNot(row.reach, Reach.PROCESS)

    def test_where_it_is(self) -> None:
        """An address that is given in the short form of the store is the one that is used."""
        text = "queue: {type: rabbitmq, connection: {redis: {url: 'redis://one'}}}\ncache: {type: redis, redis_url: 'redis://two:1/5'}"
        backend: Any = self.make(text)
        self.assertEqual(str(backend.store._redis.address), "redis://two:1/5")

    def test_not_installed(self) -> None:
        """A package that is missing is a complaint about the key that asks for it, and says what to install."""
        for missing, module, text, key, extra in (
            ("txredisapi", "openhqm.redis.protocols", "queue: {type: redis}", "queue.type", "'.[redis]'"),
            (
                "txredisapi",
                "openhqm.redis.protocols",
                "queue: {type: rabbitmq}\ncache: {type: redis}",
                "cache.type",
                "'.[redis]'",
            ),
            ("pika", "pika", "queue: {type: rabbitmq}", "queue.type", "'.[rabbitmq]'"),
            ("boto3", "boto3", "queue: {type: sqs}", "queue.type", "'.[sqs]'"),
        ):
            with mock.patch.dict(sys.modules):
                sys.modules.pop(module, None)
                sys.modules[missing] = None  # type: ignore[assignment]
                found, reason = self.refused(text)
            self.assertEqual(found, key)
            self.assertIn(extra, reason)


class WorkingTests(BackendsCase):
    """A backend that is opened"""

    def test_from_end_to_end(self) -> None:
        """What is accepted is received and has a record; closing the backend leaves no timer."""
        for type in ("memory", "sqlite"):
            backend = self.make(f"queue: {{type: {type}}}")
            self.done(backend.check())
            acceptance = self.done(backend.queue.accept(Submission(b"1"), None))
            (delivery,) = self.done(backend.queue.receive("openhqm-requests", 1))
            self.assertEqual(delivery.request.correlation_id, acceptance.correlation_id)
            record = self.done(backend.store.find(acceptance.correlation_id))
            self.assertIs(record.status, Status.PROCESSING)
            self.done(delivery.release())
            self.done(backend.stop())
            self.assertEqual(self.clock.getDelayedCalls(), [], type)


class CustomCase(BackendsCase):
    """A factory of `tests.custom_factories`."""

    def custom(self, factory: str, options: str = "{}", more: str = "") -> str:
        path = f"tests.custom_factories:{factory}"
        connection = f"{{custom: {{factory: '{path}', options: {options}}}}}"
        return f"queue: {{type: custom, connection: {connection}}}\n{more}"


class CustomTests(CustomCase):
    """``queue.type: custom``"""

    def test_a_pair(self) -> None:
        """A queue and its results are a whole backend: what is accepted is worked on, and its answer is found."""
        backend = self.make(self.custom("make_pair"))
        self.assertIsNone(backend.channels)
        self.done(backend.check())
        acceptance = self.done(backend.queue.accept(Submission(b"1"), None))
        (delivery,) = self.done(backend.queue.receive("openhqm-requests", 1))
        reply = Reply(acceptance.correlation_id, Status.COMPLETED, self.clock.seconds(), b"2")
        self.assertTrue(self.done(delivery.settle(reply)))
        record = self.done(backend.store.find(acceptance.correlation_id))
        self.assertEqual((record.status, record.reply), (Status.COMPLETED, reply))
        self.done(backend.stop())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_foreign_broker(self) -> None:
        """A broker of the operator's own can be one of ``brokers``: its channels are read and written as they are."""

        def brokers(factory: str) -> dict[str, IForeignBroker]:
            text = f"brokers: {{mine: {{type: custom, factory: 'tests.custom_factories:{factory}'}}}}\n"
            text += "bridges: [{name: b, from: {broker: mine, queue: q}}]"
            return make_foreign_brokers(load("cfg", {}, PRODUCTS, text.encode()), self.clock)

        broker = brokers("make_broker")["mine"]
        verifyObject(IForeignBroker, broker)
        self.done(broker.start())
        self.assertIsNone(broker.unavailable_reason)
        for wrong in ("make_nothing", "fail", "missing"):
            error = self.assertRaises(ConfigurationError, brokers, wrong)
            self.assertEqual([each.key for each in error.complaints], ["brokers.mine"])

    def test_a_broker(self) -> None:
        """Over a broker stands the same queue as over any other, with the store that is named."""
        for more, store in (
            ("", SqliteResults),
            ("cache: {type: redis}", RedisResults),
            ("server: {enabled: false}", NullResultStore),
        ):
            backend = self.make(self.custom("make_broker", more=more))
            self.assertIsInstance(backend.queue, BrokeredQueue)
            self.assertIsInstance(backend.store, store)
            assert backend.channels is not None
            reports = "" if store is RedisResults else " + 1 for reports"
            total = 3 if store is RedisResults else 4
            self.assertEqual(str(backend.channels()), f"1 endpoint x 3 priorities{reports} = {total} channels")

    def test_what_it_is_called_with(self) -> None:
        """The options as they were written, of which it may do what it likes, and the clock of the process."""
        settings = self.settings(
            self.custom(
                "make_pair", "{ttl: 7, unavailable_reason: 'the pair is away', deep: ['${HERE:-x}', {a: null}]}"
            )
        )
        before = settings.queue.of(CustomSettings).options
        self.assertEqual(before, {"ttl": 7, "unavailable_reason": "the pair is away", "deep": ["x", {"a": None}]})
        self.assertIs(type(before["deep"][0]), str)
        backend = make_backend(settings, self.clock, run_commit)
        self.assertEqual(backend.queue.unavailable_reason, "the pair is away")
        self.assertIn("unavailable_reason", settings.queue.of(CustomSettings).options)
        error = self.failureResultOf(backend.check(), CannotStart)
        self.assertEqual(str(error.value), "the pair is away")

    def test_from_the_environment(self) -> None:
        """Factory and options come from variables as every key does; a single option is a string."""
        environment = {
            "OPENHQM_QUEUE__TYPE": "custom",
            "OPENHQM_QUEUE__CONNECTION__CUSTOM__FACTORY": "tests.custom_factories:make_pair",
            "OPENHQM_QUEUE__CONNECTION__CUSTOM__OPTIONS": '{"ttl": 7}',
        }
        self.assertEqual(load(None, environment, PRODUCTS).queue.of(CustomSettings).options, {"ttl": 7})
        environment["OPENHQM_QUEUE__CONNECTION__CUSTOM__OPTIONS__DIRECTORY"] = "/srv"
        options = load(None, environment, PRODUCTS).queue.of(CustomSettings).options
        self.assertEqual(options, {"ttl": 7, "directory": "/srv"})

    def test_what_is_wrong_with_it(self) -> None:
        """One complaint, with the key, the module and the reason, on one line."""
        for factory, *words in (
            ("nothing", "tests.custom_factories has no callable named nothing"),
            ("Options.x", "tests.custom_factories has no callable named Options.x"),
            ("fail", "tests.custom_factories:fail failed: RuntimeError: no luck"),
            ("make_nothing", "tests.custom_factories:make_nothing returned None", "IBroker", "IResultStore"),
            ("make_half", "returned a tuple of Kept"),
            ("make_swapped", "returned a tuple of MemoryResults, Kept"),
        ):
            key, reason = self.refused(self.custom(factory))
            self.assertEqual(key, "queue.connection.custom.factory")
            for word in words:
                self.assertIn(word, reason)
            self.assertNotIn("\n", reason)
        connection = "queue: {type: custom, connection: {custom: {factory: 'nowhere_at_all:make'}}}"
        key, reason = self.refused(connection)
        self.assertEqual(key, "queue.connection.custom.factory")
        self.assertIn("cannot import nowhere_at_all: ModuleNotFoundError", reason)

    def test_limits(self) -> None:
        """A whole backend does not know queue.limits: they are refused instead of having no effect."""
        text = self.custom("make_pair").replace("{type: custom", "{type: custom, limits: {requests: 5}")
        key, reason = self.refused(text)
        self.assertEqual(key, "queue.limits")
        self.assertIn("leave the section out", reason)

    def test_no_secrets(self) -> None:
        """Options may hold a password: neither a complaint nor a repr shows one."""
        _, reason = self.refused(self.custom("make_options", "{password: s3cret}"))
        self.assertNotIn("s3cret", reason)
        self.assertNotIn("s3cret", repr(self.settings(self.custom("make_pair", "{password: s3cret}"))))
        error: Any = self.assertRaises(ConfigurationError, self.settings, self.custom("make_pair", "s3cret"))
        self.assertNotIn("s3cret", str(error))

    def test_no_factory(self) -> None:
        """Without a factory, or with what cannot be one, there is one complaint when the configuration is read."""
        for text in ("{type: custom}", "{type: custom, connection: {custom: {factory: module}}}"):
            error: Any = self.assertRaises(ConfigurationError, self.settings, f"queue: {text}")
            self.assertEqual([each.key for each in error.complaints], ["queue.connection.custom.factory"])
            self.assertIn("package.module:callable", error.complaints[0].reason)

    def test_beside_it(self) -> None:
        """The rules about the result store are those of what it turned out to be."""
        self.assertEqual(self.refused(self.custom("make_pair", more="cache: {type: sqlite}"))[0], "cache.type")
        self.assertEqual(self.refused(self.custom("make_broker", more="cache: {type: memory}"))[0], "cache.type")
        self.assertEqual(self.refused(self.custom("make_broker", more="server: {workers: 2}"))[0], "server.workers")
        for factory, total in (("make_pair", None), ("make_broker", 2)):
            text = self.custom(factory).replace("{type: custom", "{type: custom, priorities: [normal]")
            if total is None:
                self.assertEqual(self.refused(text)[0], "queue.priorities")
                continue
            backend = self.make(text)
            assert backend.channels is not None
            self.assertEqual(backend.channels().total, total)


class LimitTests(CustomCase):
    """What a broker cannot do, and a configuration asks of it"""

    def test_channels(self) -> None:
        """More channels than the product has are refused with the arithmetic, under the key that makes so many."""
        endpoints = ", ".join(f"{name}: {{url: 'http://{name}.test'}}" for name in "abcde")
        proxy = f"proxy: {{enabled: true, endpoints: {{{endpoints}}}}}"
        hubs = "{form: event hubs}"
        self.make(self.custom("make_broker", hubs))
        self.assertEqual(
            self.refused(self.custom("make_broker", hubs, proxy)),
            ("proxy.endpoints", "6 endpoints x 3 priorities = 18 channels, and the broker has 10 at most"),
        )
        one = self.custom("make_broker", hubs, proxy).replace("{type: custom", "{type: custom, priorities: [normal]")
        self.make(one)

    def test_known_late(self) -> None:
        """A limit that is known once the broker was reached is refused by the check."""
        backend = self.make(self.custom("make_pair"))
        for most, refused in ((3, False), (2, True)):
            late = attrs.evolve(backend, channels=partial(ChannelCount, 1, 3, False, most))
            checked = late.check()
            if not refused:
                self.successResultOf(checked)
                continue
            error = self.failureResultOf(checked, CannotStart)
            self.assertIn("= 3 channels, and the broker has 2 at most", str(error.value))

    def test_poison(self) -> None:
        """Without a store, a broker that does not count redeliveries would deliver poison for ever: refused."""
        alone = "server: {enabled: false}"
        for form, traits in FORMS.items():
            text = self.custom("make_broker", f"{{form: '{form}'}}", alone)
            if traits.counts_redeliveries:
                self.make(text)
                continue
            key, reason = self.refused(text)
            self.assertEqual(key, "cache.type")
            self.assertIn("cache.type: redis", reason)
            self.make(f"{text}\ncache: {{type: redis}}")

    def test_nothing_is_shared(self) -> None:
        """A queue that no other process reaches is refused where this process only works, or only listens."""
        for half in ("server", "worker"):
            key, reason = self.refused(f"queue: {{type: memory}}\n{half}: {{enabled: false}}")
            self.assertEqual(key, "queue.type")
            self.assertIn("server.enabled and worker.enabled are needed together", reason)

    def test_channels_for_workers_without_a_store(self) -> None:
        """Where such workers can be, the process with the file makes what they consume from, and their reply channel.

        It does so before anything is accepted. Elsewhere there is no channel more than requests need.
        """
        proxy = "proxy: {enabled: true, endpoints: {a: {url: 'http://a.test'}}, default_endpoint: a}"
        requests = {f"openhqm-requests{priority}" for priority in ("", "._high", "._low")}
        for form, made in (("amqp", {*requests, "openhqm-responses"}), ("kafka", set()), ("pubsub", set())):
            backend = self.make(self.custom("make_broker", f"{{form: {form}}}", proxy))
            assert isinstance(backend.broker, FakeBroker)
            self.done(backend.start())
            self.done(backend.when_probed())
            self.assertEqual(set(backend.broker.server.channels), made, form)
            self.done(backend.stop())
            self.assertEqual(self.clock.getDelayedCalls(), [], form)
