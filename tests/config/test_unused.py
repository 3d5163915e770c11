"""A setting without effect is refused, by its key and with the cure; what has one, or asks for nothing, is not."""

from __future__ import annotations

from openhqm.backends import PRODUCTS
from openhqm.config.loading import load
from openhqm.redis.settings import RedisSettings
from tests.config.test_config import ConfigCase

PROXY = "proxy: {enabled: true, endpoints: {a: {url: 'http://a.test'}}"
SIDECAR = "sidecar: {enabled: true, upstream: 'http://localhost:8080'}"


class UnusedTests(ConfigCase):
    """`unused`"""

    def test_refused(self) -> None:
        """Each setting that would have no effect, with a word of the cure."""
        for text, key, cure in (
            ("proxy: {default_endpoint: 'http://a.test'}", "proxy.default_endpoint", "set that to true"),
            ("proxy: {endpoints: {a: {url: 'http://a.test'}}}", "proxy.endpoints", "without proxy.enabled"),
            ("proxy: {forward_headers: [X-A]}", "proxy.forward_headers", "without proxy.enabled"),
            ("proxy: {strip_headers: [X-A]}", "proxy.strip_headers", "without proxy.enabled"),
            ("proxy: {max_response_bytes: 5}", "proxy.max_response_bytes", "without proxy.enabled"),
            ("proxy: {caller_targets: {enabled: true}}", "proxy.caller_targets", "without proxy.enabled"),
            (PROXY + ", caller_targets: {ports: [80]}}", "proxy.caller_targets.ports", "caller_targets.enabled"),
            ("proxy: {sidecar: {upstream: 'http://a.test'}}", "proxy.sidecar.upstream", "proxy.sidecar.enabled"),
            ("proxy: {sidecar: {async_rules: [{path: /a}]}}", "proxy.sidecar.async_rules", "proxy.sidecar.enabled"),
            ("partitioning: {partition_count: 4}", "partitioning.partition_count", "partitioning.enabled"),
            ("partitioning: {key_field: a}", "partitioning.key_field", "partitioning.enabled"),
            ("queue: {redis_url: 'redis://a'}", "queue.redis_url", "set the type to redis"),
            ("queue: {type: redis, rabbitmq_url: 'amqp://a'}", "queue.rabbitmq_url", "set the type to rabbitmq"),
            ("queue: {type: rabbitmq, mqtt_host: a}", "queue.mqtt_host", "set the type to mqtt"),
            ("queue: {type: rabbitmq, redis_url: 'redis://a'}", "queue.redis_url", "cache.type sqlite"),
            (
                "queue: {type: rabbitmq, redis_url: 'redis://a'}\ncache: {type: redis, redis_url: 'redis://b'}",
                "queue.redis_url",
                "cache.redis_url",
            ),
            (
                "queue: {type: mqtt, connection: {mqtt: {lost_after_seconds: 5}}}",
                "queue.connection.mqtt.lost_after_seconds",
                "cache.type: redis",
            ),
            ("server: {endpoints: ['unix:/a'], port: 81}", "server.port", "server.endpoints"),
            ("server: {endpoints: ['unix:/a'], host: '::1'}", "server.host", "server.endpoints"),
            ("routing: {routes: [{name: a, is_default: true}]}", "routing.routes", "proxy.enabled"),
            (
                PROXY + ", default_endpoint: a}\nworker: {handler: 'a:b'}",
                "proxy.default_endpoint",
                "worker.handler takes",
            ),
            ("brokers: {plant: {type: mqtt, host: a}}", "brokers", "no bridge"),
            ("admin: {key: correct-horse-battery}", "admin.key", "without admin.port"),
            ("admin: {host: '::1'}", "admin.host", "without admin.port"),
            ("rate_limit: {burst: 5}", "rate_limit.burst", "rate_limit.requests"),
            ("callbacks: {schedule: [5]}", "callbacks.schedule", "name a secret"),
            ("callbacks: {allow: [10.0.0.0/8]}", "callbacks.allow", "name a secret"),
            (
                PROXY + "}\nrouting: {routes: [{name: a, is_default: true, endpoint: a, timeout: 301}]}",
                "routing.routes.0.timeout",
                "the timeout of a is 300 s: raise that",
            ),
            ("worker: {max_retries: 0, retry: {base_seconds: 5}}", "worker.retry.base_seconds", "max_retries: 0"),
            ("worker: {max_retries: 0, retry: {jitter: 0}}", "worker.retry.jitter", "allow retries"),
            ("worker: {retry: {base_seconds: 0, factor: 3}}", "worker.retry.factor", "base_seconds is 0"),
            ("worker: {retry: {max_seconds: 0, base_seconds: 3}}", "worker.retry.base_seconds", "max_seconds is 0"),
            ("worker: {retry: {base_seconds: 61}}", "worker.retry.base_seconds", "max_seconds is less: raise that"),
            ("worker: {executors: {a: process}}", "worker.executors.a", "worker.handlers has no a"),
            ("worker: {handler: echo, executor: thread}", "worker.executor", "without a handler"),
            (PROXY + "}\nworker: {timeout_seconds: 5}", "worker.timeout_seconds", "timeout of each endpoint"),
            (f"proxy: {{{SIDECAR}}}\nworker: {{timeout_seconds: 5}}", "worker.timeout_seconds", "sidecar.timeout"),
            (
                "queue: {type: mqtt, connection: {mqtt: {path: /x}}}",
                "queue.connection.mqtt.path",
                "transport: websockets",
            ),
        ):
            complaint = self.complaint(text)
            self.assertEqual(complaint.key, key, text)
            self.assertIn(cure, complaint.reason)

    def test_refused_of_an_endpoint(self) -> None:
        """Credentials of another kind than the endpoint's, and certificates without TLS."""
        for keys, key, cure in (
            ("auth_token: t", "auth_token", "without auth_type"),
            ("auth_type: basic, auth_username: u, auth_password: p, auth_token: t", "auth_token", "bearer"),
            ("auth_type: bearer, auth_token: t, auth_header_name: X-A", "auth_header_name", "api_key or custom"),
            ("auth_type: bearer, auth_token: t, auth_scope: s", "auth_scope", "oauth2"),
            ("tls: {ca: /a}", "tls.ca", "not https"),
        ):
            text = f"proxy: {{enabled: true, endpoints: {{a: {{url: 'http://a.test', {keys}}}}}}}"
            complaint = self.complaint(text)
            self.assertEqual(complaint.key, f"proxy.endpoints.a.{key}")
            self.assertIn(cure, complaint.reason)

    def test_refused_variables(self) -> None:
        """A single variable for the connection of another product is no section that may stand there unused."""
        for name, more in (
            ("REDIS__URL", {}),
            ("SQLITE__PATH", {"QUEUE__TYPE": "redis"}),
            ("RABBITMQ__PREFIX", {"QUEUE__TYPE": "mqtt"}),
            ("MQTT__TLS__CA", {}),
        ):
            complaint = self.complaint(**{f"QUEUE__CONNECTION__{name}": "redis://a", **more})
            self.assertEqual(complaint.source, f"OPENHQM_QUEUE__CONNECTION__{name}")
            self.assertIn("has no effect", complaint.reason)

    def test_used(self) -> None:
        """What has an effect is not refused: also where it is for the other role, or for the store beside a broker."""
        for text in (
            "queue: {type: rabbitmq, redis_url: 'redis://a'}\ncache: {type: redis}",
            "queue: {type: rabbitmq, connection: {rabbitmq: {lost_after_seconds: 5}}}\ncache: {type: redis}",
            "worker: {handlers: {a: 'a:b'}, executor: asyncio, executors: {a: process}}",
            "worker: {enabled: false, handler: 'a:b', timeout_seconds: 5}",
            "server: {enabled: false, port: 81, max_body_bytes: 5}",
            PROXY + ", default_endpoint: 'http://b.test'}\nworker: {handler: 'a:b', timeout_seconds: 5}",
            PROXY + ", default_endpoint: a}\nworker: {handlers: {a: 'a:b'}}",
            PROXY + "}\nrouting: {routes: [{name: a, is_default: true}]}",
            PROXY + ", caller_targets: {enabled: true, ports: [80]}}\nworker: {timeout_seconds: 5}",
            f"proxy: {{{SIDECAR}, max_response_bytes: 5, forward_headers: [X-A]}}",
            "proxy: {enabled: true, endpoints: {a: {url: 'http://a.test', auth_type: api_key, auth_token: t}}}",
            "queue: {type: mqtt, connection: {mqtt: {transport: websockets, path: /x}}}",
            PROXY + "}\nbrokers: {p: {type: mqtt}}\nbridges: [{name: b, from: {broker: p, topics: [x]}, endpoint: a}]\n"
            "worker: {timeout_seconds: 5}",  # that of replies
        ):
            self.load(text)

    def test_asks_for_nothing(self) -> None:
        """Defaults, whole connections of other products, and a section that says itself that it is off may stand."""
        for text in (
            "proxy: {default_endpoint: null, endpoints: {}, sidecar: {async_rules: []}, forward_headers: "
            "[Content-Type, Accept, User-Agent, X-Request-ID, X-Correlation-ID]}",
            "proxy: {enabled: false, default_endpoint: 'http://a.test', endpoints: {a: {url: 'http://a.test'}}}",
            "proxy: {sidecar: {enabled: false, upstream: 'http://a.test'}}",
            "partitioning: {enabled: false, partition_count: 4}",
            "queue: {connection: {redis: {url: 'redis://a'}, gcp_pubsub: {prefix: a}, sqs: {prefix: a}}}",
            "server: {endpoints: ['unix:/a'], host: 127.0.0.1, port: 8000}",
        ):
            self.load(text)
        self.load(PROXY='{"enabled": false, "default_endpoint": "http://a.test"}')
        self.load(PROXY__SIDECAR='{"enabled": false, "upstream": "http://a.test"}')
        self.load(QUEUE__CONNECTION__REDIS='{"url": "redis://a"}')
        self.load("proxy: {default_endpoint: 'http://a.test'}", PROXY__ENABLED="false")


