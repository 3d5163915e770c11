"""The configuration contract: a file and the environment become settings, or all complaints at once."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from openhqm.backends import PRODUCTS
from openhqm.config.loading import load
from openhqm.config.model import Settings
from openhqm.errors import Complaint, ConfigurationError
from openhqm.messages import Submission
from openhqm.policy.fields import Document
from openhqm.policy.limits import Limits
from openhqm.policy.retry import RetryPolicy
from openhqm.policy.routing import Outgoing
from openhqm.rabbitmq.settings import RabbitMQSettings
from openhqm.redis.settings import RedisSettings
from openhqm.sqlite.settings import SqliteSettings

PROXY = "proxy: {enabled: true, default_endpoint: 'http://a.test'}\n"


class ConfigCase(SynchronousTestCase):
    """Tests that load a file and an environment."""

    def file(self, text: str | bytes) -> str:
        path = Path(self.mktemp())
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        path.chmod(0o600)
        return str(path)

    def load(self, text: str | bytes = "", **environment: str) -> Settings:
        return load(self.file(text), {f"OPENHQM_{name}": value for name, value in environment.items()}, PRODUCTS)

    def complaints(self, text: str | bytes = "", **environment: str) -> dict[str, Complaint]:
        error = self.assertRaises(ConfigurationError, self.load, text, **environment)
        found = {complaint.key: complaint for complaint in error.complaints}
        self.assertEqual(len(found), len(error.complaints), "one complaint a key is enough")
        return found

    def complaint(self, text: str | bytes = "", **environment: str) -> Complaint:
        (found,) = self.complaints(text, **environment).values()
        return found


class DefaultsTests(ConfigCase):
    """Without a file, the defaults are a working installation"""

    def test_no_file(self) -> None:
        """Loopback, port 8000, SQLite, an echo for a handler: as the contract lists the defaults."""
        settings = load(None, {}, PRODUCTS)
        server, queue, worker = settings.server, settings.queue, settings.worker
        self.assertEqual(
            (server.enabled, server.host, server.port, server.endpoints, server.max_body_bytes, server.drain_seconds),
            (True, "127.0.0.1", 8000, [], 10485760, 30),
        )
        self.assertEqual(
            (queue.type, queue.request_queue, queue.dead_letter_queue, queue.of(SqliteSettings).path),
            ("sqlite", "openhqm-requests", "openhqm-dlq", "openhqm-data"),
        )
        self.assertEqual(
            (worker.enabled, worker.handler, worker.handlers, worker.executor, worker.count, worker.batch_size),
            (True, None, {}, None, 5, 10),
        )
        self.assertEqual((worker.timeout_seconds, worker.max_retries), (300, 3))
        self.assertEqual(worker.retry_policy, RetryPolicy(3, 1, 2, 60, 0.1))
        self.assertEqual((settings.cache.type, settings.cache.ttl_seconds), (None, 3600))
        monitoring = settings.monitoring
        self.assertEqual(
            (monitoring.metrics_enabled, monitoring.log_level, monitoring.log_format), (True, "INFO", None)
        )

    def test_nothing_said(self) -> None:
        """An empty file, empty sections and unrelated variables change nothing."""
        for text in ("", "# nothing\n", "---\n", "server:\nqueue: {}\nworker:\n  retry:\n"):
            self.assertEqual(
                load(self.file(text), {"PATH": "/bin", "openhqm_server__port": "1"}, PRODUCTS),
                load(None, {}, PRODUCTS),
                text,
            )


class FileTests(ConfigCase):
    """The YAML file"""

    def test_values(self) -> None:
        """Each value is set under its key, with its type."""
        settings = self.load(
            "server: {port: 0, drain_seconds: 2.5}\n"
            "queue:\n  type: memory\n"
            "worker:\n  handler: a.b:c\n  handlers: {resize: 'images:resize'}\n  timeout_seconds: 5\n"
        )
        self.assertEqual((settings.server.port, settings.server.drain_seconds), (0, 2.5))
        self.assertEqual((settings.queue.type, settings.queue.request_queue), ("memory", "openhqm-requests"))
        self.assertEqual((settings.worker.handler, settings.worker.handlers), ("a.b:c", {"resize": "images:resize"}))
        self.assertIsInstance(settings.worker.timeout_seconds, float)

    def test_everything_at_once(self) -> None:
        """All errors are reported at once, each with its key, the reason and the source."""
        found = self.complaints(
            "sever: {}\n"
            "server: {port: 70000, hots: '::1'}\n"
            "queue: {type: cloud, connection: {sqlite: {path: 3}}}\n"
            "worker: {count: 0, handlers: {a: nonsense}, retry: {jitter: 2}}\n"
            "monitoring: {log_level: LOUD}\n",
            CACHE__TTL_SECONDS="soon",
        )
        self.assertEqual(
            set(found),
            {
                "sever",
                "server.port",
                "server.hots",
                "queue.type",
                "queue.connection.sqlite.path",
                "worker.count",
                "worker.handlers",
                "worker.retry.jitter",
                "monitoring.log_level",
                "cache.ttl_seconds",
            },
        )
        for complaint in found.values():
            self.assertTrue(complaint.reason)
            self.assertTrue(complaint.source, complaint)
        self.assertEqual(found["cache.ttl_seconds"].source, "OPENHQM_CACHE__TTL_SECONDS")
        self.assertNotIn("OPENHQM", found["server.port"].source)

    def test_did_you_mean(self) -> None:
        """For a misspelt key, the similar one is suggested; for any other unknown key, all keys are listed."""
        for text, meant in (
            ("sever: {}", "server"),
            ("queue: {typ: sqlite}", "type"),
            ("worker: {max_retires: 3}", "max_retries"),
        ):
            self.assertIn(f"did you mean {meant}?", self.complaint(text).reason)
        self.assertIn("ttl_seconds", self.complaint("cache: {zzz: 1}").reason)

    def test_not_a_configuration(self) -> None:
        """A file that cannot be read, or is not text, YAML or a mapping, is one complaint that names the file."""
        directory = Path(self.mktemp())
        directory.mkdir()
        for path in (
            str(directory),
            str(directory / "missing.yaml"),
            self.file(b"server: {host: '\xff'}"),
            self.file("server: {port: 1"),
            self.file("a: b: c"),
            self.file("\x01"),
            self.file("a: 1\n---\nb: 2"),
            self.file("a: !!python/object/apply:os.system [exit]"),
            self.file("- server\n- queue\n"),
            self.file("server"),
            self.file("3"),
            self.file("#" + " " * (1024 * 1024)),
        ):
            error = self.assertRaises(ConfigurationError, load, path, {}, PRODUCTS)
            (complaint,) = error.complaints
            self.assertIn(path, str(complaint))

    def test_not_even_that(self) -> None:
        """An impossible date, a huge number and endless nesting are complaints, and never a traceback."""
        for text in (
            "server: {port: 2026-02-30}",
            "server: {port: %s}" % ("9" * 5000),
            "worker: {timeout_seconds: %s}" % ("9" * 400),
            "server: " + "[" * 5000,
            "server: &again {port: *again}",
        ):
            self.assertRaises(ConfigurationError, self.load, text)

    def test_keys_in_quotes(self) -> None:
        """A key that YAML reads as something else than a string is refused by name, with the cure."""
        for text, key, kind in (
            ("proxy: {endpoints: {2024: {url: 'http://a'}}}", "proxy.endpoints.2024", "number"),
            ("proxy: {endpoints: {true: {url: 'http://a'}}}", "proxy.endpoints.True", "truth value"),
            ("proxy: {endpoints: {2024-01-31: {url: 'http://a'}}}", "proxy.endpoints.2024-01-31", "date"),
            ("proxy: {endpoints: {1.5: {url: 'http://a'}}}", "proxy.endpoints.1.5", "number"),
            ("1: {port: 8000}", "1", "number"),
            ("routing: {routes: [{name: a, headers: {1: x}}]}", "routing.routes.0.headers.1", "number"),
        ):
            found = self.complaints(text)[key]
            self.assertIn(f"YAML reads this key as a {kind}: put it in quotes", found.reason)

    def test_cures(self) -> None:
        """The usual mistakes in YAML come with their cure, and with their place."""
        for text, cure in (
            ("server: {port: 1}\nserver: {port: 2}\n", "each section and each key once"),
            ("routing:\n  routes:\n  - template: {{ payload.id }}\n", "in quotes"),
            ("server:\n  host: a\n   port: 1\n", "indentation"),
            ("server:\n    host: a\n  port: 1\n", "same column"),
            ("server:\n\tport: 1\n", "indent with spaces"),
        ):
            self.assertIn(cure, self.complaint(text).reason)

    def test_service_links(self) -> None:
        """Variables that Kubernetes makes for services are passed over; one that only looks like it is not."""
        self.load(
            SERVICE_HOST="10.0.0.1",
            PORT="tcp://10.0.0.1:8000",
            REDIS_SERVICE_HOST="10.0.0.1",
            REDIS_SERVICE_PORT="6379",
            REDIS_SERVICE_PORT_REDIS="6379",
            REDIS_PORT="tcp://10.0.0.1:6379",
            REDIS_PORT_6379_TCP="tcp://10.0.0.1:6379",
            REDIS_PORT_6379_TCP_PROTO="tcp",
            REDIS_PORT_6379_TCP_ADDR="10.0.0.1",
            MY_OWN_REDIS_PORT_6379_TCP_PORT="6379",
        )
        self.assertIn("unknown key", self.complaint(SERVER_PORT="8000").reason)
        self.assertEqual(self.complaint(PORT="8000").source, "OPENHQM_PORT")

    def test_literal(self) -> None:
        """``$${`` is a literal ``${``, whatever follows."""
        for written, read in (
            ("$${HOST}", "${HOST}"),
            ("a$${", "a${"),
            ("${OPENHQM_X:-d}$${E}", "d${E}"),
            ("$5", "$5"),
        ):
            self.assertEqual(self.load(f"worker: {{handler: 'a:{written}'}}").worker.handler, f"a:{read}")

    def test_said_twice(self) -> None:
        """A repeated key is refused at any depth. The complaint has the place in the file."""
        for text, line in (("queue: {}\nserver: {}\nqueue: {}\n", 3), ("server:\n  port: 1\n  port: 2\n", 3)):
            reason = self.complaint(text).reason
            self.assertIn("duplicate", reason)
            self.assertIn(f"line {line}", reason)

    def test_exact_types(self) -> None:
        """3 is not "3", true is not a number, and ``no`` is a string (YAML 1.2): nothing is converted."""
        for text, key, words in (
            ("server: {enabled: no}", "server.enabled", "true or false, not 'no'"),
            ("server: {enabled: 'true'}", "server.enabled", "true or false, not 'true'"),
            ("server: {enabled: 1}", "server.enabled", "true or false, not 1"),
            ("server: {enabled: null}", "server.enabled", "true or false, not None"),
            ("server: {port: '8000'}", "server.port", "whole number, not '8000'"),
            ("server: {port: true}", "server.port", "whole number, not True"),
            ("server: {port: 8000.0}", "server.port", "whole number, not 8000.0"),
            ("worker: {timeout_seconds: true}", "worker.timeout_seconds", "number, not True"),
            ("worker: {timeout_seconds: '5'}", "worker.timeout_seconds", "number, not '5'"),
            ("queue: {request_queue: 3}", "queue.request_queue", "string, not 3"),
            ("worker: {handler: 3}", "worker.handler", "string, not 3"),
            ("worker: {handlers: [a]}", "worker.handlers", "mapping, not a list"),
            ("worker: {handlers: {a: 3}}", "worker.handlers.a", "string, not 3"),
            ("server: {endpoints: 'tcp:1'}", "server.endpoints", "list, not a single value"),
            ("server: {endpoints: [unix:/a, 3]}", "server.endpoints.1", "string, not 3"),
            ("server: 8000", "server", "mapping, not a single value"),
            ("worker: {retry: 3}", "worker.retry", "mapping, not a single value"),
        ):
            complaint = self.complaint(text)
            self.assertEqual(complaint.key, key, text)
            self.assertTrue(complaint.reason.endswith(f"{words}"), complaint)

    def test_ranges(self) -> None:
        """Values below and above the allowed range are refused; those within are accepted."""
        for key, good, bad in (
            ("server.port", (0, 65535), (-1, 65536)),
            ("server.max_body_bytes", (1,), (0, -1)),
            ("server.drain_seconds", (0,), (-0.1, ".inf", ".nan")),
            ("worker.count", (1, 1000), (0, -5)),
            ("worker.batch_size", (1,), (0,)),
            ("worker.timeout_seconds", (0.5, 86400), (0, -1, ".inf", ".nan")),
            ("worker.max_retries", (0, 10), (-1,)),
            ("cache.ttl_seconds", (1, 30 * 86400), (0, -1, ".nan")),
        ):
            section, name = key.split(".")
            for value in good:
                settings = self.load(f"{section}: {{{name}: {value}}}")
                self.assertEqual(getattr(getattr(settings, section), name), value)
            for value in bad:
                complaint = self.complaint(f"{section}: {{{name}: {value}}}")
                self.assertEqual(complaint.key, key, value)

    def test_limits(self) -> None:
        """A limit is a number above 0, or left out; a full queue refuses or drops."""
        settings = self.load("queue: {limits: {requests: 5, bytes: 1000, overflow: drop_oldest}}")
        self.assertEqual(settings.queue.limits.limits, Limits(5, 1000, True))
        self.assertFalse(self.load("queue: {limits: {requests: null}}").queue.limits.limits.any)
        settings = self.load("queue: {limits: {age_seconds: 0.5e1}}")
        self.assertEqual(settings.queue.limits.limits, Limits(age_seconds=5.0))
        for value in ("0", "-1", "0.5", "true", "many", ".inf", "1" + 30 * "0"):
            complaint = self.complaint(f"queue: {{limits: {{age_seconds: {value}}}}}")
            self.assertEqual(complaint.key, "queue.limits.age_seconds", value)
        for name in ("requests", "bytes"):
            for value in ("0", "-1", "1.5", "true", "many", ".inf", "[1]", "1" + 30 * "0"):
                complaint = self.complaint(f"queue: {{limits: {{{name}: {value}}}}}")
                self.assertEqual(complaint.key, f"queue.limits.{name}", value)
        self.assertEqual(self.complaint("queue: {limits: {overflow: reject}}").key, "queue.limits.overflow")
        self.assertEqual(self.complaint("queue: {limits: {overflow: drop_oldest}}").key, "queue.limits.overflow")

    def test_for_ever(self) -> None:
        """A reply cannot be kept beyond the year 9999, because its expiry must be an RFC 3339 time."""
        for value in (".inf", "1.0e+300"):
            self.assertEqual(self.complaint(f"cache: {{ttl_seconds: {value}}}").key, "cache.ttl_seconds")

    def test_words(self) -> None:
        """A value that must be one of a few is refused with the list of them."""
        for text, allowed in (
            ("queue: {type: sqlit}", ("sqlite", "memory")),
            ("worker: {executor: pool}", ("asyncio", "process", "reactor", "thread")),
            ("worker: {handlers: {a: 'a:b'}, executors: {a: pool}}", ("asyncio", "process", "reactor", "thread")),
            ("monitoring: {log_level: info}", ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")),
            ("monitoring: {log_format: xml}", ("json", "text")),
        ):
            reason = self.complaint(text).reason
            for word in allowed:
                self.assertIn(word, reason)
        for path in ("module", "module:", ":name", "a:b:c", ""):
            self.assertIn("package.module:callable", self.complaint(f"worker: {{handler: '{path}'}}").reason)


class EnvironmentTests(ConfigCase):
    """``OPENHQM_*``, ``${VARIABLE}`` and ``<key>_file``"""

    def test_above_the_file(self) -> None:
        """A variable overrides the file, and leaves the neighbouring keys alone."""
        settings = self.load("server: {port: 1, drain_seconds: 2}", SERVER__PORT="81", QUEUE__TYPE="memory")
        self.assertEqual((settings.server.port, settings.server.drain_seconds, settings.queue.type), (81, 2, "memory"))

    def test_typed_by_the_key(self) -> None:
        """A variable is converted to the type of its key; lists and mappings are JSON."""
        settings = self.load(
            SERVER__ENABLED="false",
            SERVER__MAX_CONNECTIONS="81",
            SERVER__DRAIN_SECONDS="2.5",
            SERVER__ENDPOINTS='["unix:/a"]',
            WORKER__HANDLER="a:b",
            WORKER__HANDLERS='{"resize": "images:resize"}',
            WORKER__RETRY__FACTOR="3",
            QUEUE__REQUEST_QUEUE="81",
        )
        server, worker = settings.server, settings.worker
        self.assertEqual(
            (server.enabled, server.max_connections, server.drain_seconds, server.endpoints),
            (False, 81, 2.5, ["unix:/a"]),
        )
        self.assertEqual(
            (worker.handler, worker.handlers, worker.retry.factor), ("a:b", {"resize": "images:resize"}, 3)
        )
        self.assertEqual(settings.queue.request_queue, "81")
        self.assertIs(type(settings.queue.request_queue), str)

    def test_a_section_as_json(self) -> None:
        """A section may be given as JSON, whose types must be exact."""
        self.assertEqual(self.load(QUEUE='{"type": "memory", "request_queue": "a"}').queue.request_queue, "a")
        self.assertEqual(self.complaint(SERVER='{"port": "81"}').key, "server.port")

    def test_wrong_text(self) -> None:
        """Text that cannot be converted is a complaint that names the variable."""
        for name, value, words in (
            ("SERVER__ENABLED", "no", "true or false"),
            ("SERVER__PORT", "8o", "whole number"),
            ("SERVER__PORT", "1.5", "whole number"),
            ("SERVER__DRAIN_SECONDS", "soon", "number"),
            ("SERVER__ENDPOINTS", "unix:/a", "JSON"),
            ("SERVER__ENDPOINTS", '{"a": 1}', "list"),
            ("WORKER__HANDLERS", "a:b", "JSON"),
            ("SERVER__PORTS", "1", "did you mean port?"),
            ("AUTH__TYPE", "any", "auth.keys_file"),
            ("SERVER__HOST", "0.0.0.0", "auth.type"),
        ):
            complaint = self.complaint(**{name: value})
            self.assertEqual(complaint.source, f"OPENHQM_{name}", value)
            self.assertIn(words, complaint.reason)

    def test_nothing_is_lost(self) -> None:
        """Two variables for one section both count, or are refused: none is ignored."""
        for text, environment, expected in (
            ("", {"SERVER": '{"drain_seconds": 7}', "SERVER__PORT": "81"}, (7, 81)),
            ("server: nonsense", {"SERVER__PORT": "81"}, None),
        ):
            try:
                settings = self.load(text, **environment)
            except ConfigurationError:
                continue
            self.assertEqual((settings.server.drain_seconds, settings.server.port), expected)

    def test_variables_in_the_file(self) -> None:
        """``${VAR}`` and ``${VAR:-default}`` are replaced in any string. One that is the whole value has the type of
        the key.
        """
        path = self.file(
            "server: {port: '${PORT}', drain_seconds: '${DRAIN:-2.5}', host: '${NONE:-127.0.0.1}'}\n"
            "queue: {request_queue: '${NAME}-${STAGE:-test}', dead_letter_queue: $NAME}\n"
            "worker: {handlers: {a: '${NAME}:run'}}\n"
        )
        settings = load(path, {"PORT": "81", "NAME": "jobs", "DRAIN": "4"}, PRODUCTS)
        self.assertEqual(
            (settings.server.port, settings.server.drain_seconds, settings.server.host), (81, 4, "127.0.0.1")
        )
        self.assertEqual((settings.queue.request_queue, settings.queue.dead_letter_queue), ("jobs-test", "$NAME"))
        self.assertEqual(settings.worker.handlers, {"a": "jobs:run"})

    def test_missing_variable(self) -> None:
        """A missing variable without a default is a complaint that names it and the key."""
        found = self.complaints("queue: {request_queue: 'a-${NOWHERE}'}\ncache: {ttl_seconds: 0}")
        self.assertEqual(set(found), {"queue.request_queue", "cache.ttl_seconds"})
        self.assertIn("NOWHERE", found["queue.request_queue"].reason)

    def test_from_a_file(self) -> None:
        """``<key>_file`` reads the value from a file, without its final line break; in the file and in
        the environment.
        """
        secret = self.file("jobs\n")
        self.assertEqual(self.load(f"queue: {{request_queue_file: {secret}}}").queue.request_queue, "jobs")
        self.assertEqual(self.load(QUEUE__REQUEST_QUEUE_FILE=secret).queue.request_queue, "jobs")
        self.assertEqual(self.load(SERVER__PORT_FILE=self.file("81\n")).server.port, 81)

    def test_not_from_a_file(self) -> None:
        """A missing file, or one with an invalid value, is a complaint with the key and the source."""
        complaint = self.complaint("queue: {request_queue_file: /nowhere/at/all}")
        self.assertEqual(complaint.key, "queue.request_queue_file")
        self.assertIn("/nowhere/at/all", complaint.reason)
        self.assertEqual(self.complaint(f"queue: {{nonsense_file: {self.file('a')}}}").key, "queue.nonsense_file")
        complaint = self.complaint(SERVER__PORT_FILE=self.file("70000"))
        self.assertEqual(complaint.source, "OPENHQM_SERVER__PORT_FILE")


class AbsentTests(ConfigCase):
    """Keys and values of the contract that this build lacks"""

    def test_features(self) -> None:
        """Every other missing feature is refused by its key."""
        for key, value in (
            ("queue.spool", "/var/spool"),
            ("auth.api_keys", ["a"]),
            ("monitoring.redact", ["Authorization"]),
            ("monitoring.tracing", {"otlp_endpoint": "http://a"}),
        ):
            *section, name = key.split(".")
            document = {section[0]: {name: value}} if section else {name: value}
            complaint = self.complaint(json.dumps(document))
            self.assertEqual(complaint.key, key)
            self.assertIn("not in this build", complaint.reason)

    def test_format(self) -> None:
        """The format of other programs' messages can be set for a broker that other programs reach, and
        nowhere else.
        """
        for format in ("auto", "envelope", "json", "raw"):
            self.assertEqual(self.load(f"queue: {{type: redis, format: {format}}}").queue.format, format)
        for type, format in (("sqlite", "raw"), ("sqlite", "json"), ("memory", "json")):
            complaint = self.complaint(f"queue: {{type: {type}, format: {format}}}")
            self.assertEqual(complaint.key, "queue.format")
            self.assertIn("messages of other programs", complaint.reason)
        self.assertEqual(self.complaint("queue: {type: redis, format: xml}").key, "queue.format")

    def test_processes(self) -> None:
        """Several processes need a backend that they can share, and sockets that can be inherited."""
        redis = "queue: {type: redis}\n"
        self.assertEqual(self.load(redis + "server: {workers: 4}").server.workers, 4)
        for type, reason in (("sqlite", "a file that one process opens"), ("memory", "seen by one process only")):
            complaint = self.complaint(f"queue: {{type: {type}}}\nserver: {{workers: 2}}")
            self.assertEqual(complaint.key, "server.workers")
            self.assertIn("2 processes need queue.type redis", complaint.reason)
            self.assertIn(reason, complaint.reason)
        where = "tcp:1:interface=127.0.0.1", "tcp6:1:interface=\\:\\:1", "unix:/a", "systemd:domain=INET:index=0"
        opened = redis + "auth: {type: none}\nserver: {workers: 2, endpoints: %s}"
        self.assertEqual(self.load(opened % json.dumps(where)).server.endpoints, list(where))
        complaint = self.complaint(opened % '["ssl:1:interface=127.0.0.1"]')
        self.assertEqual(complaint.key, "server.endpoints")
        self.assertIn("ssl: cannot be handed on to 2 processes", complaint.reason)
        self.assertEqual(self.complaint("server: {workers: 0}").key, "server.workers")

    def test_no_oracle_for_secrets(self) -> None:
        """A secret under the key of a missing feature is not repeated in the complaint."""
        for text in (
            "proxy: {endpoints: {a: {auth_tokn: s3cr3t}}}",
            "auth: {api_keys: [s3cr3t]}",
            "admin: {key: s3cr3t}",
            "callbacks: {secrets: [s3cr3t]}",
        ):
            self.assertNotIn("s3cr3t", str(self.complaint(text)))

    def test_harmless(self) -> None:
        """A line that leaves a missing feature off is accepted, so that several builds can share a file."""
        for text in (
            "proxy: {enabled: false}",
            "proxy: {enabled: false, sidecar: {enabled: false}}",
            "admin: {enabled: true, key: null}",
            "partitioning: {enabled: false, partition_count: 16}",
            "server: {workers: 1, trusted_proxies: []}",
            "queue: {format: auto, spool: null, response_queue: null}",
            "cache: {redis_url: null}",
            "auth: {type: null, api_keys: [], jwt: {}}",
            "bridges: []\ntenants: []\n",
            "monitoring: {redact: []}",
        ):
            self.assertEqual(self.load(text), load(None, {}, PRODUCTS), text)

    def test_harmless_from_the_environment(self) -> None:
        """So are variables that leave it off."""
        for environment in (
            {"SERVER__WORKERS": "1"},
            {"ADMIN__KEY": "null"},
            {"BRIDGES": "[]"},
            {"QUEUE__SPOOL": "null"},
            {"QUEUE__FORMAT": "auto"},
        ):
            try:
                self.assertEqual(self.load(**environment), load(None, {}, PRODUCTS))
            except ConfigurationError as error:
                self.fail(f"{environment} was refused: {error}")

    def test_where_it_was_asked_for(self) -> None:
        """A missing or misspelt section that only a variable sets is refused with the name of the variable."""
        for name in ("TENANTS__ENABLED", "SEVER__PORT"):
            self.assertEqual(self.complaint(**{name: "true"}).source, f"OPENHQM_{name}")

    def test_the_design_documents_own_example(self) -> None:
        """The example of the design document loads as it is printed, with nothing added but that every machine may
        call: connections of other products may stand unused.
        """
        text = (
            'server:\n  host: "0.0.0.0"\n  port: 8000\n  workers: 4\n'
            "queue:\n"
            '  type: "redis"  # redis, kafka, sqs\n'
            "  connection:\n"
            '    redis:\n      url: "redis://localhost:6379"\n'
            '    kafka:\n      bootstrap_servers: ["localhost:9092"]\n'
            '    sqs:\n      region: "us-east-1"\n      queue_url: ""\n'
            "worker:\n  count: 5\n  batch_size: 10\n  timeout_seconds: 300\n  max_retries: 3\n"
            'cache:\n  type: "redis"\n  ttl_seconds: 3600\n'
            'monitoring:\n  metrics_enabled: true\n  log_level: "INFO"\n'
        )
        self.assertEqual(self.complaint(text).key, "server.host")
        settings = self.load(text, AUTH__TYPE="none")
        self.assertEqual((settings.server.workers, settings.queue.of(RedisSettings).url), (4, "redis://localhost:6379"))

    def test_the_design_documents_own_proxy(self) -> None:
        """The proxy of the same document loads as it is printed, and the variables of its sidecar say the same."""
        settings = self.load(
            "proxy:\n"
            "  enabled: true\n"
            '  default_endpoint: "http://localhost:8080"\n'
            "  forward_headers:\n"
            '    - "Content-Type"\n'
            '    - "Authorization"\n'
            '    - "X-Request-ID"\n'
            "  endpoints:\n"
            "    legacy-app:\n"
            '      url: "http://localhost:8080/api/v1/process"\n'
            '      method: "POST"\n'
            "      timeout: 300\n"
        )
        self.assertEqual(settings.proxy.names, ("legacy-app", "default"))
        self.assertNotIn("authorization", settings.proxy.target("legacy-app").strip)
        settings = self.load(
            PROXY__ENABLED="true",
            PROXY__DEFAULT_ENDPOINT="http://localhost:8080",
            QUEUE__TYPE="redis",
            QUEUE__REDIS_URL="redis://redis:6379",
        )
        self.assertEqual(settings.queue.of(RedisSettings).url, "redis://redis:6379")
        self.assertEqual(settings.proxy.default_name, "default")


class RabbitMQTests(ConfigCase):
    """``queue.type: rabbitmq``"""

    def test_short_form(self) -> None:
        """``queue.rabbitmq_url`` means the same as ``queue.connection.rabbitmq.url``."""
        long = self.load("queue: {type: rabbitmq, connection: {rabbitmq: {url: 'amqp://a:1/v', prefix: p.}}}")
        ours = long.queue.of(RabbitMQSettings)
        self.assertEqual((ours.url, ours.prefix), ("amqp://a:1/v", "p."))
        short = self.load("queue: {type: rabbitmq, rabbitmq_url: 'amqp://a'}")
        self.assertEqual(short.queue.of(RabbitMQSettings).url, "amqp://a")

    def test_not_shown(self) -> None:
        """An invalid URL is refused by its key, without its password. A valid one is not shown."""
        for key, text in (
            ("queue.rabbitmq_url", "queue: {type: rabbitmq, rabbitmq_url: 'http://u:secret@a'}"),
            (
                "queue.connection.rabbitmq.url",
                "queue: {type: rabbitmq, connection: {rabbitmq: {url: 'amqp://u:secret@a/b/c'}}}",
            ),
        ):
            complaint = self.complaint(text)
            self.assertEqual(complaint.key, key)
            self.assertNotIn("secret", str(complaint))
        self.assertNotIn("secret", repr(self.load("queue: {type: rabbitmq, rabbitmq_url: 'amqp://u:secret@a'}")))

    def test_held_for_too_long(self) -> None:
        """A timeout longer than RabbitMQ lets a consumer hold a message is refused by its key."""
        proxy = "proxy: {enabled: true, endpoints: {slow: {url: 'http://a', timeout: 1800}}}"
        own = "proxy: {enabled: true, default_endpoint: 'http://a'}"
        for key, text in (
            ("worker.timeout_seconds", "worker: {timeout_seconds: 1741}"),
            ("proxy.endpoints.slow.timeout", proxy),
            ("routing.routes.0.timeout", f"routing: {{routes: [{{name: a, is_default: true, timeout: 3600}}]}}\n{own}"),
        ):
            self.load(f"{text}\nqueue: {{type: redis}}")
            complaint = self.complaint(f"{text}\nqueue: {{type: rabbitmq}}")
            self.assertEqual(complaint.key, key)
            self.assertIn("consumer_timeout", complaint.reason)
            for seconds in (0, 7200):
                more = f"connection: {{rabbitmq: {{consumer_timeout_seconds: {seconds}}}}}"
                self.load(f"{text}\nqueue: {{type: rabbitmq, {more}}}")
        self.load("worker: {timeout_seconds: 1740}\nqueue: {type: rabbitmq}")

    def test_a_listener_holds_nothing(self) -> None:
        """A process without workers may have longer ones, because it holds no messages."""
        self.load(
            "worker: {enabled: false, timeout_seconds: 7200}\nqueue: {type: rabbitmq}\n"
            "cache: {type: redis, redis_url: 'redis://a'}"
        )


class RedisTests(ConfigCase):
    """The address of Redis"""

    def test_short_forms(self) -> None:
        """``queue.redis_url`` means the same as ``queue.connection.redis.url``, and the cache may repeat it."""
        long = self.load("queue: {type: redis, connection: {redis: {url: 'redis://a:1/2'}}}\ncache: {type: redis}")
        self.assertEqual(long.queue.of(RedisSettings).url, "redis://a:1/2")
        short = self.load("queue: {type: redis, redis_url: 'redis://a'}\ncache: {type: redis, redis_url: 'redis://a'}")
        self.assertEqual(short.queue.of(RedisSettings).url, "redis://a")

    def test_one_redis(self) -> None:
        """A result store in another Redis than the queue is refused: settling could not be one step."""
        complaint = self.complaint("queue: {type: redis, redis_url: 'redis://a'}\ncache: {redis_url: 'redis://b'}")
        self.assertEqual(complaint.key, "cache.redis_url")

    def test_response_queue(self) -> None:
        """A stream for replies needs a broker that other programs reach, and must not be one that OpenHQM reads."""
        settings = self.load("queue: {type: redis, response_queue: answers}")
        self.assertEqual(settings.queue.response_queue, "answers")
        self.load("queue: {response_queue: openhqm-responses}")
        for text in (
            "queue: {response_queue: answers}",
            "queue: {type: redis, response_queue: openhqm-requests}",
            "queue: {type: redis, response_queue: '{openhqm}:r:1'}",
        ):
            self.assertEqual(self.complaint(text).key, "queue.response_queue", text)

    def test_response_queue_of_rabbitmq(self) -> None:
        """Without a shared store, workers report in the response queue: any name that no other queue has."""
        self.assertEqual(self.load("queue: {type: rabbitmq}").queue.steps_queue, "openhqm-responses")
        settings = self.load("queue: {type: rabbitmq, response_queue: told}")
        self.assertEqual(settings.queue.steps_queue, "told")
        for text in (
            "queue: {type: rabbitmq, response_queue: openhqm-requests}",
            "queue: {type: rabbitmq, response_queue: openhqm-requests.a}",
            "queue: {type: rabbitmq, request_queue: openhqm-responses}",
            "queue: {type: rabbitmq, response_queue: openhqm-dlq}",
            "queue: {type: rabbitmq, response_queue: told}\ncache: {type: redis}",
        ):
            self.assertEqual(self.complaint(text).key, "queue.response_queue", text)

    def test_halves_on_rabbitmq(self) -> None:
        """A listener has an embedded file, and a worker needs no store; several processes need a shared one."""
        for half in ("server", "worker"):
            self.load(f"queue: {{type: rabbitmq}}\n{half}: {{enabled: false}}")
        complaint = self.complaint("queue: {type: rabbitmq}\nserver: {workers: 2}\nworker: {enabled: false}")
        self.assertEqual(complaint.key, "server.workers")

    def test_no_such_url(self) -> None:
        """An invalid URL is a complaint with its key, and without its password."""
        complaint = self.complaint("queue: {type: redis, redis_url: 'http://u:secret@a'}")
        self.assertEqual(complaint.key, "queue.redis_url")
        self.assertNotIn("secret", str(complaint))

    def test_no_password_in_a_repr(self) -> None:
        """The repr of settings contains no URL."""
        self.assertNotIn("secret", repr(self.load("queue: {type: redis, redis_url: 'redis://u:secret@a'}")))

    def test_lease(self) -> None:
        """A lease lasts at least a second."""
        self.assertEqual(self.load("queue: {lease_seconds: 1}").queue.lease_seconds, 1.0)
        self.assertEqual(self.complaint("queue: {lease_seconds: 0.5}").key, "queue.lease_seconds")


class SidecarTests(ConfigCase):
    """``proxy.sidecar``"""

    def test_rules(self) -> None:
        """Rules are loaded as written, and the application is the endpoint of requests that name none."""
        settings = self.load(
            "proxy: {sidecar: {enabled: true, upstream: 'http://localhost:8080',"
            " async_rules: [{path: /jobs/**, methods: [POST], header: X-Slow, header_value: 'yes', wait: 3}]}}"
        )
        (rule,) = settings.proxy.sidecar.async_rules
        self.assertTrue(rule.rule.matches("POST", "/jobs/1", [(b"x-slow", b"yes")]))
        self.assertFalse(rule.rule.matches("POST", "/jobs/1", [(b"x-slow", b"no")]))
        self.assertEqual(settings.addressing().shared, "application")

    def test_failures(self) -> None:
        """What the application answers below 500 is an answer, and what counts as a failure can be said."""
        for more, statuses in (
            ("", set(range(500, 600))),
            (", failures: [404, 500-502]", {404, 500, 501, 502}),
            (", failures: []", set()),
        ):
            settings = self.load(f"proxy: {{sidecar: {{enabled: true, upstream: 'http://localhost:8080'{more}}}}}")
            self.assertEqual(settings.proxy.target("application").failures, statuses)

    def test_wrong(self) -> None:
        """Each complaint has its key."""
        for text, key in (
            ("failures: [200]", "failures"),
            ("failures: [5xx]", "failures"),
            ("failures: [true]", "failures.0"),
            ("failures: 500", "failures"),
            ("enabled: true", "upstream"),
            ("upstream: ftp://a", "upstream"),
            ("upstream: 'http://a/path'", "upstream"),
            ("upstream: localhost:8080", "upstream"),
            ("upstream: 'http://a?b'", "upstream"),
            ("upstream: 'http://a:0'", "upstream"),
            ("upstream: 'http://a:99999'", "upstream"),
            ('upstream: "http://a\\r\\n"', "upstream"),
            ("timeout: 0", "timeout"),
            ("async_rules: [{path: /**/a}]", "async_rules.0.path"),
            ("async_rules: [{path: /a, header: a b}]", "async_rules.0.header"),
            ("upstream: 'http://user:s3cr3t@a'", "upstream"),
            ("async_rules: [{path: jobs}]", "async_rules.0.path"),
            ("async_rules: [{methods: [POST]}]", "async_rules.0.path"),
            ("async_rules: [{path: /a, methods: [get]}]", "async_rules.0.methods"),
            ("async_rules: [{path: /a, header_value: b}]", "async_rules.0.header_value"),
            ("async_rules: [{path: /a, wait: 0}]", "async_rules.0.wait"),
        ):
            complaint = self.complaint(f"proxy: {{sidecar: {{{text}}}}}")
            self.assertEqual(complaint.key, f"proxy.sidecar.{key}", text)
            self.assertNotIn("s3cr3t", str(complaint))


class RoutingTests(ConfigCase):
    """``routing.routes``"""

    def routes(self, *routes: dict[str, object], **environment: str) -> Settings:
        proxy = {"enabled": True, "endpoints": {"billing": {"url": "http://localhost:8080"}}}
        return self.load(json.dumps({"routing": {"routes": routes}, "proxy": proxy}), **environment)

    def wrong(self, *routes: dict[str, object]) -> dict[str, str]:
        found = self.complaints(json.dumps({"routing": {"routes": routes}}))
        return {key.removeprefix("routing.routes."): complaint.reason for key, complaint in found.items()}

    def test_none(self) -> None:
        """Without routes, no request takes one."""
        for text in ("", "routing:", "routing: {}", "routing: {routes: []}"):
            settings = self.load(text)
            self.assertEqual(settings.routing.routes, [])
            self.assertIsNone(settings.routing.table().choose(Submission(b'{"a":1}')))

    def test_every_key(self) -> None:
        """Each key is set in the chosen route. A missing key is left to the endpoint."""
        table = self.routes(
            {
                "name": "orders",
                "match_field": "payload.type",
                "match_value": "order",
                "priority": 5,
                "is_default": False,
                "endpoint": "billing",
                "method": "PUT",
                "transform_type": "template",
                "transform": '{"id": {{ payload.id }}}',
                "header_mappings": {"X-Type": "payload.type"},
                "query_params": {"tenant": "metadata.tenant"},
                "timeout": 2.5,
            },
            {"name": "rest", "is_default": True},
        ).routing.table()
        submission = Submission(b'{"type":"order","id":7}', {}, {"tenant": "acme"})
        route = table.choose(submission)
        assert route is not None
        self.assertEqual(
            (route.name, route.priority, route.endpoint, route.method, route.timeout),
            ("orders", 5, "billing", "PUT", 2.5),
        )
        self.assertEqual(
            route.outgoing(Document(submission)),
            Outgoing(b'{"id": 7}', "application/json", {"X-Type": "order"}, {"tenant": "acme"}),
        )
        rest = table.choose(Submission(b'{"type":"other"}'))
        assert rest is not None
        self.assertEqual((rest.name, rest.endpoint, rest.method, rest.timeout), ("rest", None, None, None))
        self.assertEqual(rest.outgoing(Document(submission)).content, submission.payload)

    def test_values_to_match(self) -> None:
        """Any scalar of JSON but null can be matched, with its type. From a variable in the file it is a string."""
        for value, payload in (("1", '"1"'), (1, "1"), (True, "true"), (False, "false"), (1.5, "1.5"), (0, "0")):
            table = self.routes({"name": "a", "match_field": "x", "match_value": value}).routing.table()
            self.assertIsNotNone(table.choose(Submission(b'{"x":%b}' % payload.encode())), value)
            self.assertIsNone(table.choose(Submission(b'{"x":"another"}')))
        text = f"{PROXY}routing: {{routes: [{{name: a, match_field: x, match_value: '${{V}}'}}]}}"
        table = load(self.file(text), {"V": "1"}, PRODUCTS).routing.table()
        self.assertIsNotNone(table.choose(Submission(b'{"x":"1"}')))
        self.assertIsNone(table.choose(Submission(b'{"x":1}')))

    def test_from_the_environment(self) -> None:
        """Routes as JSON in a variable override the file. An error in them names the variable."""
        routes = json.dumps([{"name": "b", "is_default": True}])
        text = f"{PROXY}routing: {{routes: [{{name: a, is_default: true}}]}}"
        self.assertEqual([route.name for route in self.load(text, ROUTING__ROUTES=routes).routing.routes], ["b"])
        complaint = self.complaint(ROUTING__ROUTES='[{"name": "b c", "is_default": true}]')
        self.assertEqual((complaint.key, complaint.source), ("routing.routes.0.name", "OPENHQM_ROUTING__ROUTES"))

    def test_one_mistake(self) -> None:
        """Each error is reported under its key."""
        for key, value in (
            ("name", ""),
            ("name", "a b"),
            ("name", "a" * 65),
            ("name", "a\n"),
            ("name", 3),
            ("match_field", "a..b"),
            ("match_field", "correlation_id"),
            ("match_value", [1]),
            ("match_value", None),
            ("match_pattern", "a"),
            ("is_default", "yes"),
            ("priority", 1.5),
            ("endpoint", ""),
            ("method", "post"),
            ("method", "TRACE"),
            ("transform_type", "xslt"),
            ("timeout", 0),
            ("timeout", -1),
            ("header_mappings", {"Host": "a"}),
            ("header_mappings", {"X-A": "a..b"}),
            ("query_params", {"q": ""}),
            ("nam", "a"),
        ):
            found = self.wrong({"name": "a", "match_field": "x", "match_value": 1, key: value})
            # Of two that exclude each other, it is one.
            self.assertEqual(set(found), {f"0.{'match_value' if key == 'match_pattern' else key}"}, value)

    def test_when_it_is_taken(self) -> None:
        """A route has a field with a value or a pattern; or it is the default, and has neither."""
        for route, key in (
            ({}, "match_field"),
            ({"match_value": 1}, "match_field"),
            ({"match_pattern": "a", "is_default": True}, "match_field"),
            ({"match_field": "x", "match_value": 1, "is_default": True}, "match_field"),
            ({"match_field": "x"}, "match_value"),
            ({"match_field": "x", "match_pattern": "("}, "match_pattern"),
        ):
            self.assertEqual(set(self.wrong({"name": "a", **route})), {f"0.{key}"}, route)
        complaint = self.complaint("routing: {routes: [{name: a, match_field: x, match_value: .inf}]}")
        self.assertEqual(complaint.key, "routing.routes.0.match_value")

    def test_transforms(self) -> None:
        """An invalid transform is a complaint with the route's index."""
        default = {"name": "b", "is_default": True}
        for kind, text in (
            ("jq", ".a |"),
            ("jq", None),
            ("jsonpath", "a"),
            ("template", "{{ a"),
            ("template", '{"a": "{{ a }}"}'),
            ("passthrough", ".a"),
        ):
            route = {"name": "a", "match_field": "x", "match_value": 1, "transform_type": kind, "transform": text}
            self.assertEqual(set(self.wrong(default, route)), {"1.transform"}, text)

    def test_a_missing_package(self) -> None:
        """A missing package is a complaint about the type, with the command that installs it."""
        with mock.patch.dict(sys.modules, {"jq": None}):
            found = self.wrong({"name": "a", "is_default": True, "transform_type": "jq", "transform": "."})
        self.assertEqual(
            found, {"0.transform_type": "jq needs the package jq: pip install '.[routing]' in the clone of OpenHQM"}
        )

    def test_all_of_them_together(self) -> None:
        """Names are unique, and one route may be the default. All errors are reported at once."""
        default = {"name": "a", "is_default": True}
        self.assertEqual(set(self.wrong(default, default)), {"1.name", "1.is_default"})
        found = self.wrong(
            {"name": "a b", "match_field": "x", "transform_type": "jq", "transform": "."},
            {"name": "c", "is_default": True, "timeout": 0},
            {"name": "d", "match_field": "x", "match_pattern": "[", "query_params": {"q": "."}},
        )
        expected = {"0.name", "0.match_value", "1.timeout", "2.match_pattern", "2.query_params"}
        self.assertEqual(set(found), expected)


class ContradictionsTests(ConfigCase):
    """Values that are valid each by itself, and not together"""

    def test_who_may(self) -> None:
        """Listening beyond loopback without authentication must be allowed explicitly."""
        for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"):
            self.assertEqual(self.load(f"server: {{host: '{host}'}}").server.host, host)
        for host in ("0.0.0.0", "::", "192.168.1.5", "10.0.0.1", "example.com", "127.0.0.1.example.com", "0", "*"):
            complaint = self.complaint(f"server: {{host: '{host}'}}")
            self.assertEqual(complaint.key, "server.host")
            self.assertIn("auth.type: none", complaint.reason)
            self.assertEqual(self.load(f"server: {{host: '{host}'}}\nauth: {{type: none}}").server.host, host)
        self.load("server: {enabled: false, host: 0.0.0.0}")

    def test_prefix(self) -> None:
        """The paths for operators lie at the root, and in a sidecar below /_openhqm, or where it is said."""
        sidecar = "proxy: {sidecar: {enabled: true, upstream: 'http://localhost:8080'}}\n"
        for text, prefix in (
            ("", ""),
            (sidecar, "/_openhqm"),
            (f"{sidecar}server: {{prefix: /}}", ""),
            (f"{sidecar}server: {{prefix: /internal}}", "/internal"),
            ("server: {prefix: /internal}", "/internal"),
        ):
            self.assertEqual(self.load(text).own_paths().prefix, prefix, text)
        for bad in ("health", "/a/", "/api/v1"):
            self.assertEqual(self.complaint(f"server: {{prefix: {bad}}}").key, "server.prefix")

    def test_trusted_proxies(self) -> None:
        """Proxies are addresses and networks, and refused where nothing asks whose word they pass on."""
        sidecar = "proxy: {sidecar: {enabled: true, upstream: 'http://localhost:8080'}}\n"
        good = "server: {trusted_proxies: [10.0.0.0/8, '::1', unix]}"
        self.assertEqual(len(self.load(sidecar + good).server.trusted_proxies), 3)
        self.assertEqual(len(self.load(f"rate_limit: {{requests: 1}}\n{good}").server.trusted_proxies), 3)
        for text in (good, sidecar + "server: {trusted_proxies: [10.0.0.1/8]}"):
            self.assertEqual(self.complaint(text).key, "server.trusted_proxies")

    def test_buffered(self) -> None:
        """One body must fit into the limit for all bodies."""
        self.load("server: {max_body_bytes: 10, max_buffered_bytes: 10}")
        complaint = self.complaint("server: {max_body_bytes: 11, max_buffered_bytes: 10}")
        self.assertEqual(complaint.key, "server.max_buffered_bytes")

    def test_endpoints(self) -> None:
        """The same holds for Twisted endpoint strings, of which every one must be local."""
        for endpoint in (
            "unix:/run/openhqm.sock",
            "tcp:8000:interface=127.0.0.1",
            "tcp:interface=127.0.0.1:port=8000",
            r"tcp6:8000:interface=\:\:1",
            "ssl:443:interface=localhost",
        ):
            self.assertEqual(self.load(f"server: {{endpoints: ['{endpoint}']}}").server.endpoints, [endpoint])
        for endpoint in (
            "tcp:8000",
            "tcp:8000:interface=0.0.0.0",
            r"tcp6:8000:interface=\:\:",
            "systemd:domain=INET:index=0",
        ):
            text = f"server: {{endpoints: ['unix:/a', '{endpoint}']}}"
            complaint = self.complaint(text)
            self.assertEqual(complaint.key, "server.endpoints")
            self.load(text + "\nauth: {type: none}")

    def test_an_interface_twice(self) -> None:
        """Of two interfaces Twisted uses the last, so the last must be local."""
        endpoint = "tcp:8000:interface=127.0.0.1:interface=0.0.0.0"
        self.assertEqual(self.complaint(f"server: {{endpoints: ['{endpoint}']}}").key, "server.endpoints")

    def test_auth(self) -> None:
        """An unknown kind of authentication is not taken for none."""
        self.assertEqual(self.complaint("auth: {type: basic}").key, "auth.type")
        self.assertEqual(self.load("auth: {type: none}").auth.type, "none")
        keys = "auth: {type: api_key, keys_file: keys.json}\n"
        self.assertEqual(self.load(keys + "server: {host: 0.0.0.0}").auth.keys_file, "keys.json")
        sidecar = "proxy: {sidecar: {enabled: true, upstream: 'http://localhost:8080'}}\n"
        for text, key in (
            ("auth: {type: api_key}", "auth.keys_file"),
            ("auth: {keys_file: keys.json}", "auth.keys_file"),
            (keys + sidecar, "auth.type"),
        ):
            self.assertEqual(self.complaint(text).key, key)

    def test_other_contradictions(self) -> None:
        """Two stores for one record, two queues of one name, and a process without anything to do are refused."""
        for text, key in (
            ("queue: {type: memory}\ncache: {type: sqlite}", "cache.type"),
            ("queue: {request_queue: a, dead_letter_queue: a}", "queue.dead_letter_queue"),
            ("queue: {dead_letter_queue: openhqm-requests}", "queue.dead_letter_queue"),
            ("queue: {type: memory}\nworker: {enabled: false}", "queue.type"),
            ("queue: {type: memory}\nserver: {enabled: false}", "queue.type"),
            ("server: {enabled: false}\nworker: {enabled: false}", "server.enabled"),
            ("admin: {host: 0.0.0.0, port: 8001}", "admin.key"),
            ("admin: {port: 8000}", "admin.port"),
            ("admin: {port: 8001}\nserver: {workers: 2}\nqueue: {type: redis}", "admin.port"),
            ("admin: {port: 8001, key: short}", "admin.key"),
        ):
            self.assertEqual(self.complaint(text).key, key)
        self.assertEqual(self.load("queue: {type: memory}\ncache: {type: memory}").cache.type, "memory")
        self.load("server: {enabled: false}")
        self.load("worker: {enabled: false}")


class ProxyTests(ConfigCase):
    """``proxy`` and its endpoints"""

    def proxy(self, **keys: object) -> Settings:
        return self.load("proxy: " + json.dumps({"enabled": True, **keys}))

    def wrong(self, **keys: object) -> dict[str, str]:
        found = self.complaints("proxy: " + json.dumps({"enabled": True, **keys}))
        return {key.removeprefix("proxy."): complaint.reason for key, complaint in found.items()}

    def endpoint(self, **keys: object) -> dict[str, str]:
        """The complaints about one endpoint."""
        found = self.wrong(endpoints={"a": {"url": "https://a.test", **keys}})
        return {key.removeprefix("endpoints.a."): reason for key, reason in found.items()}

    def test_egress_proxy(self) -> None:
        """The proxy of an endpoint is spoken to in HTTP. Its password stands neither in its URL nor in a complaint."""
        for url in (
            "https://proxy:3128",
            "socks5://proxy",
            "http://ada:canary@proxy:3128",
            "http://proxy/path",
            "http://proxy?a",
            "proxy:3128",
            "http://",
            "http://proxy:port",
        ):
            found = self.endpoint(egress_proxy=url)
            self.assertEqual(set(found), {"egress_proxy"}, url)
            self.assertNotIn("canary", str(found))
        url = "http://proxy:3128"
        self.assertEqual(set(self.endpoint(egress_proxy=url, egress_proxy_username="a")), {"egress_proxy_password"})
        self.assertEqual(
            set(self.endpoint(egress_proxy=url, egress_proxy_password="canary")), {"egress_proxy_username"}
        )
        both = {"egress_proxy_username": "a", "egress_proxy_password": "canary"}
        self.assertEqual(set(self.endpoint(**both)), {"egress_proxy_username"})
        good = self.proxy(endpoints={"a": {"url": "https://a.test", "egress_proxy": url, **both}})
        self.assertNotIn("canary", repr(good))

    def test_defaults(self) -> None:
        """The proxy is off by default. An endpoint needs a URL, and everything else has a default."""
        self.assertEqual(self.load().proxy.names, ())
        proxy = self.proxy(endpoints={"a": {"url": "https://a.test/x"}}).proxy
        endpoint = proxy.endpoints["a"]
        self.assertEqual((proxy.names, proxy.default_name, proxy.max_response_bytes), (("a",), None, 10485760))
        self.assertEqual(
            (endpoint.method, endpoint.timeout, endpoint.rate, endpoint.adaptive), ("POST", 300, None, False)
        )
        self.assertEqual(endpoint.retry_on, [408, 425, 429, 500, 502, 503, 504])
        self.assertEqual((endpoint.circuit_breaker.failure_ratio, endpoint.circuit_breaker.minimum_calls), (0.5, 20))
        target = proxy.target("a")
        self.assertEqual((target.url, target.method), ("https://a.test/x", "POST"))
        self.assertEqual(target.forward, {"content-type", "accept", "user-agent", "x-request-id", "x-correlation-id"})

    def test_default_endpoint(self) -> None:
        """The default endpoint is a name, or a URL, which becomes an endpoint called default."""
        named = self.proxy(endpoints={"a": {"url": "http://a.test"}}, default_endpoint="a")
        self.assertEqual((named.proxy.default_name, named.addressing().shared), ("a", "a"))
        url = self.proxy(default_endpoint="http://b.test/c")
        self.assertEqual((url.proxy.names, url.addressing().shared), (("default",), "default"))
        self.assertEqual(url.proxy.target("default").url, "http://b.test/c")

    def test_credentials_of_callers(self) -> None:
        """Where all headers are forwarded, Authorization is not, unless it is listed."""
        for headers, stripped in ((["*"], True), (["*", "Authorization"], False), (["authorization"], False)):
            proxy = self.proxy(endpoints={"a": {"url": "http://a.test"}}, forward_headers=headers).proxy
            self.assertEqual("authorization" in proxy.target("a").strip, stripped, headers)

    def test_urls(self) -> None:
        """Invalid URLs are refused, and what precedes an @ is never repeated."""
        for url in (
            "",
            "a.test",
            "ftp://a.test",
            "http://",
            "http://a.test:port",
            "http://[::1",
            "http://u:s3cret@a.test",
            "http://u:s3cret@a\u2100.test",
            "ftp://u:s3cret@a.test",
            "u:s3cret@a.test",
            "http://a.test/#x",
            "http://a.test/ü",
            "http://a.test/a b",
            "http://a.test\\b",
        ):
            found = self.wrong(endpoints={"a": {"url": url}})
            self.assertEqual(set(found), {"endpoints.a.url"}, url)
            self.assertNotIn("s3cret", str(found))
            if "://" in url:
                self.assertEqual(set(self.wrong(default_endpoint=url)), {"default_endpoint"}, url)

    def test_one_mistake(self) -> None:
        """Each error is reported under its key."""
        for key, value, where in (
            ("method", "post", "method"),
            ("timeout", 0, "timeout"),
            ("headers", {"X A": "1"}, "headers"),
            ("headers", {"X-A": "a\nb"}, "headers"),
            ("headers", {"Content-Length": "1"}, "headers"),
            ("headers", {"Transfer-Encoding": "chunked"}, "headers"),
            ("auth_type", "magic", "auth_type"),
            ("auth_header_name", "Connection", "auth_header_name"),
            ("auth_header_name", "a b", "auth_header_name"),
            ("auth_token_url", "nowhere", "auth_token_url"),
            ("failures", ["500-999"], "failures"),
            ("retry_on", [200], "retry_on.0"),
            ("retry_on", [503, 700], "retry_on.1"),
            ("rate", {"requests": 0}, "rate.requests"),
            ("rate", {"per_seconds": 0}, "rate.per_seconds"),
            ("max_in_flight", 0, "max_in_flight"),
            ("adaptive", "yes", "adaptive"),
            ("circuit_breaker", {"failure_ratio": 0}, "circuit_breaker.failure_ratio"),
            ("circuit_breaker", {"minimum_calls": 0}, "circuit_breaker.minimum_calls"),
            ("circuit_breaker", {"open_seconds": 0}, "circuit_breaker.open_seconds"),
            ("tls", {"key": "k.pem"}, "tls.cert"),
            ("tls", {"cafile": "x"}, "tls.cafile"),
            ("urll", "x", "urll"),
        ):
            self.assertEqual(set(self.endpoint(**{key: value})), {where}, (key, value))

    def test_what_goes_together(self) -> None:
        """Each kind of authentication needs its own keys, and the complaints name the missing ones."""
        for kind, missing in (
            ("bearer", {"auth_token"}),
            ("basic", {"auth_username", "auth_password"}),
            ("api_key", {"auth_token"}),
            ("custom", {"auth_header_name", "auth_token"}),
            ("oauth2_client_credentials", {"auth_token_url", "auth_client_id", "auth_client_secret"}),
        ):
            self.assertEqual(set(self.endpoint(auth_type=kind)), missing)

    def test_the_whole(self) -> None:
        """Names, the default, a proxy without endpoints, and callers' URLs are checked together."""
        url = {"url": "http://a.test"}
        for keys, where in (
            ({}, "endpoints"),
            ({"endpoints": {"a b": url}}, "endpoints.a b"),
            ({"endpoints": {"_1": url}}, "endpoints._1"),
            ({"endpoints": {"callers": url}}, "endpoints.callers"),
            ({"endpoints": {"a": url}, "default_endpoint": "b"}, "default_endpoint"),
            ({"endpoints": {"default": url}, "default_endpoint": "http://b.test"}, "endpoints.default"),
            ({"endpoints": {"a": url}, "max_response_bytes": 0}, "max_response_bytes"),
            ({"caller_targets": {"enabled": True, "schemes": ["ftp"]}}, "caller_targets.schemes"),
            ({"caller_targets": {"enabled": True, "schemes": []}}, "caller_targets.schemes"),
            ({"caller_targets": {"enabled": True, "ports": []}}, "caller_targets.ports"),
            ({"caller_targets": {"enabled": True, "ports": [0]}}, "caller_targets.ports"),
            ({"caller_targets": {"enabled": True, "allow": ["10.0.0.0/99"]}}, "caller_targets.allow"),
            ({"sidecar": {"target": "http://a.test"}, "endpoints": {"a": url}}, "sidecar.target"),
        ):
            self.assertEqual(set(self.wrong(**keys)), {where}, keys)

    def test_routes(self) -> None:
        """A route needs an existing endpoint, and not the one for callers' URLs."""
        for endpoint in ("b", "callers"):
            text = json.dumps(
                {
                    "proxy": {
                        "enabled": True,
                        "endpoints": {"a": {"url": "http://a.test"}},
                        "caller_targets": {"enabled": True},
                    },
                    "routing": {"routes": [{"name": "r", "is_default": True, "endpoint": endpoint}]},
                }
            )
            self.assertEqual(self.complaint(text).key, "routing.routes.0.endpoint")

    def test_secrets(self) -> None:
        """No complaint and no repr contains a secret: one of a wrong type, in the wrong place, or with invalid
        characters.
        """
        for keys in (
            {"auth_token": 4711471147},
            {"auth_password": 4711471147},
            {"auth_client_secret": [4711471147]},
            {"auth_token": "4711471147\n"},
            {"auth_password": "4711471147\u00fc"},
            {"headers": {"X-Key": 4711471147}},
            {"headers": "X-Key: 4711471147"},
            {"headers": {"X-Key": "4711471147\n"}},
        ):
            found = self.endpoint(**keys)
            self.assertEqual(len(found), 1, keys)
            self.assertNotIn("4711471147", str(found))
        self.assertNotIn("4711471147", str(self.wrong(endpoints={"a": "http://u:4711471147@a.test"})))
        self.assertNotIn("4711471147", str(self.wrong(endpoints=["http://u:4711471147@a.test"])))
        self.assertIn("not 0", self.endpoint(timeout=0)["timeout"])
        for keys in (
            {"auth_type": "bearer", "auth_token": "s3cret"},
            {"auth_type": "basic", "auth_username": "u", "auth_password": "s3cret"},
            {
                "auth_type": "oauth2_client_credentials",
                "auth_token_url": "http://t.test",
                "auth_client_id": "c",
                "auth_client_secret": "s3cret",
            },
        ):
            settings = self.proxy(endpoints={"a": {"url": "http://a.test", "headers": {"X-Key": "s3cret"}, **keys}})
            self.assertNotIn("s3cret", repr(settings))

    def test_from_a_file(self) -> None:
        """A secret can be read from a file, and from the environment."""
        path = self.file("s3cret\n")
        endpoint = f"{{url: 'http://a.test', auth_type: bearer, auth_token_file: {path}}}"
        text = f"proxy: {{enabled: true, endpoints: {{a: {endpoint}}}}}"
        self.assertEqual(self.load(text).proxy.endpoints["a"].auth_token, "s3cret")
        settings = self.load(
            "proxy: {enabled: true, endpoints: {a: {url: 'http://a.test', auth_type: bearer}}}",
            PROXY__ENDPOINTS__A__AUTH_TOKEN="t",
        )
        self.assertEqual(settings.proxy.endpoints["a"].auth_token, "t")

    def test_partitioning(self) -> None:
        """A partitioning has a field and a number, and both are checked."""
        partitioning = self.load("partitioning: {enabled: true, partition_count: 4}").addressing().partitioning
        assert partitioning is not None
        self.assertEqual((partitioning.field.name, partitioning.count), ("metadata.partition_key", 4))
        self.assertEqual(self.complaint("partitioning: {key_field: a..b}").key, "partitioning.key_field")
        self.assertEqual(self.complaint("partitioning: {partition_count: 0}").key, "partitioning.partition_count")

    def test_too_many_queues(self) -> None:
        """More queues (one for each endpoint and partition) than the limit are refused, with their number."""
        four = ", ".join(f"{name}: {{url: 'http://{name}.test'}}" for name in "abcd")
        text = f"proxy: {{enabled: true, endpoints: {{{four}}}}}\npartitioning: {{enabled: true, partition_count: %d}}"
        found = self.complaint(text % 256)
        self.assertEqual(found.key, "partitioning.partition_count")
        self.assertIn("1285 queues", found.reason)
        self.assertIn("1000", found.reason)
        self.assertEqual(len(list(self.load(text % 199).addressing().lanes())), 1000)
        many = ", ".join(f"e{number}: {{url: 'http://a.test'}}" for number in range(1000))
        found = self.complaint(f"proxy: {{enabled: true, endpoints: {{{many}}}}}")
        self.assertEqual(found.key, "proxy.endpoints")
        self.assertIn("1001 queues", found.reason)
