"""A real Kafka of one process on ports of its own, which tests share.

It runs on the jars in ``TEST_KAFKA`` (``.ci/run`` gets them from Maven Central). A client connects to the address that
Kafka tells it. So there is a listener for each network between a client and the server, and it tells the network's.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
import time
from base64 import urlsafe_b64encode
from pathlib import Path
from uuid import uuid4

from twisted.trial.unittest import SkipTest

from tests.brokers import ServerProcess
from tests.certificates import certify
from tests.servers import free_port

LISTENERS = 8
"""How many clients of one test have a network of their own."""
CONNECTION_STRING = "Endpoint=sb://tests.servicebus.windows.net/;SharedAccessKeyName=tests;SharedAccessKey=s3cret="
EMULATOR = f"{CONNECTION_STRING};UseDevelopmentEmulator=true"
JVM = (
    "-Xms256m",
    "-Xmx256m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Xshare:auto",
    "-Xss512k",
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info",
)


def find_kafka() -> Path:
    """Where the jars are; `SkipTest` where there are none, or no Java."""
    jars = Path(os.environ.get("TEST_KAFKA", "/var/tmp/openhqm-kafka/lib"))
    if shutil.which("java") is not None and any(jars.glob("kafka_*.jar")):
        return jars
    reason = f"there is no Kafka in {jars}, or no Java: see .ci/run"
    if os.environ.get("CI") == "true":
        raise AssertionError(reason)
    raise SkipTest(reason)


class KafkaServer(ServerProcess):
    """``port`` is for clients without a network between, ``sasl_port`` for those that show `EMULATOR`.

    ``networked`` has, for each network, the port that Kafka listens on and the port that it tells clients;
    ``networked_sasl`` the same for those that show it, too.
    """

    def __init__(self) -> None:
        self.jars = find_kafka()
        self.directory = Path(tempfile.mkdtemp(prefix="openhqm-kafka-"))
        self.port, self.sasl_port, controller = free_port(), free_port(), free_port()
        self.networked = [(free_port(), free_port()) for _ in range(LISTENERS)]
        self.networked_sasl = [(free_port(), free_port()) for _ in range(LISTENERS)]
        listeners = {"PLAINTEXT": (self.port, self.port), "SASL": (self.sasl_port, self.sasl_port)}
        listeners |= {f"NET{number}": ports for number, ports in enumerate(self.networked)}
        listeners |= {f"SASL{number}": ports for number, ports in enumerate(self.networked_sasl)}
        listeners |= self.more_listeners()
        own = ",".join(f"{name}://127.0.0.1:{port}" for name, (port, _) in listeners.items())
        # A certificate is for a name.
        hosts = {name: "localhost" if name.endswith("TLS") else "127.0.0.1" for name in listeners}
        told = ",".join(f"{name}://{hosts[name]}:{port}" for name, (_, port) in listeners.items())
        protocols = ",".join(f"{name}:{_protocol(name)}" for name in listeners)
        jaas = "org.apache.kafka.common.security.plain.PlainLoginModule required"
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listeners": f"{own},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": told,
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": f"{protocols},CONTROLLER:PLAINTEXT",
            "log.dirs": f"{self.directory}/data",
            "num.partitions": "4",
            # A topic must not come into being because it is asked for: where it does by default, that is switched on.
            "auto.create.topics.enable": "true",
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "1",
            "group.initial.rebalance.delay.ms": "0",
            "broker.session.timeout.ms": "1500",
            "broker.heartbeat.interval.ms": "300",
            "num.network.threads": "1",
            "num.io.threads": "2",
            "num.recovery.threads.per.data.dir": "1",
            "background.threads": "2",
            "log.cleaner.dedupe.buffer.size": "4194304",
        }
        for name in listeners:
            if name.startswith("SASL"):
                at = f"listener.name.{name.lower()}"
                settings[f"{at}.sasl.enabled.mechanisms"] = "PLAIN"
                shown = CONNECTION_STRING if name.endswith("TLS") else EMULATOR
                settings[f"{at}.plain.sasl.jaas.config"] = f'{jaas} user_$ConnectionString="{shown}";'
        settings |= self.more_settings()
        self.config = self.directory / "server.properties"
        self.config.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))

    users: tuple[str, ...] = ()
    jvm: tuple[str, ...] = JVM

    def more_listeners(self) -> dict[str, tuple[int, int]]:
        """By name, the port that Kafka listens on and the port that it tells. TLS and SASL are parts of the names."""
        return {}

    def more_settings(self) -> dict[str, str]:
        """What the server is told besides."""
        return {}

    @property
    def bootstrap(self) -> str:
        """For ``queue.kafka_bootstrap_servers``."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> KafkaServer:
        """Start it, and come back once it answers."""
        if not (self.directory / "data").exists():
            # One that begins with a hyphen would be an option of the tool.
            cluster = urlsafe_b64encode(b"k" + uuid4().bytes[1:]).decode().rstrip("=")
            subprocess.run(
                self._java("kafka.tools.StorageTool", "format", "-t", cluster, *self.users, "-c"),
                check=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=120,
            )
        out = self.directory / "out"
        with out.open("wb") as to:
            self.process = subprocess.Popen(self._java("kafka.Kafka"), stdout=to, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 120
        while b"Kafka Server started" not in out.read_bytes():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(out.read_text())
            time.sleep(0.05)
        return self

    def _java(self, main: str, *arguments: str) -> list[str]:
        """With the classes that an earlier start has written down, it starts in half of the time (AppCDS)."""
        archive = self.jars.parent / "kafka.jsa"
        shared = [f"-XX:SharedArchiveFile={archive}"] if archive.exists() else []
        return ["java", *self.jvm, *shared, "-cp", f"{self.jars}/*", main, *arguments, str(self.config)]

    def close(self) -> None:
        """Kill it and delete its files."""
        self.kill(signal.SIGKILL)
        shutil.rmtree(self.directory, ignore_errors=True)


class SecuredKafka(KafkaServer):
    """With listeners for TLS, for SCRAM, for tokens without a signature, and for a connection string over TLS.

    ``ca`` is the file to verify it with. It asks again for user name and password, and for a token, every few seconds.
    """

    users = ("--add-scram", "SCRAM-SHA-512=[name=alice,password=scr4m]")

    def more_listeners(self) -> dict[str, tuple[int, int]]:
        self.tls_port, self.scram_port, self.hubs_port, self.token_port = ports = [free_port() for _ in range(4)]
        names = ("TLS", "SASLSCRAM", "SASLTLS", "SASLTOKEN")
        return {name: (port, port) for name, port in zip(names, ports, strict=True)}

    def more_settings(self) -> dict[str, str]:
        self.ca, key = certify(self.directory)
        both = self.directory / "keystore.pem"
        both.write_bytes(key.read_bytes() + self.ca.read_bytes())
        scram, token = "listener.name.saslscram", "listener.name.sasltoken"
        security = "org.apache.kafka.common.security"
        return {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(both),
            f"{scram}.sasl.enabled.mechanisms": "SCRAM-SHA-512",
            f"{scram}.scram-sha-512.sasl.jaas.config": f"{security}.scram.ScramLoginModule required;",
            f"{scram}.scram-sha-512.connections.max.reauth.ms": "2000",
            f"{token}.sasl.enabled.mechanisms": "OAUTHBEARER",
            f"{token}.oauthbearer.sasl.jaas.config": f"{security}.oauthbearer.OAuthBearerLoginModule required;",
            f"{token}.oauthbearer.connections.max.reauth.ms": "60000",
        }


def _protocol(listener: str) -> str:
    return ("SASL_" if listener.startswith("SASL") else "") + ("SSL" if listener.endswith("TLS") else "PLAINTEXT")


_shared: list[KafkaServer] = []


def shared_kafka() -> KafkaServer:
    """One for all tests of this run, which takes seconds to start: each has topics of its own in it."""
    if not _shared:
        _shared.append(KafkaServer().start())
        atexit.register(_shared[0].close)
    return _shared[0]


_secured: list[SecuredKafka] = []


def shared_secured_kafka() -> SecuredKafka:
    """The same for tests of who is let in."""
    if not _secured:
        made = SecuredKafka()
        atexit.register(made.close)
        made.start()
        _secured.append(made)
    return _secured[0]