class PublishingTests(ConfigCase):
    """An endpoint that publishes"""

    def test_for_http(self) -> None:
        """It has nothing that only shapes an HTTP request, or guards its target."""
        endpoint = "publish: {broker: p, topic: t}"
        brokers = "\nbrokers: {p: {type: mqtt}}"
        self.load(f"proxy: {{enabled: true, endpoints: {{a: {{{endpoint}, timeout: 5, max_in_flight: 2}}}}}}{brokers}")
        for name, value in (
            ("headers", "{X-A: b}"),
            ("method", "PUT"),
            ("auth_username", "u"),
            ("retry_on", "[500]"),
            ("circuit_breaker", "{open_seconds: 5}"),
            ("tls", "{ca: /a}"),
            ("rate", "{requests: 5}"),
        ):
            text = f"proxy: {{enabled: true, endpoints: {{a: {{{endpoint}, {name}: {value}}}}}}}{brokers}"
            complaint = self.complaint(text)
            self.assertEqual(complaint.key, f"proxy.endpoints.a.{name}")
            self.assertIn("is for HTTP", complaint.reason)


class TwiceTests(ConfigCase):
    """One setting that is written twice"""

    def test_short_forms(self) -> None:
        """The environment wins over the file, whichever of the two names it has; in one place, only one may stand."""
        long = "connection: {redis: {url: 'redis://long'}}"
        for text, environment, url in (
            (f"type: redis, {long}", {"QUEUE__REDIS_URL": "redis://env"}, "redis://env"),
            ("type: redis, redis_url: 'redis://a'", {"QUEUE__CONNECTION__REDIS__URL": "redis://env"}, "redis://env"),
            (
                "type: redis, redis_url: 'redis://a'",
                {"QUEUE__CONNECTION__REDIS__URL_FILE": self.file("redis://env")},
                "redis://env",
            ),
            ("type: redis, redis_url_file: /nowhere", {"QUEUE__CONNECTION__REDIS__URL": "redis://env"}, "redis://env"),
            ("type: redis, redis_url: 'redis://long', connection: {redis: {url: 'redis://long'}}", {}, "redis://long"),
        ):
            self.assertEqual(self.load(f"queue: {{{text}}}", **environment).queue.of(RedisSettings).url, url, text)
        complaint = self.complaint(f"queue: {{type: redis, redis_url: 'redis://short', {long}}}")
        self.assertEqual(complaint.key, "queue.redis_url")
        self.assertIn("queue.connection.redis.url: leave one of them out", complaint.reason)
        complaint = self.complaint(
            QUEUE__TYPE="redis", QUEUE__REDIS_URL="redis://a", QUEUE__CONNECTION__REDIS__URL="redis://b"
        )
        self.assertEqual(complaint.source, "OPENHQM_QUEUE__REDIS_URL")

    def test_secret_files(self) -> None:
        """A file that the environment overrides is not read, and one that overrides the file's value is."""
        self.assertEqual(self.load("worker: {handler_file: /nowhere}", WORKER__HANDLER="a:b").worker.handler, "a:b")
        self.assertIsNone(self.load("worker: {handler_file: /nowhere}", WORKER__HANDLER="null").worker.handler)
        path = self.file("c:d\n")
        self.assertEqual(self.load("worker: {handler: 'a:b'}", WORKER__HANDLER_FILE=path).worker.handler, "c:d")
        self.assertEqual(self.load("worker: {handler_file: /nowhere}", WORKER__HANDLER_FILE=path).worker.handler, "c:d")
        for complaint in (
            self.complaint("worker: {handler: 'a:b', handler_file: /nowhere}"),
            self.complaint(WORKER__HANDLER="a:b", WORKER__HANDLER_FILE=path),
        ):
            self.assertEqual(complaint.key, "worker.handler_file")
            self.assertIn("leave one of them out", complaint.reason)
        handlers = self.load("worker: {handlers: {a: 'a:b', a_file: 'c:d'}}").worker.handlers
        self.assertEqual(handlers, {"a": "a:b", "a_file": "c:d"})

    def test_empty_variables(self) -> None:
        """An empty variable of ours is as if it were not set, whatever its key; ``null`` is none."""
        text = "worker: {handler: 'a:b', handlers: {x: 'a:c'}}\nserver: {port: 81, endpoints: []}"
        empty = {
            "WORKER__HANDLER": "",
            "WORKER__HANDLERS": "",
            "SERVER__PORT": "",
            "SERVER__ENDPOINTS": "",
            "SERVER": "",
            "QUEUE__REDIS_URL": "",
            "NO__SUCH__KEY": "",
            "WORKER__HANDLER_FILE": "",
        }
        self.assertEqual(self.load(text, **empty), self.load(text))
        self.assertIsNone(self.load(text, WORKER__HANDLER="null").worker.handler)

    def test_default_of_an_empty_variable(self) -> None:
        """``${NAME:-default}`` has the shell's meaning (POSIX, 2.6.2): an empty variable has the default, too."""
        text = "worker: {handler: '${H:-jobs:h}'}\nqueue: {request_queue: 'a${E}b${N:-}c'}"
        for environment in ({"E": ""}, {"H": "", "E": "", "N": ""}):
            settings = load(self.file(text), environment, PRODUCTS)
            self.assertEqual((settings.worker.handler, settings.queue.request_queue), ("jobs:h", "abc"))
        settings = load(self.file(text), {"H": "a:b", "E": "1", "N": "2"}, PRODUCTS)
        self.assertEqual((settings.worker.handler, settings.queue.request_queue), ("a:b", "a1b2c"))
